/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The gate that counts: the flow's statistics (RFC 3550) and its reports. */
#ifndef TANDEM_STATISTICS_H
#define TANDEM_STATISTICS_H

#include "clock.h"
#include "rtp.h"

#define MAX_JITTER_TICKS (1 << 20)
#define MAX_TRANSIT_NS	 250000000 /* of one packet; 16 times this fits 32 bits */
#define REPORT_GAP	 100000000 /* ns: call.ReportGap */

/*
 * Interarrival jitter (RFC 3550 section 6.4.1, A.8) in ns. Packets that repeat a timestamp say nothing
 * about the network and are passed over, as are gaps of 2^20 ticks and more.
 */
static __always_inline void follow_jitter(struct packet *p, struct counters *c)
{
	__u32 timestamp = bpf_ntohl(p->rtp->timestamp);
	__s32 ticks = timestamp - c->timestamp;

	if (c->reference) {
		__s64 sent, transit;

		if (!ticks)
			return;
		if (ticks < MAX_JITTER_TICKS && ticks > -MAX_JITTER_TICKS) {
			sent = ((__s64)ticks * p->rule->tick) >> 10;
			transit = (__s64)(p->now - c->reference) - sent;
			if (transit < 0)
				transit = -transit;
			if (transit > MAX_TRANSIT_NS)
				transit = MAX_TRANSIT_NS;
			c->jitter += (__u32)transit - ((c->jitter + 8) >> 4);
		}
	}
	c->timestamp = timestamp;
	c->reference = p->now;
}

static __always_inline void follow_report(struct packet *p, struct counters *c)
{
	struct rare *rare = rare_of(p->at);

	if (!rare)
		return;
	if (p->rule->flags & RULE_RTCP) {
		c->last = p->now;
	} else {
		rare->control = p->now;
		rare->controls++;
		if (c->state & STATE_RUNNING)
			rare->before++; /* RTCP among RTP is no packet of the run */
	}
	if ((rare->reported && p->now - rare->reported < REPORT_GAP) || ring_is_half_full()) {
		event_lost(p);
		return;
	}
	rare->reported = p->now;
	tell_report(p);
}

static __always_inline void begin(struct packet *p, struct counters *c)
{
	struct rare *rare = rare_of(p->at);

	if (!rare)
		return;
	if (!rare->first)
		rare->first = p->now;
	if (tell(p, EVENT_STARTED, 0, 0))
		c->state |= STATE_TOLD;
}

/*
 * Counts the packet. Plain additions do: receive side scaling gives all packets of a flow to one
 * queue, and a queue is one CPU's at a time.
 */
static __always_inline int count(struct packet *p)
{
	struct counters *c = p->counters;
	__u64 before = c->packets, gap;

	p->now = clock(p);
	c->packets = before + 1;
	barrier(); /* see struct counters */
	c->bytes += p->payload_len;
	if (!(c->state & STATE_TOLD))
		begin(p, c);
	if (p->is_rtcp) {
		follow_report(p, c);
		return CARRY_ON;
	}
	gap = (p->now - c->last) >> 10;
	if (gap > c->gap && c->last && p->now > c->last)
		c->gap = gap > 0xffffffff ? 0xffffffff : gap;
	c->last = p->now;
	follow_sequence(p, c, before);
	/* The packets of a key repeat its timestamp, and are sent when they please. */
	if (p->rule->tick && p->treatment != TELEPHONE_EVENT)
		follow_jitter(p, c);
	return CARRY_ON;
}

#endif
