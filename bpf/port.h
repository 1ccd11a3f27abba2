/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Attachment circuits that are a whole port, or a VLAN of one, without a bridge: what
 * comes in at the port goes into the pseudowire at once, and what comes out of the
 * pseudowire leaves through the port at once.
 */
#ifndef PWD_PORT_H
#define PWD_PORT_H

#include "encap.h"

/* An attachment circuit of a port, or the inner end of a pseudowire's veth pair. */
struct circuit_key {
	__u32 port; /* ifindex */
	__u32 vlan; /* 0 is the whole port */
};

#define CIRCUIT_UNTAG 0x01 /* the tag is not for the pseudowire's device */

struct circuit {
	__u32 device; /* ifindex of the pseudowire's outer end */
	__u32 flags;  /* CIRCUIT_* */
	__u32 mtu;    /* of the device, as in struct receive */
	__u32 port;   /* ifindex of the port that frames leave through */
	__u32 vlan;   /* tag put on those; 0 is none */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * MAX_PSEUDOWIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct circuit_key);
	__type(value, struct circuit);
} circuits SEC(".maps");

static __always_inline struct circuit *circuit_of(struct __sk_buff *skb)
{
	struct circuit_key key = {.port = skb->ifindex};
	struct circuit *c = bpf_map_lookup_elem(&circuits, &key);

	if (c || !skb->vlan_present || skb->vlan_proto != bpf_htons(ETH_P_8021Q))
		return c;
	key.vlan = skb->vlan_tci & VLAN_VID_MASK;
	return key.vlan ? bpf_map_lookup_elem(&circuits, &key) : 0;
}

/* What a bridge lets into a device, by the kernel's rule: a tag is no part of the length. */
static __always_inline int enters(struct __sk_buff *skb, const struct circuit *c)
{
	return skb->gso_size || skb->len <= c->mtu + ETH_HLEN + sizeof(struct vlan_tag);
}

/* At the ingress of a port. */
SEC("tc")
int pwd_port(struct __sk_buff *skb)
{
	struct circuit *c;
	__u32 device;

	/* IEEE 802.3, Annex 31B: a link's own. */
	if (skb->protocol == bpf_htons(ETH_P_PAUSE))
		return PASS;
	c = circuit_of(skb);
	if (!c)
		return PASS;
	device = c->device;
	if (!enters(skb, c))
		return drop_at(device, OVERSIZE);
	note_pcp(skb);
	if ((c->flags & CIRCUIT_UNTAG) && bpf_skb_vlan_pop(skb))
		return drop_at(device, ERROR);
	return encap(skb, device);
}

/* At the ingress of a pseudowire's device, the inner end: frames that were put together. */
SEC("tc")
int pwd_out(struct __sk_buff *skb)
{
	struct circuit_key key = {.port = skb->ifindex};
	struct circuit *c = bpf_map_lookup_elem(&circuits, &key);
	__u32 port;

	if (!c)
		return PASS;
	port = c->port;
	if (c->vlan && bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), c->vlan))
		return drop_at(c->device, ERROR);
	return bpf_redirect(port, 0);
}

#endif
