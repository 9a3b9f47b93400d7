/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The gate that lets a source in, and learns one where that is asked for (M7). */
#ifndef TANDEM_SOURCE_H
#define TANDEM_SOURCE_H

#include "checksum.h"
#include "flow.h"

static __always_inline int is_remote(struct packet *p, struct rule *rule)
{
	return p->ip->source == *(__be32 *)rule->remote && p->udp->source == rule->remote_port &&
	       rule->remote_port;
}

static __always_inline int is_allowed(struct packet *p, struct policy *policy)
{
#pragma unroll
	for (int i = 0; i < MAX_PREFIXES; i++) {
		struct prefix *prefix = &policy->allowed[i];

		if (i < policy->prefixes &&
		    (p->ip->source & *(__be32 *)prefix->mask) == *(__be32 *)prefix->addr)
			return 1;
	}
	return 0;
}

/* The port is written last and read with the address: half of a remote lets nobody else in. */
static __always_inline void lock_in(struct packet *p, struct rule *rule)
{
	if (!is_remote(p, rule)) {
		rule->remote_port = 0;
		barrier();
		rule->addresses = checksum_fold(
			checksum_swap_word(rule->addresses, p->ip->source, *(__be32 *)rule->remote));
		*(__be32 *)rule->remote = p->ip->source;
		barrier();
		rule->remote_port = p->udp->source;
	}
	rule->flags &= ~RULE_LATCH;
}

/*
 * Learns the source of the packet if the window is open and nobody was learned before. Nothing is
 * learned from what is not plausible media for this very stream: RTP of a payload type that was agreed
 * on, or RTCP where RTCP is due. Whoever comes second is refused, and so is all else from here on.
 */
static __always_inline int latch(struct packet *p, struct rule *rule)
{
	struct policy *policy = policy_of(p->door_at);

	if (!policy)
		return 0;
	if (policy->state == LATCH_LOCKED) {
		/* Learned while Go was writing this rule, and Go will mend that: only one CPU writes at a
		 * time. */
		return p->ip->source == *(__be32 *)policy->learned && p->udp->source == policy->learned_port;
	}
	p->now = bpf_ktime_get_ns();
	if (p->now > policy->until)
		rule->flags &= ~RULE_LATCH; /* strict from here on */
	if (policy->state != LATCH_OPEN || p->now > policy->until || p->implausible != CARRY_ON ||
	    !p->udp->source || (p->is_rtcp && !(rule->flags & RULE_RTCP)))
		return is_remote(p, rule);
	if (is_denied(p) || (!is_remote(p, rule) && !is_allowed(p, policy)))
		return 0;
	if (__sync_val_compare_and_swap(&policy->state, LATCH_OPEN, LATCH_LEARNING) != LATCH_OPEN)
		return 0; /* another CPU was first */
	*(__be32 *)policy->learned = p->ip->source;
	policy->learned_port = p->udp->source;
	lock_in(p, rule);
	barrier();
	policy->state = LATCH_LOCKED;
	tell(p, EVENT_LATCHED, 0, 0);
	return 1;
}

/* Strict, unless the rule asks for more: no learning, so that nobody can pull a stream to himself (RTP
 * bleed). */
static __always_inline int check_source(struct packet *p)
{
	struct rule *rule = p->door;
	struct rare *rare;

	if (is_remote(p, rule) && !(rule->flags & RULE_LATCH))
		return CARRY_ON;
	if (rule->flags & RULE_LATCH && latch(p, rule))
		return CARRY_ON;
	rare = rare_of(p->door_at);
	if (rare)
		__sync_fetch_and_add(&rare->refused, 1);
	return refuse(p, DROP_SOURCE_REFUSED);
}

#endif
