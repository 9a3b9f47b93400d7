// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * The floor that the benchmark measures Tandem's program against: a program that knows the same headers
 * and redirects, and does nothing else.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "tandem/packet.h"
#include "tandem/parse.h"

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} out SEC(".maps");

SEC("xdp.frags")
int floor_xdp(struct xdp_md *ctx)
{
	struct packet p = {
		.xdp = ctx,
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};

	if (parse_link(&p) != CARRY_ON || parse(&p) != CARRY_ON || p.stack != CARRY_ON)
		return XDP_PASS;
	return bpf_redirect_map(&out, 0, XDP_DROP);
}

char _license[] SEC("license") = "GPL";
