/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Gates that say whose packet this is: realm, flow, source. */
#ifndef TANDEM_FLOW_H
#define TANDEM_FLOW_H

#include "maps.h"
#include "packet.h"

/* Only UDP to the realm's address and media ports goes on; SIP and all else is the stack's. */
static __always_inline int find_realm(struct packet *p)
{
	__u32 device = p->ctx->ingress_ifindex, at;
	__u32 port = bpf_ntohs(p->udp->dest);
	struct realm *realm;
	struct ingress *in;

	in = bpf_map_lookup_elem(&ingress, &device);
	if (!in || !in->realms || p->inner)
		return STACK_NO_REALM; /* no realm has two tags yet */
	at = in->realms - 1 + p->vlan;
	realm = bpf_map_lookup_elem(&realms, &at);
	if (!realm || !realm->number)
		return STACK_NO_REALM;
	if (p->ip->dest != *(__be32 *)realm->addr)
		return STACK_NOT_LOCAL;
	if (port < realm->first_port || port > realm->last_port)
		return STACK_NOT_MEDIA;
	p->realm = realm;
	p->at = realm->flows + (port - realm->first_port);
	return CARRY_ON;
}

/*
 * A media port without a flow is closed. The packet is dropped here, since the stack would
 * answer each late packet of an ended call, and each of a scan, with an ICMP message.
 */
static __always_inline int find_flow(struct packet *p)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, &p->at);
	__u32 rule;

	if (!flow)
		return DROP_NO_FLOW;
	rule = flow->active - 1;
	if (rule > 1)
		return DROP_NO_FLOW;
	p->rule = &flow->rule[rule];
	p->counters = &flow->counters;
	return CARRY_ON;
}

/*
 * Tells user space, once per flow and kind, and returns whether it knows. With the ring full
 * nothing is marked as told, so that the next packet tries again.
 */
static __always_inline int tell(struct packet *p, struct rare *rare, enum event_kind kind)
{
	__u32 bit = 1U << kind;
	struct event *event;

	if (rare->told & bit)
		return 1;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	if (__sync_fetch_and_or(&rare->told, bit) & bit) {
		bpf_ringbuf_discard(event, 0); /* another CPU was first */
		return 1;
	}
	*(__be32 *)event->local = p->ip->dest;
	event->local_port = p->udp->dest;
	event->realm = p->realm->number;
	*(__be32 *)event->source = p->ip->source;
	event->source_port = p->udp->source;
	event->kind = kind;
	event->pad = 0;
	bpf_ringbuf_submit(event, 0);
	return 1;
}

/* Strict: no learning, so that nobody can pull a stream to himself (RTP bleed, M7). */
static __always_inline int check_source(struct packet *p)
{
	struct rule *rule = p->rule;
	struct rare *rare;

	if (p->ip->source == *(__be32 *)rule->remote && p->udp->source == rule->remote_port &&
	    rule->remote_port)
		return CARRY_ON;
	rare = bpf_map_lookup_elem(&rares, &p->at);
	if (rare) {
		__sync_fetch_and_add(&rare->refused, 1);
		tell(p, rare, EVENT_REFUSED);
	}
	return DROP_SOURCE_REFUSED;
}

#endif
