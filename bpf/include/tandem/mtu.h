/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The gate that tells the sender of a packet which is too large for a tunnel (N7). */
#ifndef TANDEM_MTU_H
#define TANDEM_MTU_H

#include "hop.h"

#define ICMP_FRAGMENTATION_NEEDED bpf_htons(0x0304) /* type and code */
#define VERSION_TOS_CONTROL	  bpf_htons(0x45c0) /* internetwork control (RFC 1812 section 4.3.2.5) */
#define TTL_ICMP		  bpf_htons(64 << 8 | IPPROTO_ICMP)

/* ICMP destination unreachable, fragmentation needed (RFC 1191 section 4), in the place of the packet. */
struct too_large {
	struct ipv4 ip;
	__be16 type_code;
	__be16 checksum;
	__be16 unused;
	__be16 mtu;
	struct ipv4 quoted; /* the packet as it came: its header and 8 bytes (RFC 792) */
	struct udp quoted_udp;
};

static __always_inline __u32 sum_of(const void *data, int bytes)
{
	const __u16 *words = data;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < bytes / 2; i++)
		sum += words[i];
	return sum;
}

static __always_inline void write_too_large(struct too_large *answer, __u16 mtu)
{
	/* The packet is where the answer's own header will be, and ends where its quotation begins. */
	const __u32 *from = (void *)answer;
	__u32 *to = (void *)&answer->quoted;

#pragma unroll
	for (int i = 0; i < (int)(sizeof(struct ipv4) + sizeof(struct udp)) / 4; i++)
		to[i] = from[i];
	answer->ip.version_tos = VERSION_TOS_CONTROL;
	answer->ip.total_length = bpf_htons(sizeof(*answer));
	answer->ip.fragment = 0; /* a tunnel that it goes back by looks at the skb's length: see tell_mtu */
	answer->ip.ttl_protocol = TTL_ICMP;
	answer->ip.checksum = 0;
	answer->ip.source = answer->quoted.dest;
	answer->ip.dest = answer->quoted.source;
	answer->ip.checksum = checksum_close(sum_of(&answer->ip, sizeof(answer->ip)));
	answer->type_code = ICMP_FRAGMENTATION_NEEDED;
	answer->checksum = 0;
	answer->unused = 0;
	answer->mtu = bpf_htons(mtu);
	answer->checksum = checksum_close(sum_of(&answer->type_code, sizeof(*answer) - sizeof(answer->ip)));
}

/* To whom the frame came from. */
static __always_inline void turn_round(struct ethernet *eth)
{
	__u16 *dest = (void *)eth->dest, *source = (void *)eth->source;

#pragma unroll
	for (int i = 0; i < 3; i++) {
		__u16 was = dest[i];

		dest[i] = source[i];
		source[i] = was;
	}
}

/*
 * Answers a packet of a call that is too large, from the address that it was sent to, by the way that it
 * came, with its tags. Each one is answered: only the flow's own source gets here, and an answer is shorter.
 */
static __always_inline int tell_mtu(struct packet *p)
{
	struct too_large *answer = (void *)p->ip;
	struct ethernet *eth = p->data;
	__u32 len = (p->l2_len & MAX_L2) + sizeof(*answer);

	if (!p->too_large)
		return CARRY_ON;
	if ((void *)(answer + 1) > p->end)
		return DROP_FRAGMENTATION_NEEDED;
	write_too_large(answer, bare(p->way)->mtu);
	if (!(p->skb && p->in->flags & DEVICE_BARE)) {
		if ((void *)(eth + 1) > p->end) /* never */
			return DROP_FRAGMENTATION_NEEDED;
		turn_round(eth);
	}
	if (p->xdp) {
		if (!bpf_xdp_adjust_tail(p->xdp, (int)len - (int)bpf_xdp_get_buff_len(p->xdp)))
			p->action = XDP_TX;
		return DROP_FRAGMENTATION_NEEDED;
	}
	forget(p->skb);
	/*
	 * The kernel does not shorten what it takes for encapsulated, as it does ESP of a sender on the same
	 * machine. Then he gets his own bytes behind the answer, whose length tells where it ends.
	 */
	bpf_skb_change_tail(p->skb, len, 0);
	p->action = bpf_redirect(p->device, 0);
	return DROP_FRAGMENTATION_NEEDED;
}

#endif
