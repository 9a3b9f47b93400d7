/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Follows the sequence numbers of a stream: loss, order, duplicates (RFC 3550). */
#ifndef TANDEM_SEQUENCE_H
#define TANDEM_SEQUENCE_H

#include "guard.h"

#define MAX_DROPOUT	3000  /* RFC 3550 A.1: a gap of more packets than this is a restart */
#define MAX_MISORDER	100   /* likewise for packets that are late */
#define SEQUENCE_OFFSET 65536 /* keeps packets late for the very first one above zero */
#define WINDOW		64    /* packets that a duplicate is told by */

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

#endif
