// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Tandem's kernel engine: what happens to a packet, read from top to bottom. README.md
 * tells the same on one page.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "tandem/abi.h"
#include "tandem/maps.h"
#include "tandem/packet.h"
#include "tandem/parse.h"
#include "tandem/flow.h"
#include "tandem/rtp.h"
#include "tandem/rewrite.h"

/* The gates, in order. Each one knows what those before it have found. */
static __always_inline int gates(struct packet *p)
{
	GATE(parse(p));
	GATE(find_realm(p));
	GATE(find_flow(p));
	GATE(check_source(p));
	GATE(check_rtp(p));
	GATE(count(p));
	GATE(find_next_hop(p));
	GATE(rewrite(p));
	return send(p);
}

/* The one exit: counted, and turned into what XDP understands. */
static __always_inline int leave(struct packet *p, enum exit exit)
{
	__u64 *packets = bpf_map_lookup_elem(&exits, &exit);

	if (packets)
		(*packets)++;
	if (exit >= FORWARD_FORWARDED)
		return p->action;
	return exit >= DROP_NO_FLOW ? XDP_DROP : XDP_PASS;
}

/* frags: devices with a jumbo MTU take the program too. Media fits in the first buffer. */
SEC("xdp.frags")
int tandem_xdp(struct xdp_md *ctx)
{
	struct packet p = {
		.ctx = ctx,
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};

	return leave(&p, gates(&p));
}

/* What the verifier asks for; in the kernel the programs are used under GPL-2.0. */
char _license[] SEC("license") = "GPL";
