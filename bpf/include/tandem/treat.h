/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The gate that makes a payload what the other side agreed on: its type (M5), its law (M14). */
#ifndef TANDEM_TREAT_H
#define TANDEM_TREAT_H

#include "checksum.h"
#include "g711.h"
#include "statistics.h"

#define RTP_PADDING	0x20
#define RTP_EXTENSION	0x10
#define EXTENSION_WORDS 64   /* 256 bytes: more than anybody sends with G.711 */
#define MAX_OCTETS	1504 /* 188 ms */
#define MAX_LAST	2047 /* of the places of a packet, as a mask */

/* Where the octets of sound are in a packet, or DROP_TOO_LONG, or DROP_NOT_RTP if nowhere. */
static __always_inline int find_octets(struct packet *p, __u32 *header, __u32 *len)
{
	__u8 flags = p->rtp->version_csrcs;
	__u32 padding = 0;

	*header = RTP_HEADER + 4 * (flags & 0x0f);
	if (flags & RTP_EXTENSION) {
		__be16 *extension = (void *)p->rtp + *header;
		__u32 words;

		if ((void *)(extension + 2) > p->end)
			return DROP_NOT_RTP;
		words = bpf_ntohs(extension[1]);
		if (words > EXTENSION_WORDS)
			return DROP_TOO_LONG;
		*header += 4 + 4 * words;
	}
	if (flags & RTP_PADDING) {
		__u32 last = p->payload_len - 1;
		__u8 *count = (void *)p->rtp + (last & MAX_LAST);

		if (last > MAX_LAST || (void *)(count + 1) > p->end)
			return DROP_TOO_LONG;
		padding = *count;
	}
	if (p->payload_len < *header + padding)
		return DROP_NOT_RTP;
	*len = p->payload_len - *header - padding;
	return *len > MAX_OCTETS ? DROP_TOO_LONG : CARRY_ON;
}

/*
 * Converts octet by octet, eight at a time: the look-ups of eight are independent of each other, and
 * eight share one check of the bounds. Returns what that adds to a checksum.
 */
static __always_inline __u32 convert(__u8 *octets, __u8 *stop, void *end, const __u8 *table)
{
	__u64 before = 0, after = 0;

	for (int i = 0; i < MAX_OCTETS / 8; i++) {
		__u64 *word = (void *)octets, old, new = 0;

		if ((void *)(word + 1) > (void *)stop || (void *)(word + 1) > end)
			break;
		old = *word;
#pragma unroll
		for (int shift = 0; shift < 64; shift += 8)
			new |= (__u64)table[old >> shift & 0xff] << shift;
		*word = new;
		before += (old >> 32) + (__u32)old;
		after += (new >> 32) + (__u32) new;
		octets += 8;
	}
	for (int i = 0; i < 7; i++) {
		if (octets + 1 > stop || (void *)(octets + 1) > end)
			break;
		before += (__u32)*octets << 8 * (i & 1);
		*octets = table[*octets];
		after += (__u32)*octets << 8 * (i & 1);
		octets++;
	}
	return (__u16)~checksum_fold(before) + checksum_fold(after);
}

static __always_inline __u32 convert_at(void *data, void *end, __u32 at, __u32 len, __u32 law)
{
	if (at > MAX_LAST || len > MAX_OCTETS)
		return 0;
	if (law == ALAW_TO_ULAW)
		return convert(data + at, data + at + len, end, alaw_to_ulaw);
	return convert(data + at, data + at + len, end, ulaw_to_alaw);
}

/* Functions of their own, since the verifier follows a loop once for each way that leads to it. */
__noinline __u32 convert_xdp(struct xdp_md *ctx, __u32 at, __u32 len, __u32 law)
{
	return convert_at((void *)(long)ctx->data, (void *)(long)ctx->data_end, at, len, law);
}

__noinline __u32 convert_tc(struct __sk_buff *ctx, __u32 at, __u32 len, __u32 law)
{
	return convert_at((void *)(long)ctx->data, (void *)(long)ctx->data_end, at, len, law);
}

static __always_inline int convert_law(struct packet *p)
{
	__u32 header, len, at;

	GATE(find_octets(p, &header, &len));
	at = (p->l2_len & MAX_L2) + sizeof(struct ipv4) + sizeof(struct udp) + header;
	if (p->xdp)
		p->payload_sum += convert_xdp(p->xdp, at, len, p->treatment);
	else
		p->payload_sum += convert_tc(p->skb, at, len, p->treatment);
	return CARRY_ON;
}

static __always_inline int treat(struct packet *p)
{
	__be16 *word = (void *)p->rtp, old;
	__u8 type;

	if (!p->rtp)
		return CARRY_ON;
	type = p->rtp->marker_type;
	if ((type & PAYLOAD_TYPE) != p->payload_out) {
		old = *word;
		p->rtp->marker_type = (type & MARKER) | p->payload_out;
		p->payload_sum = checksum_swap(0, old, *word);
	}
	if (p->treatment == ALAW_TO_ULAW || p->treatment == ULAW_TO_ALAW)
		return convert_law(p);
	return CARRY_ON;
}

#endif
