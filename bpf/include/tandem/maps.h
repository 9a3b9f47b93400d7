/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Every map, once. Sizes marked 1 are set by Go before loading, from the configuration. */
#ifndef TANDEM_MAPS_H
#define TANDEM_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

/* Interface index -> its realms. As large as the highest index in use. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ingress);
} ingress SEC(".maps");

/* Device and VLAN -> the realm attached there: 4096 entries a device. Written at start. */
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

/* Id -> next hop, kept fresh by Go. Id 0 stays empty, so a flow without one sends nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct next_hop);
} next_hops SEC(".maps");

/* Slot -> device packets are redirected to. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

/* Reason -> packets that left for it, per CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EXITS);
	__type(key, enum exit);
	__type(value, __u64);
} exits SEC(".maps");

/* What user space is told at once: struct event, once per flow and kind. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
	__type(value, struct event);
} events SEC(".maps");

#endif
