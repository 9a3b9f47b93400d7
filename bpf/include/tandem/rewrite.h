/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Gates that make the packet the other side's: next hop, IPv4, UDP, link layer. */
#ifndef TANDEM_REWRITE_H
#define TANDEM_REWRITE_H

#include "maps.h"
#include "packet.h"

/*
 * Incremental checksums (RFC 1624): a checksum becomes the one's complement sum of its own
 * complement, the complement of each old word and each new word. The sum is a plain 32-bit
 * integer, folded once at the end. A checksum that was wrong stays wrong.
 */
static __always_inline __u32 checksum_open(__be16 checksum)
{
	return (__u16)~checksum;
}

static __always_inline __u32 checksum_swap(__u32 sum, __u16 old, __u16 new)
{
	return sum + (__u16)~old + new;
}

static __always_inline __be16 checksum_close(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/*
 * Where the packet would go. Nothing is changed yet, so that the stack gets it as it came. While the
 * next hop is unresolved the packet is dropped: no socket of the stack waits for it, so the stack would
 * tell a peer in the middle of a call, by ICMP, that nobody listens there.
 */
static __always_inline int find_next_hop(struct packet *p)
{
	__u32 id = p->rule->next_hop;
	struct next_hop *hop;

	if (p->rule->flags & RULE_HOLD)
		return DROP_HOLD;
	if (!(p->rule->flags & RULE_SEND))
		return STACK_EGRESS;
	hop = bpf_map_lookup_elem(&next_hops, &id);
	if (!hop)
		return DROP_NO_NEXT_HOP;
	p->way = &hop->way[hop->active & 1];
	if (!p->way->len)
		return DROP_NO_NEXT_HOP;
	/* We are a hop: a packet that goes round in circles ends here (RFC 1812 section 5.3.1). */
	if (bpf_ntohs(p->ip->ttl_protocol) < 2 * TTL_ONE)
		return DROP_TTL_EXPIRED;
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
	struct ipv4 *ip = p->ip;
	struct udp *udp = p->udp;
	__be16 old_tos = ip->version_tos, old_ttl = ip->ttl_protocol;
	__be16 tos = (old_tos & ~bpf_htons(TOS_DSCP)) | bpf_htons(rule->tos);
	__be16 ttl = bpf_htons(bpf_ntohs(old_ttl) - TTL_ONE);
	__be16 source = rule->source_port, dest = rule->dest_port, checksum;
	__u32 sum;

	sum = checksum_open(ip->checksum) + rule->addresses;
	sum = checksum_swap(sum, old_tos, tos);
	sum = checksum_swap(sum, old_ttl, ttl);
	ip->checksum = checksum_close(sum);
	ip->version_tos = tos;
	ip->ttl_protocol = ttl;
	ip->source = *(__be32 *)rule->source;
	ip->dest = *(__be32 *)rule->dest;

	/* Zero means that the sender made no checksum (RFC 768); then there is none to keep right. */
	if (udp->checksum) {
		sum = checksum_open(udp->checksum) + rule->addresses;
		sum = checksum_swap(sum, udp->source, source);
		sum = checksum_swap(sum, udp->dest, dest);
		checksum = checksum_close(sum);
		udp->checksum = checksum ? checksum : 0xffff;
	}
	udp->source = source;
	udp->dest = dest;
	return CARRY_ON;
}

static __always_inline void copy_words(void *to, const void *from, int bytes)
{
#pragma unroll
	for (int i = 0; i < bytes / 4; i++)
		((__u32 *)to)[i] = ((const __u32 *)from)[i];
	if (bytes % 4)
		((__u16 *)to)[bytes / 2 - 1] = ((const __u16 *)from)[bytes / 2 - 1];
}

/* Puts the next hop's header in front, and hands the packet to its device. */
static __always_inline int send(struct packet *p)
{
	struct way *way = p->way;
	void *data = p->data, *end = p->end;
	__u32 len = way->len;

	if (len != p->l2_len) {
		if (bpf_xdp_adjust_head(p->ctx, (int)p->l2_len - (int)len))
			return DROP_NO_HEADROOM;
		data = (void *)(long)p->ctx->data;
		end = (void *)(long)p->ctx->data_end;
	}
	/* Always true, with IPv4 and UDP behind the header; the verifier wants to see it. */
	if (data + sizeof(way->l2) > end)
		return DROP_NO_HEADROOM;
	if (len == 14)
		copy_words(data, way->l2, 14);
	else if (len == 18)
		copy_words(data, way->l2, 18);
	else
		copy_words(data, way->l2, 22);

	if (way->device == p->realm->device) {
		p->action = XDP_TX;
		return FORWARD_FORWARDED;
	}
	p->action = bpf_redirect_map(&devices, way->device, XDP_DROP);
	return p->action == XDP_REDIRECT ? FORWARD_FORWARDED : DROP_NO_DEVICE;
}

#endif
