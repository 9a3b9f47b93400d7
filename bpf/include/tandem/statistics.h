/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The gate that counts: the flow's statistics (RFC 3550) and its reports. */
#ifndef TANDEM_STATISTICS_H
#define TANDEM_STATISTICS_H

#include "clock.h"
#include "rtp.h"

#define MAX_DROPOUT	 3000 /* RFC 3550 A.1: a gap of more packets than this is a restart */
#define MAX_MISORDER	 100  /* likewise for packets that are late */
#define MAX_JITTER_TICKS (1 << 20)
#define MAX_TRANSIT_NS	 250000000 /* of one packet; 16 times this fits 32 bits */
#define SEQUENCE_OFFSET	 65536	   /* keeps packets late for the very first one above zero */
#define WINDOW		 64	   /* packets that a duplicate is told by */
#define REPORT_GAP	 100000000 /* ns: call.ReportGap */

/* Closes a run of sequence numbers, and starts one whose first packet is sequence. */
static __always_inline void start_run(struct packet *p, struct counters *c, struct rare *rare, __u16 sequence,
				      __u64 before)
{
	if (c->state & STATE_RUNNING) {
		__u64 expected = c->highest - rare->base + 1, received = before - rare->before;

		if (expected > received)
			rare->lost += expected - received;
		if (c->ssrc != p->rtp->ssrc) {
			rare->ssrc_changes++;
			tell_of_stream(p, &rare->told, EVENT_SSRC, 0, p->rtp->ssrc);
		}
	}
	rare->before = before;
	c->state |= STATE_RUNNING;
	c->ssrc = p->rtp->ssrc;
	rare->base = c->highest = SEQUENCE_OFFSET + sequence;
	rare->bad_seq = 0;
	c->seen = 1;
	c->reference = 0;
}

/* A packet of the run that does not come after all others: late, or again. */
static __always_inline void go_back(struct counters *c, struct rare *rare, __u32 back)
{
	__u64 bit = 1ULL << (back & (WINDOW - 1));

	if (back < WINDOW && c->seen & bit) {
		rare->duplicated++;
		rare->before++; /* it was received before, so it makes up for no loss */
		return;
	}
	if (back < WINDOW)
		c->seen |= bit;
	rare->reordered++;
	if (c->highest - back < rare->base)
		rare->base = c->highest - back;
}

/* A packet that does not follow: late, or twice, or the first of another run. */
static __always_inline void lose_track(struct packet *p, struct counters *c, __u16 sequence, __s16 delta,
				       __u64 before)
{
	struct rare *rare = rare_of(p->at);
	int same = (c->state & STATE_RUNNING) && c->ssrc == p->rtp->ssrc;

	if (!rare)
		return;
	if (!same) {
		start_run(p, c, rare, sequence, before);
	} else if (delta <= 0 && delta > -MAX_MISORDER) {
		go_back(c, rare, -delta);
	} else if (rare->bad_seq != sequence + 1U) {
		rare->bad_seq = (__u16)(sequence + 1) + 1U;
		rare->before++; /* a stray makes up for no loss */
	} else {
		/* Two in a row: the sender has started anew, and the one before belongs to it. */
		rare->before--;
		start_run(p, c, rare, sequence - 1, before - 1);
		c->highest++;
		c->seen = 3;
	}
}

/*
 * Follows the sequence number (RFC 3550 A.1, A.3). Lost is not counted per packet: it is what the
 * run's range expects minus what came.
 */
static __always_inline void follow_sequence(struct packet *p, struct counters *c, __u64 before)
{
	__u16 sequence = bpf_ntohs(p->rtp->sequence);
	__s16 delta = sequence - c->highest;

	if (c->ssrc == p->rtp->ssrc && delta > 0 && delta < MAX_DROPOUT && (c->state & STATE_RUNNING)) {
		c->highest += delta;
		c->seen = delta < WINDOW ? c->seen << delta | 1 : 1;
	} else {
		lose_track(p, c, sequence, delta, before);
	}
}

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
