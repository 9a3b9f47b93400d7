/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Gates that make the packet the other side's: next hop, IPv4, UDP. */
#ifndef TANDEM_REWRITE_H
#define TANDEM_REWRITE_H

#include "treat.h"

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
	if (p->xdp && p->way->kind > WAY_LINK)
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
	if (p->rule != p->door) {
		/* Another flow's rule, whose remote may be another address than this packet's. */
		__u32 sum = checksum_swap_word(0, p->ip->source, *(__be32 *)p->hop->source);

		p->addresses = checksum_fold(checksum_swap_word(sum, p->ip->dest, *(__be32 *)p->rule->dest));
	}
	return CARRY_ON;
}

/* In an skb the checksum may be half done, for a device to finish; the helper knows. */
static __always_inline int replace_checksum(struct packet *p)
{
	__u32 offset = (p->l2_len & MAX_L2) + sizeof(struct ipv4);
	__u32 at = offset + __builtin_offsetof(struct udp, checksum);
	__u32 inner = p->payload_sum;
	__u64 flags = BPF_F_MARK_MANGLED_0;

	inner = checksum_swap(inner, p->udp->source, p->rule->source_port);
	inner = checksum_swap(inner, p->udp->dest, p->rule->dest_port);
	if (bpf_l4_csum_replace(p->skb, at, 0, p->addresses, flags | BPF_F_PSEUDO_HDR) ||
	    bpf_l4_csum_replace(p->skb, at, 0, checksum_fold(inner), flags))
		return DROP_NO_HEADROOM;
	p->data = (void *)(long)p->skb->data;
	p->end = (void *)(long)p->skb->data_end;
	p->udp = p->data + offset;
	p->ip = p->data + (p->l2_len & MAX_L2);
	if ((void *)(p->udp + 1) > p->end)
		return DROP_NO_HEADROOM; /* never */
	return CARRY_ON;
}

/* Zero means that the sender made no checksum (RFC 768); then there is none to keep right. */
static __always_inline int rewrite_checksum(struct packet *p)
{
	struct udp *udp = p->udp;
	__be16 checksum;
	__u32 sum;

	if (!udp->checksum)
		return CARRY_ON;
	if (p->skb)
		return replace_checksum(p);
	sum = checksum_open(udp->checksum) + p->addresses + p->payload_sum;
	sum = checksum_swap(sum, udp->source, p->rule->source_port);
	sum = checksum_swap(sum, udp->dest, p->rule->dest_port);
	checksum = checksum_close(sum);
	udp->checksum = checksum ? checksum : 0xffff;
	return CARRY_ON;
}

/*
 * Addresses, ports, DSCP (congestion bits are the sender's and stay, RFC 3168), TTL. The checksum
 * goes over 16-bit words, so DSCP and TTL are changed as halves of theirs: storing a byte and loading
 * its word again would stall the CPU.
 */
static __always_inline int rewrite(struct packet *p)
{
	struct rule *rule = p->rule;
	struct ipv4 *ip;
	__be16 old_tos, old_ttl, tos, ttl;
	__u32 sum;

	GATE(rewrite_checksum(p));
	p->udp->source = rule->source_port;
	p->udp->dest = rule->dest_port;

	ip = p->ip;
	old_tos = ip->version_tos;
	old_ttl = ip->ttl_protocol;
	tos = (old_tos & ~bpf_htons(TOS_DSCP)) | bpf_htons(rule->tos);
	ttl = bpf_htons(bpf_ntohs(old_ttl) - TTL_ONE);
	sum = checksum_open(ip->checksum) + p->addresses;
	sum = checksum_swap(sum, old_tos, tos);
	sum = checksum_swap(sum, old_ttl, ttl);
	ip->checksum = checksum_close(sum);
	ip->version_tos = tos;
	ip->ttl_protocol = ttl;
	ip->source = *(__be32 *)p->hop->source;
	ip->dest = *(__be32 *)rule->dest;
	return CARRY_ON;
}

#endif
