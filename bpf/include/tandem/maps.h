/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Every map, once. Sizes marked 1 are set by Go before loading, from the configuration. */
#ifndef TANDEM_MAPS_H
#define TANDEM_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

/* Interface index -> its realms. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ingress);
} ingress SEC(".maps");

/*
 * Device and VLAN -> the realm attached there: 4096 entries a device, then single ones, for devices
 * without link layer and for pairs of tags.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct realm);
} realms SEC(".maps");

/*
 * Realm and media port -> flow. A realm has one address and one range of ports, so its ports can
 * be counted through: one load in place of a hash look-up, which would cost a third of the whole
 * program and two more cache misses. Nothing is ever evicted.
 *
 * Mappable, here and below: Go writes and reads flows without a system call, and only such
 * arrays start on a page, hence their entries on a cache line.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

/* As flows: the rest of a flow's counters. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rare);
} rares SEC(".maps");

/* As flows: what is asked for seldom. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct policy);
} policies SEC(".maps");

/* Outer and inner tag of a device -> index in realms. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct double_tag);
	__type(value, __u32);
} double_tagged SEC(".maps");

/* Id -> next hop, kept fresh by Go. Id 0 stays empty, so a flow without one sends nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct next_hop);
} next_hops SEC(".maps");

/* As next_hops: where they lead. No program reads it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hop_key);
} hop_keys SEC(".maps");

/* Interface index -> the same device, for XDP to redirect to. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

/*
 * Addresses that belong to trunks, by realm: the guard lets them be there. In realm 0 are those of all
 * realms, and the realms' own: elsewhere they have no business.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct source);
	__type(value, enum known_as);
} peers SEC(".maps");

/* Sources that get nothing through, in any realm. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct denied);
	__type(value, __u8);
} deny SEC(".maps");

/*
 * Everybody else who sends to us. Here, unlike among calls, eviction is wanted: whoever forges
 * sources in masses displaces other strangers, and nothing more.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct source);
	__type(value, struct stranger);
} strangers SEC(".maps");

/* Realm -> packets that left, by reason, per CPU. Realm 0 is for those before a realm is known. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tally);
} exits SEC(".maps");

/* The two conversions of G.711, each for two octets at a time: to mu-law, to A-law. Written by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct law);
} laws SEC(".maps");

/* The time as a burst of packets reads it, per CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct reading);
} readings SEC(".maps");

#define EVENTS_SIZE (1024 * 1024)

/* What user space is told at once: struct event or struct report. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENTS_SIZE);
	__type(value, struct report);
} events SEC(".maps");

/* How often a stranger may send, in ns between two packets; 0 is as often as it likes. */
const volatile __u64 sip_interval;
const volatile __u64 udp_interval;

/* Says in BTF what enum exit is: Go has its names from there. */
const volatile enum exit exits_known = EXITS;

/* By value: whatever has its address taken is kept in memory, the whole packet at that. */
static __always_inline struct flow *flow_at(__u32 at)
{
	return bpf_map_lookup_elem(&flows, &at);
}

static __always_inline struct rare *rare_of(__u32 at)
{
	return bpf_map_lookup_elem(&rares, &at);
}

static __always_inline struct policy *policy_of(__u32 at)
{
	return bpf_map_lookup_elem(&policies, &at);
}

#endif
