/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The gates that read Ethernet, up to two VLAN tags, IPv4 without options or fragments, UDP. */
#ifndef TANDEM_PARSE_H
#define TANDEM_PARSE_H

#include "packet.h"

#define MAX_LINEAR 2048 /* bytes: longer packets are no media */

static __always_inline int is_vlan(__be16 type)
{
	return type == ETHERTYPE_VLAN || type == ETHERTYPE_QINQ;
}

static __always_inline void take_tag(struct packet *p, __u16 tci)
{
	if (p->tags == 0)
		p->vlan = tci & VLAN_ID_MASK;
	else
		p->inner = tci & VLAN_ID_MASK;
	p->tags++;
}

/* A packet that TC gets may be in pieces; media is short enough to be put together. */
static __always_inline void make_linear(struct packet *p)
{
	__u32 len = p->skb->len;

	if (len > MAX_LINEAR || p->data + len <= p->end)
		return;
	bpf_skb_pull_data(p->skb, len); /* if that fails the packet is shorter than its lengths say */
	p->data = (void *)(long)p->skb->data;
	p->end = (void *)(long)p->skb->data_end;
}

/*
 * Reads Ethernet and its tags. A priority tag in front of more than can be read hides what is there: the
 * stack peels as many as there are.
 */
static __always_inline int parse_ethernet(struct packet *p)
{
	struct ethernet *eth = p->data;
	void *next = eth + 1;
	__be16 type;

	if (next > p->end)
		return STACK_MALFORMED;
	type = eth->type;
	p->l2_len = sizeof(*eth);

	/* Before TC sees a packet, the kernel has taken its first tag out of the frame. */
	if (p->skb && p->skb->vlan_present)
		take_tag(p, p->skb->vlan_tci);

#pragma unroll
	for (int tag = 0; tag < MAX_VLAN_TAGS; tag++) {
		struct vlan_tag *vlan = next;

		if (!is_vlan(type) || p->tags == MAX_VLAN_TAGS)
			break;
		if ((void *)(vlan + 1) > p->end)
			return STACK_MALFORMED;
		take_tag(p, bpf_ntohs(vlan->tci));
		type = vlan->type;
		next = vlan + 1;
		p->l2_len += sizeof(*vlan);
	}
	if (is_vlan(type) && !(p->vlan && p->inner))
		return DROP_NOT_PLAIN;
	p->network = next;
	p->type = type;
	return CARRY_ON;
}

/* Whether the IP header that the kernel knows of is at an offset. */
static __always_inline int is_at(struct packet *p, __u32 offset, const struct ipv4 *header)
{
	const __u32 *there = p->data + offset, *known = (const void *)header;

	if ((void *)there + sizeof(*header) > p->end)
		return 0;
#pragma unroll
	for (__u32 i = 0; i < sizeof(*header) / sizeof(*there); i++)
		if (there[i] != known[i])
			return 0;
	return 1;
}

/*
 * Where IP begins on a device without link layer. What an xfrm interface has decrypted may still have the
 * Ethernet header of the outer packet in front, made anew: no field tells, but the kernel knows where IP is.
 * What looks like both was made to.
 */
static __always_inline int parse_bare(struct packet *p)
{
	struct ipv4 header = {};
	int framed;

	p->network = p->data;
	p->type = p->skb->protocol;
	if (p->type != ETHERTYPE_IPV4)
		return CARRY_ON;
	if (bpf_skb_load_bytes_relative(p->skb, 0, &header, sizeof(header), BPF_HDR_START_NET))
		return STACK_MALFORMED;
	framed = is_at(p, ETHERNET_LEN, &header);
	if (framed == is_at(p, 0, &header))
		return STACK_MALFORMED;
	p->l2_len = framed ? ETHERNET_LEN : 0;
	p->network += p->l2_len;
	return CARRY_ON;
}

/* The gate that reads the link layer. Several packets in one are no media (see parse), and have their headers
 * in one piece. */
static __always_inline int parse_link(struct packet *p)
{
	if (p->skb && !p->skb->gso_size)
		make_linear(p);
	if (p->skb && p->in->flags & DEVICE_BARE)
		return parse_bare(p);
	return parse_ethernet(p);
}

/* The number in a field, and for verifiers before Linux 6.6 the news that 16 bits are not more than that. */
static __always_inline __u32 bounded16(__be16 field)
{
	__u32 number = bpf_ntohs(field);

	asm volatile("%0 &= 0xffff" : "+r"(number));
	return number;
}

/* UDP behind IP, whatever options that has; null if it is not there, or not in this fragment. */
static __always_inline struct udp *udp_behind(struct packet *p, struct ipv4 *ip)
{
	__u32 header = (bounded16(ip->version_tos) >> 8 & 0x0f) * 4;
	struct udp *udp = (void *)ip + header;

	if ((bpf_ntohs(ip->ttl_protocol) & 0xff) != IPPROTO_UDP || ip->fragment & IP_FRAGMENT_OFFSET ||
	    header < sizeof(*ip) || (void *)(udp + 1) > p->end)
		return 0;
	return udp;
}

/* The guard has a say in it, so it is not decided yet. */
static __always_inline int leave_to_stack(struct packet *p, enum exit exit)
{
	p->stack = exit;
	return CARRY_ON;
}

/*
 * What is not plain UDP over IPv4 is the stack's: it answers ARP and ICMP, reassembles, and
 * discards what is broken, with its own counters.
 */
static __always_inline int parse(struct packet *p)
{
	struct ipv4 *ip;
	struct udp *udp;
	__u32 version, total, length;

	if (p->type != ETHERTYPE_IPV4)
		return STACK_NOT_IPV4;

	ip = p->network;
	udp = (void *)(ip + 1);
	if ((void *)(ip + 1) > p->end)
		return STACK_MALFORMED;
	version = bpf_ntohs(ip->version_tos) >> 8;
	if (version >> 4 != 4)
		return STACK_MALFORMED;
	p->ip = ip;
	if (version != 0x45)
		return leave_to_stack(p, STACK_IP_OPTIONS);
	if ((bpf_ntohs(ip->ttl_protocol) & 0xff) != IPPROTO_UDP)
		return leave_to_stack(p, STACK_NOT_UDP);
	/* Several packets in one, which has neither a length nor a sequence number of its own. */
	if (p->skb && p->skb->gso_size)
		return leave_to_stack(p, STACK_SEGMENTS);
	if (ip->fragment & IP_FRAGMENT)
		return leave_to_stack(p, STACK_FRAGMENT);
	if ((void *)(udp + 1) > p->end)
		return leave_to_stack(p, STACK_MALFORMED);

	/* Both lengths must agree with what is there, else the checksums would cover something else. */
	total = bounded16(ip->total_length);
	length = bounded16(udp->length);
	if (length < sizeof(*udp) || length + sizeof(*ip) > total || (void *)ip + total > p->end)
		return leave_to_stack(p, STACK_MALFORMED);

	p->stack = CARRY_ON;
	p->udp = udp;
	p->payload_len = length - sizeof(*udp);
	return CARRY_ON;
}

#endif
