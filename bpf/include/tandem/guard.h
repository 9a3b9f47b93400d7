/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The guard: what strangers may send, and how loud they get. It stands off the path of media. */
#ifndef TANDEM_GUARD_H
#define TANDEM_GUARD_H

#include "event.h"

#define SECOND 1000000000ULL
#define QUIET  (60 * SECOND) /* after so long a stranger is news again */

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
 * Tells of a source that sends where it may not: once, until it has been quiet. Whoever forges many gets
 * half of the ring at most.
 */
static __always_inline void refuse(struct packet *p)
{
	struct source key = source_of(p);
	struct stranger *stranger = find_stranger(&key);
	__u64 last;

	if (!p->now)
		p->now = bpf_ktime_get_ns();
	if (!stranger)
		return;
	last = stranger->last;
	stranger->last = p->now;
	/* Signed: another CPU may have been here a moment later. */
	if (last && (__s64)(p->now - last) <= (__s64)QUIET)
		return;
	if (ring_is_half_full())
		event_lost(p);
	else
		tell(p, EVENT_REFUSED, 0, 0);
}

/*
 * Tells of what the sender of a stream does, 50 times a second at most: no finger is faster, and no sender
 * means to change its SSRC so often.
 */
static __always_inline void tell_of_stream(struct packet *p, struct rare *rare, enum event_kind kind,
					   __u8 digit, __u32 ssrc)
{
	if (ring_is_half_full() || !within(&rare->told, SECOND / 50, p->now))
		event_lost(p);
	else
		tell(p, kind, digit, ssrc);
}

/*
 * A packet for the stack, from a stranger. Each has a budget for SIP and one for all other UDP, so that a
 * flood leaves the sockets responsive to those who matter.
 */
static __always_inline int judge(struct packet *p)
{
	struct source key = source_of(p);
	struct stranger *stranger;
	int sip = p->udp && p->udp->dest == bpf_htons(p->realm->sip_port);
	__u64 interval = sip ? sip_interval : udp_interval;

	if (bpf_map_lookup_elem(&peers, &key))
		return p->stack;
	if (is_denied(p))
		return DROP_DENIED;
	if (!interval || p->stack == STACK_NOT_UDP)
		return p->stack;
	stranger = find_stranger(&key);
	if (!stranger)
		return p->stack;
	if (!p->now)
		p->now = bpf_ktime_get_ns();
	if (within(sip ? &stranger->sip : &stranger->udp, interval, p->now))
		return p->stack;
	return sip ? DROP_SIP_BUDGET : DROP_UDP_BUDGET;
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
		return is_denied(p) ? DROP_DENIED : p->stack;
	}
	if (p->stack == CARRY_ON) {
		port = bpf_ntohs(p->udp->dest);
		if (port >= realm->first_port && port <= realm->last_port)
			return CARRY_ON;
		p->stack = STACK_NOT_MEDIA;
	}
	if (p->skb && p->in->flags & DEVICE_XDP)
		return p->stack; /* judged before */
	return judge(p);
}

#endif
