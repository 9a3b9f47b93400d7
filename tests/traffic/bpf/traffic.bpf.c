// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Traffic at the rate of the kernel: a generator of RTP, a receiver that counts it, and a forwarder
 * that does the least a forwarder can do. All three see untagged IPv4 without options.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETHERTYPE_IPV4 bpf_htons(0x0800)
#define IPV4_PLAIN     0x45 /* version 4, five words of header */
#define IPPROTO_UDP    17
#define LOOPBACK       1    /* interface index of lo, the first of every namespace */
#define MAGIC	       0x54 /* 'T': each of the first four bytes of a tagged payload */

/* Where everything is, in bytes from the start of a frame. Halves of words are even, so they add up. */
enum place {
	ETHER_TYPE = 12,
	IP = 14,
	IP_PROTOCOL = IP + 9,
	IP_CHECKSUM = IP + 10,
	IP_SOURCE = IP + 12,
	IP_DEST = IP + 16,
	UDP = IP + 20,
	UDP_DEST = UDP + 2,
	UDP_CHECKSUM = UDP + 6,
	RTP = UDP + 8,
	RTP_SEQUENCE = RTP + 2,
	RTP_TIMESTAMP = RTP + 4,
	RTP_SSRC = RTP + 8,
	/* The tag at the start of the payload: which packet this is, and when it was made. */
	TAG = RTP + 12,
	TAG_FLOW = TAG + 4,
	TAG_PASS = TAG + 8,
	TAG_TIME = TAG + 12,
	TAG_END = TAG + 20,
	/* What the generator writes: whole words. */
	HEAD = 80,
};

#define AT(type, place) (*(type *)(data + (place)))

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* The generator: its order, written by Go, and where it stands. One runs at a time. */
__u64 head[HEAD / 8]; /* of every frame; what differs between packets is zero */
__u32 checksum;	      /* of the UDP datagram, what differs being zero; not folded, not inverted */
__u16 first_source;   /* port of flow 0; flow n has 2n more */
__u16 first_dest;
__u32 flows;
__u32 stride;	/* from one flow to the next one sent; has no divisor in common with flows */
__u32 samples;	/* of audio in a packet, the step of the RTP timestamp */
__u64 interval; /* ns between two packets, 0 for none */
__u32 timed;	/* write the time of sending into the tag */

__u64 left;    /* packets still to be sent */
__u64 due;     /* when the next one is */
__u32 flow;    /* the next one's */
__u32 in_pass; /* packets of this pass, in which every flow has one */
__u32 pass;    /* counts from 0 */

/* MAX_WAIT rounds are a millisecond and more. */
#define MAX_WAIT (1 << 16)

static long not_due(__u32 i, void *ctx)
{
	return bpf_ktime_get_ns() >= due;
}

/* Run with live frames, in which older packets may still lie: all that matters is written anew. */
SEC("xdp")
int generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 sum = checksum, now = 0;
	__u32 ports, stamp, ssrc;
	__u16 sequence;

	/* Attached there for the sake of quick program runs only. */
	if (ctx->ingress_ifindex == LOOPBACK)
		return XDP_PASS;
	/* An interrupted program run is begun again, and would send more than it was told to. */
	if (!left || data + HEAD > end)
		return XDP_DROP;
	left--;
	if (interval)
		bpf_loop(MAX_WAIT, not_due, 0, 0);
	if (interval || timed)
		now = bpf_ktime_get_ns();
	due = now + interval;
	if (!timed)
		now = 0;

#pragma unroll
	for (int i = 0; i < HEAD / 8; i++)
		((__u64 *)data)[i] = head[i];
	ports = bpf_htonl(((__u32)(__u16)(first_source + 2 * flow) << 16) | (__u16)(first_dest + 2 * flow));
	sequence = bpf_htons(pass);
	stamp = bpf_htonl(pass * samples);
	ssrc = bpf_htonl(flow + 1);
	AT(__u32, UDP) = ports;
	AT(__u16, RTP_SEQUENCE) = sequence;
	AT(__u32, RTP_TIMESTAMP) = stamp;
	AT(__u32, RTP_SSRC) = ssrc;
	AT(__u32, TAG_FLOW) = flow;
	AT(__u32, TAG_PASS) = pass;
	AT(__u64, TAG_TIME) = now;
	sum += (__u64)ports + sequence + stamp + ssrc + flow + pass + (__u32)now + (now >> 32);
	sum = (__u16)~fold(sum);
	AT(__u16, UDP_CHECKSUM) = sum ? sum : 0xffff;

	flow += stride;
	if (flow >= flows)
		flow -= flows;
	if (++in_pass >= flows) {
		in_pass = 0;
		pass++;
	}
	return XDP_TX;
}

/* The receiver. */
const volatile __u16 dest_port; /* where flow 0 arrives; flow n 2n above */

struct count {
	__u64 packets;
	__u64 skipped; /* passes left out by a flow: lost, or late */
	__u64 late;    /* came after a later one of their flow */
	__u64 wrong;   /* at another port, or with another sequence number, than sent */
};

/* Key 0 -> what came, per CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");

/* Flow -> the pass that comes next. Sized by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} next_pass SEC(".maps");

/*
 * Bucket -> packets that took so long, per CPU: ns up to 64, then 64 buckets for each power of two,
 * which is 1.6 %. The last power is 2^32 ns.
 */
#define FINE	6
#define BUCKETS ((32 - FINE + 1) << FINE)

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} latency SEC(".maps");

static __always_inline __u32 log2_of(__u32 v)
{
	__u32 log = 0;

#pragma unroll
	for (int shift = 16; shift; shift >>= 1) {
		if (v >> shift) {
			v >>= shift;
			log += shift;
		}
	}
	return log;
}

static __always_inline __u32 bucket(__u64 took)
{
	__u32 v = took >> 32 ? 0xffffffff : took, log;

	if (v < 1 << FINE)
		return v;
	log = log2_of(v);
	return ((log - FINE) << FINE) + (v >> (log - FINE));
}

/* Takes all tagged packets off; the rest is the stack's. */
SEC("xdp")
int receive(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0, number, at, *next;
	__u64 time, *took;
	struct count *count;

	if (data + TAG_END > end || AT(__u16, ETHER_TYPE) != ETHERTYPE_IPV4 || AT(__u8, IP) != IPV4_PLAIN ||
	    AT(__u8, IP_PROTOCOL) != IPPROTO_UDP || AT(__u32, TAG) != MAGIC * 0x01010101u)
		return XDP_PASS;
	number = AT(__u32, TAG_FLOW);
	next = bpf_map_lookup_elem(&next_pass, &number);
	count = bpf_map_lookup_elem(&counts, &zero);
	if (!next || !count)
		return XDP_PASS;
	count->packets++;
	if (AT(__u16, UDP_DEST) != bpf_htons(dest_port + 2 * number) ||
	    AT(__u16, RTP_SEQUENCE) != bpf_htons(AT(__u32, TAG_PASS)))
		count->wrong++;
	at = AT(__u32, TAG_PASS);
	if (at < *next) {
		count->late++;
	} else {
		count->skipped += at - *next;
		*next = at + 1;
	}
	time = AT(__u64, TAG_TIME);
	if (time) {
		number = bucket(bpf_ktime_get_ns() - time);
		took = bpf_map_lookup_elem(&latency, &number);
		if (took)
			(*took)++;
	}
	return XDP_DROP;
}

/* The floor: one look-up, the packet rewritten, out. */
struct target {
	__u8 addr[4];
	__be16 port;
	__u16 pad;
};

struct hop {
	__u64 ether[2]; /* the link-layer header, of which 14 bytes are written */
	__u8 source[4];
	__u8 dest[4];
	__be16 source_port;
	__be16 dest_port;
};

/* Where a packet is sent to -> what becomes of it. Sized by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct target);
	__type(value, struct hop);
} hops SEC(".maps");

/* Slot 0 -> the device that packets leave by. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} out SEC(".maps");

SEC("xdp")
int forward(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct target to = {};
	struct hop *hop;
	__u32 source, dest, ports;
	__u64 sum;
	__u16 udp;

	if (data + RTP > end || AT(__u16, ETHER_TYPE) != ETHERTYPE_IPV4 || AT(__u8, IP) != IPV4_PLAIN ||
	    AT(__u8, IP_PROTOCOL) != IPPROTO_UDP)
		return XDP_PASS;
	*(__u32 *)to.addr = AT(__u32, IP_DEST);
	to.port = AT(__u16, UDP_DEST);
	hop = bpf_map_lookup_elem(&hops, &to);
	if (!hop)
		return XDP_PASS;
	source = *(__u32 *)hop->source;
	dest = *(__u32 *)hop->dest;
	ports = *(__u32 *)&hop->source_port;
	/* Old words leave as their complement, new ones come in (RFC 1624). */
	sum = (__u64)(__u32)~AT(__u32, IP_SOURCE) + (__u32)~AT(__u32, IP_DEST) + source + dest;
	AT(__u16, IP_CHECKSUM) = ~fold(sum + (__u16)~AT(__u16, IP_CHECKSUM));
	if (AT(__u16, UDP_CHECKSUM)) {
		sum += (__u64)(__u32)~AT(__u32, UDP) + ports + (__u16)~AT(__u16, UDP_CHECKSUM);
		udp = ~fold(sum);
		AT(__u16, UDP_CHECKSUM) = udp ? udp : 0xffff;
	}
	AT(__u32, IP_SOURCE) = source;
	AT(__u32, IP_DEST) = dest;
	AT(__u32, UDP) = ports;
	AT(__u64, 0) = hop->ether[0];
	AT(__u32, 8) = hop->ether[1];
	AT(__u16, 12) = hop->ether[1] >> 32;
	return bpf_redirect_map(&out, 0, XDP_DROP);
}

char _license[] SEC("license") = "GPL";
