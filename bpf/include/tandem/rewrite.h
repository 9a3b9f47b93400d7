/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The gate that makes the packet the other side's: IPv4 and UDP. */
#ifndef TANDEM_REWRITE_H
#define TANDEM_REWRITE_H

#include "hop.h"
#include "treat.h"

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
