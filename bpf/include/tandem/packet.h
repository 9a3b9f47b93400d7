/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Headers as on the wire, and the packet as the gates hand it on. */
#ifndef TANDEM_PACKET_H
#define TANDEM_PACKET_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

/* A gate returns an exit, or this: not decided yet. */
#define CARRY_ON -1

/* Runs a gate and leaves the list if it has decided. */
#define GATE(gate)                                                                                           \
	do {                                                                                                 \
		int decided = (gate);                                                                        \
		if (decided != CARRY_ON)                                                                     \
			return decided;                                                                      \
	} while (0)

#define ETHERTYPE_IPV4	   bpf_htons(0x0800)
#define ETHERTYPE_IPV6	   bpf_htons(0x86dd)
#define ETHERTYPE_VLAN	   bpf_htons(0x8100)
#define ETHERTYPE_QINQ	   bpf_htons(0x88a8)
#define MAX_L2		   31 /* of l2_len, as a mask for the verifier */
#define VLAN_ID_MASK	   0x0fff
#define MAX_VLAN_TAGS	   2
#define ETHERNET_LEN	   14
#define IPPROTO_ICMP	   1
#define IPPROTO_UDP	   17
#define IPPROTO_ESP	   50
#define IP_FRAGMENT_OFFSET bpf_htons(0x1fff)
#define IP_FRAGMENT	   bpf_htons(0x3fff) /* more fragments, or an offset */
#define IP_DONT_FRAGMENT   bpf_htons(0x4000)
#define TOS_DSCP	   0x00fc /* in the word version_tos */
#define TC_ACT_UNSPEC	   -1	  /* linux/pkt_cls.h */
#define TC_ACT_SHOT	   2
#define TTL_ONE		   0x0100 /* in the word ttl_protocol */

struct ethernet {
	__u8 dest[6];
	__u8 source[6];
	__be16 type;
};

struct vlan_tag {
	__be16 tci;
	__be16 type;
};

struct ipv4 {
	__be16 version_tos; /* version and header length in words, then type of service */
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	__be16 ttl_protocol;
	__be16 checksum;
	__be32 source;
	__be32 dest;
};

struct udp {
	__be16 source;
	__be16 dest;
	__be16 length;
	__be16 checksum;
};

#define RTCP_MIN_LEN 8 /* header and one SSRC */

/* The start of RTP (RFC 3550 section 5.1); RTCP shares the first two bytes. */
struct rtp {
	__u8 version_csrcs;
	__u8 marker_type;
	__be16 sequence;
	__be32 timestamp;
	__be32 ssrc;
};

/*
 * A packet on its way through the gates: what each found is there for those behind it. One of xdp and
 * skb is null, and known to be so when the program is compiled: both programs are made of these gates,
 * and each keeps its own half of what differs.
 */
struct packet {
	struct xdp_md *xdp;
	struct __sk_buff *skb;
	void *data;
	void *end;
	/* find_device */
	__u32 device;
	struct ingress *in;
	/* parse_link */
	__u32 vlan;  /* id; 0 is untagged */
	__u32 inner; /* of two tags */
	__u32 tags;
	__u32 l2_len;
	void *network; /* what is behind the link layer, and its type */
	__be16 type;
	/* parse */
	struct ipv4 *ip;
	struct udp *udp;
	int stack; /* the exit if it is not for us to send, or CARRY_ON */
	__u32 payload_len;
	/* find_realm, find_flow */
	struct realm *realm;
	__u32 at; /* index in flows, rares and policies */
	struct rule *rule;
	struct counters *counters;
	/* of the port that the packet came to; demultiplex may send it by another's rule */
	__u32 door_at;
	struct rule *door;
	/* look_at_rtp */
	int implausible; /* the exit for it, or CARRY_ON */
	int is_rtcp;
	struct rtp *rtp; /* null if it is RTCP */
	__u8 payload_out;
	__u8 treatment;
	/* find_next_hop; null while on hold */
	struct next_hop *hop;
	struct way *way;
	int too_large; /* for the way, and may not be fragmented */
	/* may_leave: see rule.addresses */
	__u16 addresses;
	/* ns, from the first gate on that needed it */
	__u64 now;
	/* treat: what it adds to the checksum */
	__u32 payload_sum;
	/* send, tell_mtu: what the program returns */
	int action;
};

#endif
