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

/* Says what becomes of a frame (pwctl classify): it is run, and never attached. The mark is
 * the pseudowire's outer end. The answer is in cb: the rule, the entry of pseudowires, the
 * outer packet's TOS or traffic class with REFUSED_*, its priority, and the session.
 */
SEC("tc")
int pwd_classify(struct __sk_buff *skb)
{
	__u32 device = skb->mark, key, refused = 0;
	struct inner inner = {};
	struct transmit *tx;
	struct scratch *s;

	/* At a hook a frame's first tag is in the metadata. */
	if (!skb->vlan_present && is_tag(skb->protocol) && lift_tag(skb))
		return TC_ACT_UNSPEC;
	note_pcp(skb);
	key = choose_way(skb, device);
	s = scratch();
	tx = bpf_map_lookup_elem(&pseudowires, &key);
	if (!s || !tx)
		return TC_ACT_UNSPEC;
	if (tx->vlan && !tagged_for(skb, tx))
		refused |= REFUSED_VLAN;
	if (!(tx->flags & TX_ESTABLISHED))
		refused |= REFUSED_STATE;
	if (!(tx->flags & TX_RESOLVED))
		refused |= REFUSED_NEIGHBOUR;
	if (take_tags(skb, &inner) || load_inner(skb, tx, &inner))
		return TC_ACT_UNSPEC;
	skb->cb[0] = s->steering.rule;
	skb->cb[1] = key;
	skb->cb[2] = refused | tos_of(tx) | inner.tos;
	skb->cb[3] = tx->priority;
	skb->cb[4] = tx->session;
	return TC_ACT_OK;
}

#endif
