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
#include "tandem/realm.h"
#include "tandem/guard.h"
#include "tandem/underlay.h"
#include "tandem/flow.h"
#include "tandem/source.h"
#include "tandem/rtp.h"
#include "tandem/statistics.h"
#include "tandem/hop.h"
#include "tandem/mtu.h"
#include "tandem/treat.h"
#include "tandem/rewrite.h"
#include "tandem/send.h"

/* The gates, in order. Each one knows what those before it have found. */
static __always_inline int gates(struct packet *p)
{
	GATE(find_device(p));
	GATE(parse_link(p));
	GATE(find_realm(p));
	GATE(underlay(p));
	GATE(parse(p));
	GATE(guard(p));
	GATE(find_flow(p));
	GATE(look_at_rtp(p));
	GATE(check_source(p));
	GATE(check_rtp(p));
	GATE(demultiplex(p));
	GATE(find_next_hop(p));
	GATE(count(p));
	GATE(may_leave(p));
	GATE(tell_mtu(p));
	GATE(treat(p));
	GATE(rewrite(p));
	return send(p);
}

/* The one exit: counted, by realm. */
static __always_inline enum exit leave(struct packet *p)
{
	enum exit exit = gates(p);
	struct tally *t;

	/* XDP counted what it left to the stack. */
	if (p->skb && exit < DROP_DENIED && p->in && p->in->flags & DEVICE_XDP)
		return exit;
	t = tally(p);
	if (t && exit < EXITS)
		t->packets[exit]++;
	return exit;
}

/* frags: devices with a jumbo MTU take the program too. Media fits in the first buffer. */
SEC("xdp.frags")
int tandem_xdp(struct xdp_md *ctx)
{
	struct packet p = {
		.xdp = ctx,
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
		.action = XDP_DROP,
	};
	enum exit exit = leave(&p);

	if (exit >= DROP_FRAGMENTATION_NEEDED)
		return p.action;
	return exit >= DROP_DENIED ? XDP_DROP : XDP_PASS;
}

/*
 * For devices that XDP cannot serve, and for packets that it cannot send. TC_ACT_UNSPEC lets the next
 * program have the packet.
 */
SEC("tc")
int tandem_tc(struct __sk_buff *ctx)
{
	struct packet p = {
		.skb = ctx,
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
		.action = TC_ACT_SHOT,
	};
	enum exit exit = leave(&p);

	if (exit >= DROP_FRAGMENTATION_NEEDED)
		return p.action;
	return exit >= DROP_DENIED ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* The kernel has polled a device on this CPU. */
SEC("raw_tp/napi_poll")
int tandem_burst(void *ctx)
{
	end_burst();
	return 0;
}

/* What the verifier asks for; in the kernel the programs are used under GPL-2.0. */
char _license[] SEC("license") = "GPL";
