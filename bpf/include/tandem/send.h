/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The last gate: link layer and device, which is where XDP and TC differ. */
#ifndef TANDEM_SEND_H
#define TANDEM_SEND_H

#include "rewrite.h"

#define AF_INET 2

static __always_inline void copy_words(void *to, const void *from, int bytes)
{
#pragma unroll
	for (int i = 0; i < bytes / 4; i++)
		((__u32 *)to)[i] = ((const __u32 *)from)[i];
	if (bytes % 4)
		((__u16 *)to)[bytes / 2 - 1] = ((const __u16 *)from)[bytes / 2 - 1];
}

/* Puts the next hop's header in front, and hands the packet to its device. */
static __always_inline int send_xdp(struct packet *p)
{
	struct way *way = p->way;
	void *data = p->data, *end = p->end;
	__u32 len = way->len;

	if (len != p->l2_len) {
		if (bpf_xdp_adjust_head(p->xdp, (int)p->l2_len - (int)len))
			return DROP_NO_HEADROOM;
		data = (void *)(long)p->xdp->data;
		end = (void *)(long)p->xdp->data_end;
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

	if (way->device == p->device) {
		p->action = XDP_TX;
		return FORWARD_FORWARDED;
	}
	p->action = bpf_redirect_map(&devices, way->device, XDP_DROP);
	return p->action == XDP_REDIRECT ? FORWARD_FORWARDED : DROP_NO_DEVICE;
}

/* Leaves Ethernet without tags in front of IP, whatever was there. */
static __always_inline int plain_ethernet(struct packet *p)
{
	if (p->in->flags & DEVICE_BARE) {
		if (p->l2_len) /* of the tunnel's outer packet */
			return CARRY_ON;
		return bpf_skb_change_head(p->skb, ETHERNET_LEN, 0) ? DROP_NO_HEADROOM : CARRY_ON;
	}
#pragma unroll
	for (__u32 tag = 0; tag < MAX_VLAN_TAGS; tag++)
		if (tag < p->tags && bpf_skb_vlan_pop(p->skb))
			return DROP_NO_HEADROOM;
	return CARRY_ON;
}

/* A tag of the next hop's header, which the kernel or the device puts in its place. */
static __always_inline int push_tag(struct packet *p, __u32 at)
{
	__be16 *tag = (void *)&p->way->l2[at];

	return bpf_skb_vlan_push(p->skb, tag[0], bpf_ntohs(tag[1])) ? DROP_NO_HEADROOM : CARRY_ON;
}

static __always_inline int write_link(struct packet *p)
{
	struct way *way = p->way;
	void *data = (void *)(long)p->skb->data;

	if (data + ETHERNET_LEN > (void *)(long)p->skb->data_end)
		return DROP_NO_HEADROOM;
	copy_words(data, way->l2, 12);
	((struct ethernet *)data)->type = ETHERTYPE_IPV4;
	if (way->len == 22)
		GATE(push_tag(p, 16));
	if (way->len >= 18)
		GATE(push_tag(p, 12));
	return CARRY_ON;
}

/* The kernel sends no frame on that came to a group, and writes the addresses anew. */
static __always_inline int clear_addresses(struct packet *p)
{
	__u32 *addresses = (void *)(long)p->skb->data;

	if ((void *)(addresses + 3) > (void *)(long)p->skb->data_end)
		return DROP_NO_HEADROOM;
	addresses[0] = addresses[1] = addresses[2] = 0;
	return CARRY_ON;
}

static __always_inline int send_tc(struct packet *p)
{
	struct way *way = p->way;
	struct bpf_redir_neigh neighbour = {.nh_family = AF_INET};

	forget(p->skb);
	if (way->kind != WAY_LINK)
		p->skb->priority = bare(way)->priority;
	if (way->kind == WAY_BARE && p->in->flags & DEVICE_BARE) {
		p->action = bpf_redirect(way->device, 0);
		return FORWARD_FORWARDED;
	}
	GATE(plain_ethernet(p));
	if (way->kind == WAY_NEIGHBOUR) {
		GATE(clear_addresses(p));
		neighbour.ipv4_nh = *(__be32 *)bare(way)->neighbour;
		p->action = bpf_redirect_neigh(way->device, &neighbour, sizeof(neighbour), 0);
		return FORWARD_FORWARDED;
	}
	if (way->kind == WAY_LINK)
		GATE(write_link(p));
	p->action = bpf_redirect(way->device, 0);
	return FORWARD_FORWARDED;
}

static __always_inline int send(struct packet *p)
{
	return p->xdp ? send_xdp(p) : send_tc(p);
}

#endif
