/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The gate that makes a payload what the other side agreed on: its type and its keys (M5), its law (M14). */
#ifndef TANDEM_TREAT_H
#define TANDEM_TREAT_H

#include "checksum.h"
#include "statistics.h"

#define RTP_PADDING	0x20
#define RTP_EXTENSION	0x10
#define EXTENSION_WORDS 64   /* 256 bytes: more than anybody sends with G.711 */
#define MAX_OCTETS	1504 /* 188 ms */
#define DIGITS		16
#define EVENT_LEN	4
#define MAX_DURATION	0xffffU /* of one telephone-event, then it goes on as another (RFC 4733 2.5.1.3) */
#define LATE_EVENT	240000	/* ticks: 5 s at 48 kHz, 30 s at 8 kHz */
#define MAX_LAST	2047	/* of the places of a packet, as a mask */

/* Where the octets of sound, or of a telephone-event, are in a packet, or DROP_TOO_LONG, or DROP_NOT_RTP if
 * nowhere. */
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
 * Converts two octets by one look-up, eight between two checks of the bounds. Returns what that adds to
 * a checksum.
 */
static __always_inline __u32 convert(__u8 *octets, __u8 *stop, void *end, const struct law *law)
{
	__u64 before = 0, after = 0;

	for (int i = 0; i < MAX_OCTETS / 8; i++) {
		__u64 *word = (void *)octets, old, new;

		if ((void *)(word + 1) > (void *)stop || (void *)(word + 1) > end)
			break;
		old = *word;
		new = law->pair[old & 0xffff];
		new |= (__u64)law->pair[old >> 16 & 0xffff] << 16;
		new |= (__u64)law->pair[old >> 32 & 0xffff] << 32;
		new |= (__u64)law->pair[old >> 48] << 48;
		*word = new;
		before += (old >> 32) + (__u32)old;
		after += (new >> 32) + (__u32) new;
		octets += 8;
	}
	for (int i = 0; i < 7; i++) {
		__u8 converted;

		if (octets + 1 > stop || (void *)(octets + 1) > end)
			break;
		converted = law->pair[*octets];
		before += (__u32)*octets << 8 * (i & 1);
		after += (__u32)converted << 8 * (i & 1);
		*octets++ = converted;
	}
	return (__u16)~checksum_fold(before) + checksum_fold(after);
}

static __always_inline __u32 convert_at(void *data, void *end, __u32 at, __u32 len, __u32 treatment)
{
	__u32 to_alaw = treatment == ULAW_TO_ALAW;
	struct law *law = bpf_map_lookup_elem(&laws, &to_alaw);

	if (!law || at > MAX_LAST || len > MAX_OCTETS)
		return 0;
	return convert(data + at, data + at + len, end, law);
}

/* Functions of their own, since the verifier follows a loop once for each way that leads to it. */
__noinline __u32 convert_xdp(struct xdp_md *ctx, __u32 at, __u32 len, __u32 treatment)
{
	return convert_at((void *)(long)ctx->data, (void *)(long)ctx->data_end, at, len, treatment);
}

__noinline __u32 convert_tc(struct __sk_buff *ctx, __u32 at, __u32 len, __u32 treatment)
{
	return convert_at((void *)(long)ctx->data, (void *)(long)ctx->data_end, at, len, treatment);
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

/*
 * Reports a key once, from the first of its packets that comes: they all have the timestamp of its
 * beginning (RFC 4733 section 2.5.1.2), and a long one goes on where its first 65,535 ticks end. What comes
 * late, of a key before, was reported then.
 */
static __always_inline void follow_digit(struct packet *p)
{
	struct rare *rare = rare_of(p->at);
	__u32 timestamp = bpf_ntohl(p->rtp->timestamp), since, header, len;
	__u8 *event;
	int same;

	if (!rare || find_octets(p, &header, &len) != CARRY_ON || len < EVENT_LEN)
		return;
	event = (void *)p->rtp + header;
	if ((void *)(event + EVENT_LEN) > p->end || *event >= DIGITS)
		return;
	since = timestamp - rare->digit_timestamp;
	same = rare->digit && rare->digit_ssrc == p->rtp->ssrc;
	if (same && -since < LATE_EVENT)
		return;
	rare->digit_timestamp = timestamp;
	if (same && since == MAX_DURATION && rare->digit == *event + 1)
		return;
	rare->digit = *event + 1;
	rare->digit_ssrc = p->rtp->ssrc;
	rare->digits++;
	tell_of_stream(p, &rare->pressed, EVENT_DIGIT, *event, 0);
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
	if (p->treatment == TELEPHONE_EVENT)
		follow_digit(p);
	else if (p->treatment != AS_IS)
		return convert_law(p);
	return CARRY_ON;
}

#endif
