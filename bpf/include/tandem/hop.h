/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Gates that say where a packet leaves, and whether it does. */
#ifndef TANDEM_HOP_H
#define TANDEM_HOP_H

#include "checksum.h"
#include "flow.h"

static __always_inline struct bare_way *bare(struct way *way)
{
	return (struct bare_way *)way->l2;
}

/* Longer than the tunnel takes, and not to be fragmented: the stack would tell ourselves, not the sender. */
static __always_inline int is_too_large(struct packet *p)
{
	return p->way->kind == WAY_BARE && bare(p->way)->mtu && p->ip->fragment & IP_DONT_FRAGMENT &&
	       bounded16(p->ip->total_length) > bare(p->way)->mtu;
}

/*
 * A packet that goes out again must not bring along what was noted of it on its way in: a mark would
 * route it anew, a time would have fq hold it back, a queue may not exist on the other device. Volatile,
 * since the verifier takes no two of them in one store.
 */
static __always_inline void forget(volatile struct __sk_buff *skb)
{
	skb->mark = 0;
	skb->tstamp = 0;
	skb->queue_mapping = 0;
}

/*
 * Where the packet would go, and whether this program can send it there. If not, the flow has not counted
 * it yet, nothing is changed, and TC gets it as it came.
 */
static __always_inline int find_next_hop(struct packet *p)
{
	__u32 id = p->rule->next_hop;

	if (p->rule->flags & RULE_HOLD)
		return CARRY_ON;
	if (p->rule->egress != EGRESS_NEXT_HOP)
		return STACK_EGRESS;
	p->hop = bpf_map_lookup_elem(&next_hops, &id);
	if (!p->hop)
		return CARRY_ON;
	p->way = &p->hop->way[p->hop->active & 1];
	p->too_large = is_too_large(p);
	if (p->xdp && p->way->kind > WAY_LINK && !p->too_large)
		return STACK_TC;
	return CARRY_ON;
}

/*
 * What was counted and does not leave. Without any way the packet is dropped: no socket of the stack
 * waits for it, and all the stack could do is to tell a peer in the middle of a call, by ICMP, that
 * nobody listens there. While only the link-layer address is missing there is a way, by the stack's own
 * neighbour table (WAY_NEIGHBOUR).
 */
static __always_inline int may_leave(struct packet *p)
{
	if (p->rule->flags & RULE_HOLD)
		return DROP_HOLD;
	if (!p->way || p->way->kind == WAY_NONE)
		return DROP_NO_NEXT_HOP;
	/* We are a hop: a packet that goes round in circles ends here (RFC 1812 section 5.3.1). */
	if (bpf_ntohs(p->ip->ttl_protocol) < 2 * TTL_ONE)
		return DROP_TTL_EXPIRED;
	p->addresses = p->rule->addresses;
	if (p->rule != p->door || p->rule->flags & RULE_LATCH) {
		/* The rule's remote may be another address than this packet's. */
		__u32 sum = checksum_swap_word(0, p->ip->source, *(__be32 *)p->hop->source);

		p->addresses = checksum_fold(checksum_swap_word(sum, p->ip->dest, *(__be32 *)p->rule->dest));
	}
	return CARRY_ON;
}

#endif
