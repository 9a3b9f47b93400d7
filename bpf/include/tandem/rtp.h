/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Gates that check RTP and RTCP for plausibility, and keep the flow's statistics. */
#ifndef TANDEM_RTP_H
#define TANDEM_RTP_H

#include "flow.h"

#define RTP_VERSION	 2
#define RTCP_MIN_LEN	 8   /* header and one SSRC */
#define RTCP_TYPE_FIRST	 192 /* RFC 5761 section 4: what no RTP payload type may look like */
#define RTCP_TYPE_LAST	 223
#define MAX_DROPOUT	 3000 /* RFC 3550 A.1: a gap of more packets than this is a restart */
#define MAX_MISORDER	 100  /* likewise for packets that are late */
#define MAX_JITTER_TICKS (1 << 20)
#define MAX_TRANSIT_NS	 250000000 /* of one packet; 16 times this fits 32 bits */
#define SEQUENCE_OFFSET	 65536	   /* keeps packets late for the very first one above zero */

/* Closes a run of sequence numbers, and starts one whose first packet is sequence. */
static __always_inline void start_run(struct counters *c, struct rare *rare, __u16 sequence, __u32 ssrc,
				      __u64 before)
{
	if (c->state & STATE_RUNNING) {
		__u64 expected = c->highest - c->base + 1, received = before - rare->before;

		if (expected > received)
			rare->lost += expected - received;
	}
	rare->before = before;
	c->state |= STATE_RUNNING;
	c->ssrc = ssrc;
	c->base = c->highest = SEQUENCE_OFFSET + sequence;
	c->bad_seq = 0;
	c->reference = 0;
}

/* A packet that does not follow: late, or twice, or the first of another run. */
static __always_inline void lose_track(struct packet *p, struct counters *c, __s16 delta, __u64 before)
{
	int same = (c->state & STATE_RUNNING) && c->ssrc == p->ssrc;
	struct rare *rare;

	if (same && delta <= 0 && delta > -MAX_MISORDER) {
		if (delta < 0)
			c->reordered++;
		if (c->highest + delta < c->base)
			c->base = c->highest + delta;
		return;
	}
	if (same && c->bad_seq != p->sequence + 1U) {
		c->bad_seq = (__u16)(p->sequence + 1) + 1U;
		return;
	}
	rare = bpf_map_lookup_elem(&rares, &p->at);
	if (!rare)
		return;
	if (same) {
		/* Two in a row: the sender has started anew, and the one before belongs to it. */
		start_run(c, rare, p->sequence - 1, p->ssrc, before - 1);
		c->highest++;
	} else {
		start_run(c, rare, p->sequence, p->ssrc, before);
	}
}

/*
 * Follows the sequence number (RFC 3550 A.1, A.3). Lost is not counted per packet: it is what the
 * run's range expects minus what came.
 */
static __always_inline void follow_sequence(struct packet *p, struct counters *c, __u64 before)
{
	__s16 delta = p->sequence - c->highest;

	if (c->ssrc == p->ssrc && delta > 0 && delta < MAX_DROPOUT && (c->state & STATE_RUNNING))
		c->highest += delta;
	else
		lose_track(p, c, delta, before);
}

/*
 * Interarrival jitter (RFC 3550 section 6.4.1, A.8) in ns. Packets that repeat a timestamp (the
 * updates of one telephone-event, RFC 4733) say nothing about the network and are passed over, as
 * are gaps of 2^20 ticks and more.
 */
static __always_inline void follow_jitter(struct packet *p, struct counters *c, __u64 now)
{
	__s32 ticks = p->timestamp - c->timestamp;

	if (c->reference) {
		__s64 sent, transit;

		if (!ticks)
			return;
		if (ticks < MAX_JITTER_TICKS && ticks > -MAX_JITTER_TICKS) {
			sent = ((__s64)ticks * p->rule->tick) >> 10;
			transit = (__s64)(now - c->reference) - sent;
			if (transit < 0)
				transit = -transit;
			if (transit > MAX_TRANSIT_NS)
				transit = MAX_TRANSIT_NS;
			c->jitter += (__u32)transit - ((c->jitter + 8) >> 4);
		}
	}
	c->timestamp = p->timestamp;
	c->reference = now;
}

/*
 * What cannot be RTP on an RTP port, or RTCP on an RTCP port, is dropped uncounted by the flow.
 * RTCP on the RTP port is let through: some peers multiplex unasked (RFC 5761).
 */
static __always_inline int check_rtp(struct packet *p)
{
	struct rtp *rtp = (void *)(p->udp + 1);
	int rtcp_flow = p->rule->flags & RULE_RTCP;

	if (p->payload_len < RTCP_MIN_LEN || (void *)rtp + RTCP_MIN_LEN > p->end ||
	    rtp->version_csrcs >> 6 != RTP_VERSION)
		return rtcp_flow ? DROP_NOT_RTCP : DROP_NOT_RTP;

	p->is_rtcp = rtp->marker_type >= RTCP_TYPE_FIRST && rtp->marker_type <= RTCP_TYPE_LAST;
	if (p->is_rtcp)
		return CARRY_ON;
	if (rtcp_flow)
		return DROP_NOT_RTCP;
	if (p->payload_len < sizeof(*rtp) + 4 * (rtp->version_csrcs & 0x0f) || (void *)(rtp + 1) > p->end)
		return DROP_NOT_RTP;
	p->sequence = bpf_ntohs(rtp->sequence);
	p->timestamp = bpf_ntohl(rtp->timestamp);
	p->ssrc = rtp->ssrc;
	return CARRY_ON;
}

/*
 * Counts the packet. Plain additions do: receive side scaling gives all packets of a flow to one
 * queue, and a queue is one CPU's at a time.
 */
static __always_inline int count(struct packet *p)
{
	struct counters *c = p->counters;
	__u64 now = bpf_ktime_get_ns(), before = c->packets;
	struct rare *rare;

	c->packets = before + 1;
	barrier(); /* see struct counters */
	c->bytes += p->payload_len;
	c->last = now;
	if (!(c->state & STATE_TOLD)) {
		rare = bpf_map_lookup_elem(&rares, &p->at);
		if (!rare)
			return CARRY_ON;
		if (!rare->first)
			rare->first = now;
		if (tell(p, rare, EVENT_STARTED))
			c->state |= STATE_TOLD;
	}
	if (p->is_rtcp) {
		/* RTCP among RTP is no packet of the run. */
		if (c->state & STATE_RUNNING) {
			rare = bpf_map_lookup_elem(&rares, &p->at);
			if (rare)
				rare->before++;
		}
		return CARRY_ON;
	}
	follow_sequence(p, c, before);
	if (p->rule->tick)
		follow_jitter(p, c, now);
	return CARRY_ON;
}

#endif
