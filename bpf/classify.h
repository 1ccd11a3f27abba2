/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#ifndef PWD_CLASSIFY_H
#define PWD_CLASSIFY_H

#include "encap.h"

/* What all packets have in the TOS octet, or as traffic class. */
static __always_inline __u32 tos_of(const struct transmit *tx)
{
	const __u8 *ip = (const __u8 *)tx->outer + ETH_HLEN;

	return tx->flags & TX_IPV6 ? (ip[0] & 0x0f) << 4 | ip[1] >> 4 : ip[1];
}

/* Why a frame would not leave. */
#define REFUSED_VLAN 0x100
#define REFUSED_STATE 0x200
#define REFUSED_NEIGHBOUR 0x400

static __always_inline __u32 refused(struct __sk_buff *skb, const struct transmit *tx)
{
	return (tx->vlan && !tagged_for(skb, tx) ? REFUSED_VLAN : 0) |
	       (tx->flags & TX_ESTABLISHED ? 0 : REFUSED_STATE) |
	       (tx->flags & TX_RESOLVED ? 0 : REFUSED_NEIGHBOUR);
}

/* Writes what becomes of a frame by an entry of pseudowires into cb. */
__noinline int say_how(struct __sk_buff *skb, __u32 key)
{
	struct transmit *tx = bpf_map_lookup_elem(&pseudowires, &key);

	if (!tx)
		return -1;
	skb->cb[2] = refused(skb, tx) | tos_of(tx);
	skb->cb[3] = tx->priority;
	skb->cb[4] = tx->session;
	return 0;
}

/* The part of the TOS that comes from the frame. */
__noinline int say_tos(struct __sk_buff *skb, __u32 key)
{
	struct transmit *tx = bpf_map_lookup_elem(&pseudowires, &key);
	struct inner inner = {};

	if (!tx || take_tags(skb, &inner) || load_inner(skb, tx, &inner))
		return -1;
	return inner.tos;
}

__noinline int say_rule(void)
{
	struct scratch *s = scratch();

	return s ? s->steering.rule : NO_RULE;
}

/* Says what becomes of a frame (pwctl classify): it is run, and never attached. The mark is
 * the pseudowire's outer end. The answer is in cb: the rule, the outer packet's TOS or
 * traffic class with REFUSED_*, its priority, and the session.
 */
SEC("tc")
int pwd_classify(struct __sk_buff *skb)
{
	__u64 key, rule, how;
	int tos;

	if (note_asked(skb))
		return TC_ACT_UNSPEC;
	key = choose_way(skb, skb->mark, 1);
	rule = say_rule();
	if (say_how(skb, key))
		return TC_ACT_UNSPEC;
	how = skb->cb[2];
	tos = say_tos(skb, key);
	if (tos < 0)
		return TC_ACT_UNSPEC;
	skb->cb[0] = rule;
	skb->cb[2] = how | tos;
	return TC_ACT_OK;
}

#endif
