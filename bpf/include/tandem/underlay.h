/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The gate that lets nothing but tunnels in on their outer side (N5). */
#ifndef TANDEM_UNDERLAY_H
#define TANDEM_UNDERLAY_H

#include "guard.h"

#define PORT_IKE     bpf_htons(500)
#define PORT_IKE_NAT bpf_htons(4500) /* ESP too (RFC 3948) */

/* ESP, IKE, and ICMP, which tells the path MTU. Later fragments do not say which port they are for. */
static __always_inline int is_of_tunnels(struct packet *p, struct ipv4 *ip)
{
	struct udp *udp;

	switch (bpf_ntohs(ip->ttl_protocol) & 0xff) {
	case IPPROTO_ESP:
	case IPPROTO_ICMP:
		return 1;
	case IPPROTO_UDP:
		udp = udp_behind(p, ip);
		if (udp)
			return udp->dest == PORT_IKE || udp->dest == PORT_IKE_NAT;
		return ip->fragment & IP_FRAGMENT_OFFSET;
	}
	return 0;
}

/*
 * Decides all that comes in where a realm's tunnels have their outer side. ARP and what else is neither IP
 * nor in a tag too many is the stack's.
 */
static __always_inline int underlay(struct packet *p)
{
	struct ipv4 *ip = p->network;

	if (!(p->realm->flags & REALM_UNDERLAY))
		return CARRY_ON;
	if (p->type == ETHERTYPE_IPV6 || is_vlan(p->type))
		return DROP_CLEAR_TEXT;
	if (p->type != ETHERTYPE_IPV4)
		return STACK_NOT_IPV4;
	if ((void *)(ip + 1) > p->end || bpf_ntohs(ip->version_tos) >> 12 != 4 || !is_of_tunnels(p, ip))
		return DROP_CLEAR_TEXT;
	p->ip = ip;
	return is_denied(p) ? DROP_DENIED : STACK_UNDERLAY;
}

#endif
