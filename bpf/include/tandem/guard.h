/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The guard: what strangers may send, and how loud they get. It stands off the path of media. */
#ifndef TANDEM_GUARD_H
#define TANDEM_GUARD_H

#include "event.h"
#include "parse.h"

#define SECOND	  1000000000ULL
#define QUIET	  (60 * SECOND) /* after so long a stranger is news again */
#define STRANGERS 100		/* budgets that all strangers of a realm share, on each CPU */

static __always_inline int is_denied(struct packet *p)
{
	struct denied key = {.bits = 32};

	*(__be32 *)key.addr = p->ip->source;
	return bpf_map_lookup_elem(&deny, &key) != 0;
}

static __always_inline struct source source_of(struct packet *p)
{
	struct source key = {.realm = p->realm->number};

	*(__be32 *)key.addr = p->ip->source;
	return key;
}

/* Whether an address is known as something in a realm; realm 0 is any. */
static __always_inline int is_known(__be32 addr, __u16 realm, enum known_as as)
{
	struct source key = {.realm = realm};
	enum known_as *known;

	*(__be32 *)key.addr = addr;
	known = bpf_map_lookup_elem(&peers, &key);
	return known && *known & as;
}

/*
 * Whether a packet comes from a peer of another realm, and of this one not: carriers may have the same
 * addresses.
 */
static __always_inline int is_astray(struct packet *p)
{
	return is_known(p->ip->source, 0, KNOWN_PEER) &&
	       !is_known(p->ip->source, p->realm->number, KNOWN_PEER);
}

/* The entry of a source, made if need be; null if there is no memory for one. */
static __always_inline struct stranger *find_stranger(struct source *key)
{
	struct stranger *stranger = bpf_map_lookup_elem(&strangers, key), none = {};

	if (stranger)
		return stranger;
	bpf_map_update_elem(&strangers, key, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&strangers, key);
}

/*
 * Whether a packet is within the schedule that due keeps: one per interval, and up to a second's worth at
 * once (the generic cell rate algorithm, ITU-T I.371). Two CPUs at the same time may let one more through.
 */
static __always_inline int within(__u64 *due, __u64 interval, __u64 now)
{
	__u64 at = *due;

	if (!interval)
		return 1;
	if (at > now + SECOND)
		return 0;
	*due = (at > now ? at : now) + interval;
	return 1;
}

/*
 * Tells of a source that sends where it may not: once, until it has been quiet. Sources can be forged, so
 * all together are told of, and remembered, a hundred times a second at most.
 */
static __always_inline void tell_of_refused(struct packet *p)
{
	struct source key = source_of(p);
	struct stranger *stranger = bpf_map_lookup_elem(&strangers, &key);
	struct tally *t = tally(p);

	if (!p->now)
		p->now = bpf_ktime_get_ns();
	/* Signed: another CPU may have been here a moment later. */
	if (stranger && stranger->last && (__s64)(p->now - stranger->last) <= (__s64)QUIET) {
		stranger->last = p->now;
		return;
	}
	if (!t || !within(&t->refusals, SECOND / 100, p->now)) {
		event_lost(p);
		return;
	}
	stranger = find_stranger(&key);
	if (stranger)
		stranger->last = p->now;
	tell(p, EVENT_REFUSED, 0, 0);
}

/* Refuses a packet for a media port, for that reason unless there is a better one. */
static __always_inline int refuse(struct packet *p, enum exit reason)
{
	tell_of_refused(p);
	return is_astray(p) ? DROP_WRONG_REALM : reason;
}

/*
 * Tells of what the sender of a stream does, 50 times a second at most: no finger is faster, and no sender
 * means to change its SSRC so often.
 */
static __always_inline void tell_of_stream(struct packet *p, __u64 *due, enum event_kind kind, __u8 digit,
					   __u32 ssrc)
{
	if (ring_is_half_full() || !within(due, SECOND / 50, p->now))
		event_lost(p);
	else
		tell(p, kind, digit, ssrc);
}

/*
 * A packet for the stack, from a stranger. Each has a budget for SIP and one for all other UDP, and all of
 * a realm together have a hundred times as much on each CPU, since sources can be forged: so a flood leaves
 * the sockets responsive to those who matter.
 */
static __always_inline int judge(struct packet *p)
{
	struct source key = source_of(p);
	struct stranger *stranger;
	struct tally *t = tally(p);
	int sip = p->udp && p->udp->dest == bpf_htons(p->realm->sip_port);
	__u64 interval = sip ? sip_interval : udp_interval;

	if (is_known(p->ip->source, p->realm->number, KNOWN_PEER))
		return p->stack;
	if (is_denied(p))
		return DROP_DENIED;
	if (is_known(p->ip->source, 0, KNOWN_PEER))
		return DROP_WRONG_REALM;
	if (!interval || p->stack == STACK_NOT_UDP)
		return p->stack;
	stranger = find_stranger(&key);
	if (!stranger || !t)
		return p->stack;
	if (!p->now)
		p->now = bpf_ktime_get_ns();
	if (within(sip ? &stranger->sip : &stranger->udp, interval, p->now) &&
	    within(sip ? &t->sip : &t->udp, interval / STRANGERS, p->now))
		return p->stack;
	return sip ? DROP_SIP_BUDGET : DROP_UDP_BUDGET;
}

/*
 * Whether a packet with IP options, the first of several fragments, or several packets in one are for a
 * media port. The stack would put it together, or take it apart, find no socket, and tell the peer so by
 * ICMP: an end to calls that anybody could bring about.
 */
static __always_inline int is_for_media(struct packet *p)
{
	struct udp *udp = udp_behind(p, p->ip);
	__u32 port;

	if (!udp)
		return 0;
	port = bpf_ntohs(udp->dest);
	return port >= p->realm->first_port && port <= p->realm->last_port;
}

/* XDP has seen it before. */
static __always_inline int is_judged(struct packet *p)
{
	return p->skb && p->in->flags & DEVICE_XDP;
}

/*
 * Only UDP to the realm's address and media ports goes on. What else is for that address is the stack's,
 * within what its source may send. Media needs no budget: it passes by its flow's source or not at all, and
 * a denied one is never made such a source.
 */
static __always_inline int guard(struct packet *p)
{
	struct realm *realm = p->realm;
	__u32 port;

	if (p->ip->dest != *(__be32 *)realm->addr) {
		if (p->stack == CARRY_ON)
			p->stack = STACK_NOT_LOCAL;
		if (is_judged(p))
			return p->stack;
		if (is_denied(p))
			return DROP_DENIED;
		/* The stack would take a packet for an address of its own from any device (weak host model).
		 */
		return is_known(p->ip->dest, 0, KNOWN_LOCAL) || is_astray(p) ? DROP_WRONG_REALM : p->stack;
	}
	if (p->stack == CARRY_ON) {
		port = bpf_ntohs(p->udp->dest);
		if (port >= realm->first_port && port <= realm->last_port)
			return CARRY_ON;
		p->stack = STACK_NOT_MEDIA;
	}
	if ((p->stack == STACK_IP_OPTIONS || p->stack == STACK_FRAGMENT || p->stack == STACK_SEGMENTS) &&
	    is_for_media(p))
		return DROP_NOT_PLAIN;
	return is_judged(p) ? p->stack : judge(p);
}

#endif
