/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What time it is, read once per burst. */
#ifndef TANDEM_CLOCK_H
#define TANDEM_CLOCK_H

#include "maps.h"
#include "packet.h"

#define BURST 16

/*
 * Reading the clock costs more than anything else that is done to a packet: 20 to 40 ns in a virtual
 * machine. A device hands over its packets in bursts (NAPI), and within one the time of a packet a few
 * microseconds ago is as good: jitter is measured in RTP ticks, of 125 us with G.711. So up to 16 packets
 * of a burst share a reading, and the kernel's own tracepoint tells where a burst ends. Packets that come
 * by other ways (XDP in generic mode, TC) have a reading each.
 */
static __always_inline __u64 clock(struct packet *p)
{
	struct reading *r;
	__u32 zero = 0;

	if (p->skb || !(p->in->flags & DEVICE_BURST))
		return bpf_ktime_get_ns();
	r = bpf_map_lookup_elem(&readings, &zero);
	if (!r)
		return bpf_ktime_get_ns();
	if (r->left) {
		r->left--;
		return r->now;
	}
	r->left = BURST - 1;
	r->now = bpf_ktime_get_ns();
	return r->now;
}

/* Ends a burst on this CPU: the next packet reads the clock. */
static __always_inline void end_burst(void)
{
	__u32 zero = 0;
	struct reading *r = bpf_map_lookup_elem(&readings, &zero);

	if (r)
		r->left = 0;
}

#endif
