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

/* Raised whenever a layout below changes its meaning; a change of sizes and names alone is told by BTF. */
#define ABI 1

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
	STACK_SEGMENTS,
	STACK_NO_REALM,
	STACK_NOT_LOCAL,
	STACK_NOT_MEDIA,
	/* To the stack: what tunnels are made of, on their outer side. */
	STACK_UNDERLAY,
	/* To the stack: a flow of ours that is not the programs' to send. */
	STACK_EGRESS,
	/* On to the TC program: a flow whose packets XDP cannot send. */
	STACK_TC,
	/* Dropped by the guard. */
	DROP_DENIED,
	DROP_SIP_BUDGET,
	DROP_UDP_BUDGET,
	/* Dropped, since it would leak from one realm into another, or past a tunnel (N5). */
	DROP_CLEAR_TEXT,
	DROP_WRONG_REALM,
	/* Dropped. */
	DROP_NO_FLOW,
	DROP_NOT_PLAIN,
	DROP_SOURCE_REFUSED,
	DROP_NOT_RTP,
	DROP_NOT_RTCP,
	DROP_PAYLOAD_TYPE,
	DROP_TOO_LONG,
	DROP_HOLD,
	DROP_NO_NEXT_HOP,
	DROP_TTL_EXPIRED,
	DROP_NO_HEADROOM,
	DROP_NO_DEVICE,
	/* Dropped, and the sender is told the MTU (RFC 1191). */
	DROP_FRAGMENTATION_NEEDED,
	/* Sent. */
	FORWARD_FORWARDED,
	EXITS,
};

/* rule.egress: how packets leave. All zero is to the stack: what is not set up is not sent. */
enum ONE_BYTE egress {
	EGRESS_STACK,
	EGRESS_NEXT_HOP, /* by the next hop, from XDP if that can, else from TC */
};

enum ONE_BYTE rule_flag {
	RULE_RTCP = 1,	/* the control stream: no sequence numbers to follow */
	RULE_HOLD = 2,	/* counted, then dropped: the other side gave no address */
	RULE_MUX = 4,	/* RTCP that comes in here is the next port's (RFC 5761) */
	RULE_LATCH = 8, /* remote may be learned: see struct policy. Taken back by the program */
	RULE_ANY = 16,	/* every payload type, as it is */
};

/* What is done to a payload. */
enum ONE_BYTE treatment {
	AS_IS,
	ALAW_TO_ULAW,
	ULAW_TO_ALAW,
	TELEPHONE_EVENT,
};

/* policy.payload: payload type out, with these. */
#define PAYLOAD_ALLOWED	  0x80
#define PAYLOAD_TREATMENT 8 /* shift */

/* What an event tells of. */
enum ONE_BYTE event_kind {
	EVENT_STARTED = 1,
	EVENT_REFUSED = 2,
	EVENT_LATCHED = 3,
	EVENT_DIGIT = 4,
	EVENT_SSRC = 5,
	EVENT_REPORT = 6,
};

/* Where in realms the VLANs of a device begin. */
#define VLANS 4096

enum ONE_BYTE device_flag {
	DEVICE_XDP = 1,	  /* XDP has seen its packets before TC does */
	DEVICE_BURST = 2, /* hands packets over in bursts, and their ends are told: see clock.h */
	DEVICE_BARE = 4,  /* no link layer: packets begin with IP */
};

/* A device that the programs run on. */
struct ingress {
	__u32 realms; /* index of its VLAN 0 in realms, plus 1; 0 is a device without realms */
	enum device_flag flags;
	__u8 pad[3];
};

enum ONE_BYTE realm_flag {
	REALM_UNDERLAY = 1, /* the outer side of its tunnels: media has no business here */
};

/* A realm, at one of its places: device and tags. */
struct realm {
	ADDR(addr);
	__u16 number; /* from 1; 0 is no realm */
	__u16 sip_port;
	__u16 first_port;
	__u16 last_port;
	__u32 flows; /* index of first_port in flows */
	enum realm_flag flags;
	__u8 pad[3];
};

/* A realm with two tags. Its value in double_tagged is an index in realms. */
struct double_tag {
	__u32 device;
	__u16 outer;
	__u16 inner;
};

/* How one direction of one stream is treated. Its source address is its next hop's. */
struct rule {
	ADDR(remote); /* the only source let in, with remote_port */
	ADDR(dest);
	__u32 tick;	    /* ns per RTP clock tick, times 1024; 0 is not known */
	__be16 remote_port; /* 0 lets nobody in */
	__be16 source_port;
	__be16 dest_port;
	__u16 next_hop;
	__u16 addresses; /* what the change of addresses adds to a checksum: with one source a constant */
	__u8 tos;	 /* DSCP in its upper six bits, the lower two zero */
	enum rule_flag flags;
	enum egress egress;
	/* The main payload type and what becomes of it; policy has the others. */
	__u8 payload_in; /* 128 and above: none */
	__u8 payload_out;
	enum treatment treatment;
};

/* counters.state */
enum ONE_BYTE counters_state {
	STATE_TOLD = 1,	   /* user space knows that media started */
	STATE_RUNNING = 2, /* highest and ssrc are set, and base in struct rare */
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
	__u64 seen;	 /* sequence numbers below highest that came: bit 0 is highest itself */
	__u32 timestamp; /* RTP timestamp that jitter is measured against */
	__u32 jitter;	 /* ns times 16 (RFC 3550 A.8) */
	__u32 highest;	 /* extended highest sequence number, offset by 65536 */
	__u32 ssrc;	 /* as on the wire */
	__u32 gap;	 /* longest time between two packets, in 1024 ns */
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
	__u64 out_of_policy;
	__u64 before;	/* packets counted that are not of this run of sequence numbers */
	__u64 lost;	/* of the runs before this one */
	__u64 reported; /* when RTCP was copied last */
	__u64 told;	/* when its changes of SSRC are on schedule again (GCRA) */
	__u64 pressed;	/* likewise its keys */
	__u64 control;	/* when RTCP came last among RTP: no part of the pauses of the stream */
	__u32 base;	/* lowest extended sequence number of this run, as highest */
	__u32 bad_seq;	/* sequence number that would prove a restart, plus 1; 0 is none */
	__u32 reordered;
	__u32 duplicated;
	__u32 ssrc_changes;
	__u32 digits;
	__u32 digit_ssrc; /* the last key: its stream, its timestamp, its event plus 1 */
	__u32 digit_timestamp;
	__u32 controls; /* RTCP packets among RTP */
	__u8 digit;
	__u8 pad[3];
};

/* policy.state: 32 bits, since it changes by compare-and-swap. */
enum latch_state {
	LATCH_CLOSED, /* nothing is learned */
	LATCH_OPEN,
	LATCH_LEARNING, /* one CPU is writing learned */
	LATCH_LOCKED,	/* learned and learned_port are the remote */
};

struct prefix {
	ADDR(addr);
	ADDR(mask);
};

#define MAX_PREFIXES 8

/* What of a flow is asked for seldom: Go's part of it, and what was learned. */
struct policy {
	__u64 until; /* ns: the end of the window to learn in */
	struct prefix allowed[MAX_PREFIXES];
	enum latch_state state;
	__u32 generation; /* Go's own: which description the latch is of */
	ADDR(learned);
	__be16 learned_port;
	__u8 prefixes;
	__u8 pad;
	__u16 payload[128]; /* by payload type: type out, PAYLOAD_ALLOWED, treatment; 0 is refused */
};

/* What a next hop is. */
enum ONE_BYTE way_kind {
	WAY_NONE,      /* unresolved, and the kernel has no route either */
	WAY_LINK,      /* by l2 */
	WAY_BARE,      /* by a device without link layer: TC only */
	WAY_NEIGHBOUR, /* the kernel resolves the address in l2, and sends: TC only */
};

/* What l2 is in a way without link-layer header; Go writes it in abi.go. */
struct bare_way {
	ADDR(neighbour); /* WAY_NEIGHBOUR */
	__u16 mtu;	 /* of a tunnel: longest IP packet, in bytes; 0 is not known */
	__u8 priority;	 /* of the packet in the kernel, which VLAN devices map to 802.1p */
};

/* One link-layer header and the device it leaves by. */
struct way {
	__u8 l2[22] __attribute__((aligned(4)));
	__u8 len; /* of l2: 14, 18 or 22 */
	enum way_kind kind;
	__u32 device; /* interface index */
};

/*
 * A next hop: one cache line. Go writes the idle way and then flips active, so that no packet
 * sees half a header.
 */
struct next_hop {
	__u32 active; /* 0 or 1 */
	struct way way[2];
	ADDR(source); /* of the realm that packets leave by */
};

/* Go's own: what a next hop leads to, so that a successor can watch it. */
struct hop_key {
	ADDR(addr);
	__u16 realm; /* 0: not in use */
	__u16 pad;
};

/* What an address is known as in a realm, or in any: realm 0. */
enum ONE_BYTE known_as {
	KNOWN_PEER = 1,	 /* a trunk's */
	KNOWN_LOCAL = 2, /* the realm's own; in realm 0 only */
};

/* A source address in a realm. */
struct source {
	ADDR(addr);
	__u16 realm;
	__u16 pad;
};

/* A source that is no known peer, while it sends. */
struct stranger {
	__u64 last; /* when it was refused last */
	__u64 sip;  /* when its SIP is on schedule again (GCRA) */
	__u64 udp;
};

/* A prefix of sources that get nothing through. */
struct denied {
	__u32 bits;
	ADDR(addr);
};

/* A conversion of G.711, two octets by two octets, as they lie in memory. */
struct law {
	__u16 pair[65536];
};

/* A reading of the clock, on one CPU. */
struct reading {
	__u64 now;
	__u64 left; /* packets that may still use it */
};

/* What left by a realm, on one CPU. */
struct tally {
	__u64 packets[EXITS];
	__u64 events_lost;
	/* When these of all strangers together are on schedule again (GCRA). */
	__u64 refusals;
	__u64 sip;
	__u64 udp;
};

struct event {
	__u64 at;
	ADDR(local);
	ADDR(source);
	__be16 local_port;
	__be16 source_port;
	__u16 realm;
	enum event_kind kind;
	__u8 digit;
	__u32 ssrc; /* as on the wire */
	__u32 len;  /* of a report's packet */
};

#define MAX_REPORT 512

/* A copy of an RTCP packet, behind what all events have. */
struct report {
	struct event event;
	__u8 packet[MAX_REPORT];
};

_Static_assert(sizeof(struct realm) == 20, "realm has no holes");
_Static_assert(sizeof(struct rule) == 28, "two rules fit a cache line");
_Static_assert(sizeof(struct counters) == 64, "counters is one cache line");
_Static_assert(sizeof(struct flow) == 128, "flow is two cache lines");
_Static_assert(__builtin_offsetof(struct flow, counters) == 64, "counters have a line of their own");
_Static_assert(sizeof(struct rare) == 112, "rare has no holes");
_Static_assert(sizeof(struct policy) == 344, "policy has no holes");
_Static_assert(sizeof(struct bare_way) <= sizeof(((struct way *)0)->l2), "a way without header lies in l2");
_Static_assert(sizeof(struct way) == 28, "way has no holes");
_Static_assert(sizeof(struct next_hop) == 64, "next_hop is one cache line");
_Static_assert(sizeof(struct event) == 32, "event has no holes");

#endif
