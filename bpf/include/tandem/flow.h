/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The gates that find the flow of a packet. */
#ifndef TANDEM_FLOW_H
#define TANDEM_FLOW_H

#include "guard.h"

/* The rule of a port that has a flow, else null. */
static __always_inline struct rule *active_rule(struct flow *flow)
{
	__u32 rule = flow->active - 1;

	return rule > 1 ? 0 : &flow->rule[rule];
}

/*
 * A media port without a flow is closed. The packet is dropped here, since the stack would answer each
 * late packet of an ended call, and each of a scan, with an ICMP message.
 */
static __always_inline int find_flow(struct packet *p)
{
	struct realm *realm = p->realm;
	struct flow *flow;

	p->at = p->door_at = realm->flows + (bpf_ntohs(p->udp->dest) - realm->first_port);
	flow = flow_at(p->at);
	p->rule = p->door = flow ? active_rule(flow) : 0;
	if (!p->rule)
		return refuse(p, DROP_NO_FLOW);
	p->counters = &flow->counters;
	return CARRY_ON;
}

/* RTCP that shares a port with RTP belongs to the flow of the port above (RFC 5761). */
static __always_inline int demultiplex(struct packet *p)
{
	struct flow *flow;

	if (!p->is_rtcp || !(p->door->flags & RULE_MUX))
		return CARRY_ON;
	p->at++;
	flow = flow_at(p->at);
	if (!flow)
		return DROP_NO_FLOW;
	p->rule = active_rule(flow);
	if (!p->rule || !(p->rule->flags & RULE_RTCP))
		return DROP_NO_FLOW;
	p->counters = &flow->counters;
	return CARRY_ON;
}

#endif
