/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Gates that check RTP and RTCP for plausibility, against what was agreed on. */
#ifndef TANDEM_RTP_H
#define TANDEM_RTP_H

#include "sequence.h"
#include "source.h"

#define RTP_VERSION	2
#define RTP_HEADER	12
#define RTCP_TYPE_FIRST 192 /* RFC 5761 section 4: what no RTP payload type may look like */
#define RTCP_TYPE_LAST	223
#define PAYLOAD_TYPE	0x7f
#define MARKER		0x80

/* What becomes of the payload type of the packet, by the rule or else by the policy. */
static __always_inline int agreed(struct packet *p, __u8 type)
{
	struct rule *rule = p->door;
	struct policy *policy;
	__u32 at = type;
	__u16 payload;

	if (type == rule->payload_in) {
		p->payload_out = rule->payload_out;
		p->treatment = rule->treatment;
		return CARRY_ON;
	}
	if (rule->flags & RULE_ANY) {
		p->payload_out = type;
		return CARRY_ON;
	}
	policy = policy_of(p->door_at);
	if (!policy)
		return DROP_PAYLOAD_TYPE;
	payload = policy->payload[at & PAYLOAD_TYPE];
	if (!(payload & PAYLOAD_ALLOWED))
		return DROP_PAYLOAD_TYPE;
	p->payload_out = payload & PAYLOAD_TYPE;
	p->treatment = payload >> PAYLOAD_TREATMENT;
	return CARRY_ON;
}

/*
 * What cannot be RTP on an RTP port, or RTCP on an RTCP port. RTCP on the RTP port is fine: some peers
 * multiplex unasked (RFC 5761).
 */
static __always_inline int plausible(struct packet *p)
{
	struct rtp *rtp = (void *)(p->udp + 1);
	int rtcp_flow = p->door->flags & RULE_RTCP;
	int implausible = rtcp_flow ? DROP_NOT_RTCP : DROP_NOT_RTP;

	if (p->payload_len < RTCP_MIN_LEN || (void *)rtp + RTCP_MIN_LEN > p->end ||
	    rtp->version_csrcs >> 6 != RTP_VERSION)
		return implausible;

	p->is_rtcp = rtp->marker_type >= RTCP_TYPE_FIRST && rtp->marker_type <= RTCP_TYPE_LAST;
	if (p->is_rtcp)
		return CARRY_ON;
	if (rtcp_flow || p->payload_len < RTP_HEADER + 4 * (rtp->version_csrcs & 0x0f) ||
	    (void *)(rtp + 1) > p->end)
		return implausible;
	p->rtp = rtp;
	return agreed(p, rtp->marker_type & PAYLOAD_TYPE);
}

/* Looks, and decides nothing: who sent it comes first. */
static __always_inline int look_at_rtp(struct packet *p)
{
	p->implausible = plausible(p);
	return CARRY_ON;
}

/*
 * Drops what the right source may not send either. RTP of a payload type that was not agreed on, among a
 * stream that is, did come, so that its sequence number is not lost.
 */
static __always_inline int check_rtp(struct packet *p)
{
	struct counters *c;
	struct rare *rare;

	if (p->implausible == CARRY_ON)
		return CARRY_ON;
	rare = rare_of(p->door_at);
	if (!rare)
		return p->implausible;
	__sync_fetch_and_add(&rare->out_of_policy, 1);
	c = p->counters;
	if (p->implausible == DROP_PAYLOAD_TYPE && c->state & STATE_RUNNING && c->ssrc == p->rtp->ssrc) {
		follow_sequence(p, c, c->packets);
		rare->before--; /* which makes it one that came */
	}
	return p->implausible;
}

#endif
