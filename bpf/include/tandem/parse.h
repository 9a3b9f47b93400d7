/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The gate that reads Ethernet, up to two VLAN tags, IPv4 without options or fragments, UDP. */
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

/* Reads Ethernet and its tags, and gives the type of what follows at *next. */
static __always_inline int parse_link(struct packet *p, void **next, __be16 *type)
{
	struct ethernet *eth = p->data;

	if ((void *)(eth + 1) > p->end)
		return STACK_MALFORMED;
	*next = eth + 1;
	*type = eth->type;
	p->l2_len = sizeof(*eth);

	/* Before TC sees a packet, the kernel has taken its first tag out of the frame. */
	if (p->skb && p->skb->vlan_present)
		take_tag(p, p->skb->vlan_tci);

#pragma unroll
	for (int tag = 0; tag < MAX_VLAN_TAGS; tag++) {
		struct vlan_tag *vlan = *next;

		if (!is_vlan(*type) || p->tags == MAX_VLAN_TAGS)
			break;
		if ((void *)(vlan + 1) > p->end)
			return STACK_MALFORMED;
		take_tag(p, bpf_ntohs(vlan->tci));
		*type = vlan->type;
		*next = vlan + 1;
		p->l2_len += sizeof(*vlan);
	}
	return CARRY_ON;
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

/* The number in a field, and for verifiers before Linux 6.6 the news that 16 bits are not more than that. */
static __always_inline __u32 bounded16(__be16 field)
{
	__u32 number = bpf_ntohs(field);

	asm volatile("%0 &= 0xffff" : "+r"(number));
	return number;
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
	void *next = p->data;
	__be16 type = ETHERTYPE_IPV4;
	__u32 version, total, length;

	if (p->skb) {
		/* Several packets in one, which has neither a length nor a sequence number of its own. */
		if (p->skb->gso_size)
			return STACK_SEGMENTS;
		make_linear(p);
		next = p->data;
	}
	if (p->skb && p->in->flags & DEVICE_BARE)
		type = p->skb->protocol;
	else
		GATE(parse_link(p, &next, &type));
	if (type != ETHERTYPE_IPV4)
		return STACK_NOT_IPV4;

	ip = next;
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
