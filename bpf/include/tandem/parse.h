/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* First gate: Ethernet, up to two VLAN tags, IPv4 without options or fragments, UDP. */
#ifndef TANDEM_PARSE_H
#define TANDEM_PARSE_H

#include "packet.h"

#define MAX_VLAN_TAGS 2

static __always_inline int is_vlan(__be16 type)
{
	return type == ETHERTYPE_VLAN || type == ETHERTYPE_QINQ;
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

#pragma unroll
	for (int tag = 0; tag < MAX_VLAN_TAGS; tag++) {
		struct vlan_tag *vlan = *next;
		__u16 id;

		if (!is_vlan(*type))
			break;
		if ((void *)(vlan + 1) > p->end)
			return STACK_MALFORMED;
		id = bpf_ntohs(vlan->tci) & VLAN_ID_MASK;
		if (tag == 0)
			p->vlan = id;
		else
			p->inner = id;
		*type = vlan->type;
		*next = vlan + 1;
		p->l2_len += sizeof(*vlan);
	}
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
	void *next;
	__be16 type;
	__u32 version, total, length;

	GATE(parse_link(p, &next, &type));
	if (type != ETHERTYPE_IPV4)
		return STACK_NOT_IPV4;

	ip = next;
	udp = (void *)(ip + 1);
	if ((void *)(ip + 1) > p->end)
		return STACK_MALFORMED;
	version = bpf_ntohs(ip->version_tos) >> 8;
	if (version != 0x45)
		return version >> 4 == 4 ? STACK_IP_OPTIONS : STACK_MALFORMED;
	if ((bpf_ntohs(ip->ttl_protocol) & 0xff) != IPPROTO_UDP)
		return STACK_NOT_UDP;
	if (ip->fragment & IP_FRAGMENT)
		return STACK_FRAGMENT;
	if ((void *)(udp + 1) > p->end)
		return STACK_MALFORMED;

	/* Both lengths must agree with what is there, else the checksums would cover something else. */
	total = bpf_ntohs(ip->total_length);
	length = bpf_ntohs(udp->length);
	if (length < sizeof(*udp) || length + sizeof(*ip) > total || (void *)ip + total > p->end)
		return STACK_MALFORMED;

	p->ip = ip;
	p->udp = udp;
	p->payload_len = length - sizeof(*udp);
	return CARRY_ON;
}

#endif
