/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What user space is told. */
#ifndef TANDEM_EVENT_H
#define TANDEM_EVENT_H

#include "maps.h"
#include "packet.h"

static __always_inline struct tally *tally(struct packet *p)
{
	__u32 realm = p->realm ? p->realm->number : 0;

	return bpf_map_lookup_elem(&exits, &realm);
}

static __always_inline void event_lost(struct packet *p)
{
	struct tally *t = tally(p);

	if (t)
		t->events_lost++;
}

/* What anybody can cause leaves the other half to what calls wait for. */
static __always_inline int ring_is_half_full(void)
{
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > EVENTS_SIZE / 2;
}

static __always_inline void fill_event(struct packet *p, struct event *event, enum event_kind kind)
{
	event->at = p->now;
	*(__be32 *)event->local = p->ip->dest;
	*(__be32 *)event->source = p->ip->source;
	/* Not where it came in, if it was multiplexed. */
	event->local_port = bpf_htons(p->realm->first_port + (p->at - p->realm->flows));
	event->source_port = p->udp->source;
	event->realm = p->realm->number;
	event->kind = kind;
	event->digit = 0;
	event->ssrc = 0;
	event->len = 0;
}

/* Tells of the packet, and returns whether there was room; if not, the loss is counted. */
static __always_inline int tell(struct packet *p, enum event_kind kind, __u8 digit, __u32 ssrc)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		event_lost(p);
		return 0;
	}
	fill_event(p, event, kind);
	event->digit = digit;
	event->ssrc = ssrc;
	bpf_ringbuf_submit(event, 0);
	return 1;
}

/* Copies an RTCP packet, from behind its UDP header. */
static __always_inline void tell_report(struct packet *p)
{
	struct report *report = bpf_ringbuf_reserve(&events, sizeof(*report), 0);
	__u32 offset = (void *)(p->udp + 1) - p->data, len = p->payload_len;
	long failed;

	if (!report) {
		event_lost(p);
		return;
	}
	fill_event(p, &report->event, EVENT_REPORT);
	if (len > MAX_REPORT)
		len = MAX_REPORT;
	/* All of this is known by now, but not to the verifier. */
	asm volatile("" : "+r"(len));
	if (len < RTCP_MIN_LEN || len > MAX_REPORT) {
		bpf_ringbuf_discard(report, 0);
		return;
	}
	report->event.len = len;
	if (p->xdp)
		failed = bpf_xdp_load_bytes(p->xdp, offset, report->packet, len);
	else
		failed = bpf_skb_load_bytes(p->skb, offset, report->packet, len);
	if (failed) {
		bpf_ringbuf_discard(report, 0);
		event_lost(p);
		return;
	}
	bpf_ringbuf_submit(report, 0);
}

#endif
