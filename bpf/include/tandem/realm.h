/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Gates that say in which realm a packet has come. */
#ifndef TANDEM_REALM_H
#define TANDEM_REALM_H

#include "maps.h"
#include "parse.h"

/* Which device, and how its packets begin. */
static __always_inline int find_device(struct packet *p)
{
	__u32 device = p->xdp ? p->xdp->ingress_ifindex : p->skb->ifindex;

	p->device = device;
	p->in = bpf_map_lookup_elem(&ingress, &device);
	if (!p->in || !p->in->realms)
		return STACK_NO_REALM;
	return CARRY_ON;
}

/* Devices are told apart by interface and tags, so that equal addresses in two VLANs do not meet. */
static __always_inline int find_realm(struct packet *p)
{
	__u32 at =
		p->in->realms - 1 + (p->vlan | p->inner); /* one of them is 0, or both are asked for below */
	struct realm *realm;

	/* A tag of VLAN 0 has a priority and no VLAN: the stack peels it, and so nobody hides behind one. */
	if (p->vlan && p->inner) {
		struct double_tag key = {.device = p->device, .outer = p->vlan, .inner = p->inner};
		__u32 *found = bpf_map_lookup_elem(&double_tagged, &key);

		if (!found)
			return STACK_NO_REALM;
		at = *found;
	}
	realm = bpf_map_lookup_elem(&realms, &at);
	if (!realm || !realm->number)
		return STACK_NO_REALM;
	p->realm = realm;
	return CARRY_ON;
}

#endif
