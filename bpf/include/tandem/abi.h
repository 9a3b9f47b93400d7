/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the kernel side and the Go side agree on. bpf2go turns these types into Go
 * types, so this is the only place where a layout or a reason is written down.
 *
 * Addresses are byte arrays and ports __be16, both as on the wire: no byte order can be
 * wrong. Everything else is in host order. An all-zero value of any type forwards nothing.
 */
#ifndef TANDEM_ABI_H
#define TANDEM_ABI_H

#include <linux/types.h>

#define ONE_BYTE   __attribute__((packed))
#define ADDR(name) __u8 name[4] __attribute__((aligned(4)))

/*
 * Why a packet left the program. The word before the first underscore is the verdict, the
 * rest is the reason as metrics show it ("source-refused"): Go derives both from the names.
 * Order matters: first what goes to the stack, then what is dropped, then what is sent.
 */
enum exit {
	/* To the stack: not ours to judge. */
	STACK_NOT_IPV4,
	STACK_IP_OPTIONS,
	STACK_FRAGMENT,
	STACK_NOT_UDP,
	STACK_MALFORMED,
	STACK_NO_REALM,
	STACK_NOT_LOCAL,
	STACK_NOT_MEDIA,
	/* To the stack: a flow of ours that is not the program's to send. */
	STACK_EGRESS,
	/* Dropped. */
	DROP_NO_FLOW,
	DROP_SOURCE_REFUSED,
	DROP_NOT_RTP,
	DROP_NOT_RTCP,
	DROP_HOLD,
	DROP_NO_NEXT_HOP,
	DROP_TTL_EXPIRED,
	DROP_NO_HEADROOM,
	DROP_NO_DEVICE,
	/* Sent. */
	FORWARD_FORWARDED,
	EXITS,
};

/* rule.flags. All zero is to the stack: what is not set up is not sent. */
enum ONE_BYTE rule_flag {
	RULE_SEND = 1, /* to the next hop, from XDP */
	RULE_RTCP = 2, /* the control stream: no sequence numbers to follow */
	RULE_HOLD = 4, /* counted, then dropped: the other side gave no address */
};

/* What an event tells of, and the bit in rare.told that keeps it to once per flow. */
enum ONE_BYTE event_kind {
	EVENT_STARTED = 1,
	EVENT_REFUSED = 2,
};

/* Where in realms the VLANs of a device begin. */
#define VLANS 4096

/* A device that XDP runs on. */
struct ingress {
	__u32 realms; /* index of its VLAN 0 in realms, plus 1; 0 is a device without realms */
};

struct realm {
	ADDR(addr);
	__u16 number; /* from 1; 0 is no realm */
	__u16 device; /* slot in devices, to tell XDP_TX from a redirect */
	__u16 first_port;
	__u16 last_port;
	__u32 flows; /* index of first_port in flows */
};

/* How one direction of one stream is treated. */
struct rule {
	ADDR(remote); /* the only source let in, with remote_port */
	ADDR(source);
	ADDR(dest);
	__be16 remote_port; /* 0 lets nobody in */
	__be16 source_port;
	__be16 dest_port;
	__u16 next_hop;
	__u32 tick;	 /* ns per RTP clock tick, times 1024; 0 is not known */
	__u16 addresses; /* what the change of addresses adds to a checksum: with one source a constant */
	__u8 tos;	 /* DSCP in its upper six bits, the lower two zero */
	enum rule_flag flags;
};

/* counters.state */
enum ONE_BYTE counters_state {
	STATE_TOLD = 1,	   /* user space knows that media started */
	STATE_RUNNING = 2, /* highest, base and ssrc are set */
};

/*
 * What changes with each packet. packets is written before highest and read after it, so that a
 * reader in between sees no loss that is none.
 */
struct counters {
	__u64 packets;
	__u64 bytes;	 /* UDP payload */
	__u64 last;	 /* ns, CLOCK_MONOTONIC, as every time here */
	__u64 reference; /* arrival of the packet that carried timestamp */
	__u32 timestamp; /* RTP timestamp that jitter is measured against */
	__u32 jitter;	 /* ns times 16 (RFC 3550 A.8) */
	__u32 highest;	 /* extended highest sequence number, offset by 65536 */
	__u32 base;	 /* likewise the lowest of this run */
	__u32 reordered;
	__u32 ssrc;
	__u32 bad_seq; /* sequence number that would prove a restart, plus 1; 0 is none */
	enum counters_state state;
	__u8 pad[3];
};

/*
 * One media port, in two neighbouring cache lines: how its packets are treated, and their
 * counters. Go writes the idle rule, then makes it the active one: no packet sees half a rule.
 */
struct flow {
	struct rule rule[2];
	__u32 active; /* 0: no flow; else which rule, from 1 */
	__u32 former; /* Go's own: the last rule that was active, so that the next flow takes the other */
	struct counters counters;
};

/* What of a flow changes seldom. */
struct rare {
	__u64 first;
	__u64 refused;
	__u64 before; /* packets counted before this run of sequence numbers */
	__u64 lost;   /* of the runs before this one */
	__u32 told;   /* events sent, by 1 << kind */
	__u32 pad;
};

/* One link-layer header and the device it leaves by. */
struct way {
	__u8 l2[22] __attribute__((aligned(4)));
	__u8 len; /* 14, 18 or 22; 0 is unresolved */
	__u8 pad;
	__u16 device; /* slot in devices */
	__u16 pad2;
};

/*
 * A next hop: one cache line. Go writes the idle way and then flips active, so that no packet
 * sees half a header.
 */
struct next_hop {
	__u32 active; /* 0 or 1 */
	struct way way[2];
	__u32 pad;
};

struct event {
	ADDR(local);
	__be16 local_port;
	__u16 realm;
	ADDR(source);
	__be16 source_port;
	enum event_kind kind;
	__u8 pad;
};

_Static_assert(sizeof(struct realm) == 16, "realm has no holes");
_Static_assert(sizeof(struct rule) == 28, "two rules fit a cache line");
_Static_assert(sizeof(struct counters) == 64, "counters is one cache line");
_Static_assert(sizeof(struct flow) == 128, "flow is two cache lines");
_Static_assert(__builtin_offsetof(struct flow, counters) == 64, "counters have a line of their own");
_Static_assert(sizeof(struct rare) == 40, "rare has no holes");
_Static_assert(sizeof(struct way) == 28, "way has no holes");
_Static_assert(sizeof(struct next_hop) == 64, "next_hop is one cache line");
_Static_assert(sizeof(struct event) == 16, "event has no holes");

#endif
