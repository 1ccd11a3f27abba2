/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tags of attachment circuits: which frames are the pseudowire's by them, and what
 * becomes of them (RFC 4448, Sections 4.4 and 4.6; RFC 4719, Section 3.1).
 */
#ifndef PWD_TAGS_H
#define PWD_TAGS_H

#include "service.h"

#define VLAN_DEI_MASK 0x1000

/* The first two tags of a frame, TPID and TCI, 0 for none. */
struct tags {
	__u32 outer;
	__u32 inner;
};

static __always_inline __u32 tag_at(struct __sk_buff *skb, __u32 at)
{
	struct vlan_tag tag;

	if (bpf_skb_load_bytes(skb, at, &tag, sizeof(tag)) || !is_tag(tag.tpid))
		return 0;
	return (__u32)bpf_ntohs(tag.tpid) << 16 | bpf_ntohs(tag.tci);
}

/* The outer tag is in the skb's metadata, but for frames that a program of the host's
 * sends through the device itself.
 */
static __always_inline void read_tags(struct __sk_buff *skb, struct tags *t)
{
	const __u32 at = 2 * ETH_ALEN;

	if (skb->vlan_present) {
		t->outer = (__u32)bpf_ntohs(skb->vlan_proto) << 16 | (skb->vlan_tci & 0xffff);
		t->inner = tag_at(skb, at);
		return;
	}
	t->outer = tag_at(skb, at);
	t->inner = t->outer ? tag_at(skb, at + sizeof(struct vlan_tag)) : 0;
}

static __always_inline __u32 without_priority(__u32 tag)
{
	return tag & ~0xf000;
}

/* Says whether a frame is the pseudowire's. IEEE 802.1Q, Section 9.6: VID 0 is a
 * priority tag, the frame belongs to no VLAN.
 */
static __always_inline int is_admitted(struct __sk_buff *skb, const struct service *s, __u32 device)
{
	struct tags t = {};
	__u32 vid;

	if (!(s->flags & SERVICE_FILTER))
		return 1;
	read_tags(skb, &t);
	vid = t.outer & VLAN_VID_MASK;
	if (!vid)
		return !!(s->flags & SERVICE_UNTAGGED);
	if (!(s->flags & SERVICE_TAGGED) || t.outer >> 16 != s->outer >> 16)
		return 0;
	if ((s->flags & SERVICE_INNER) && without_priority(t.inner) != s->inner)
		return 0;
	return has_vlan(device, vid);
}

static __always_inline int take_tags_off(struct __sk_buff *skb, const struct service *s)
{
	struct tags t = {};

	if (!(s->flags & SERVICE_PUSH))
		return 0;
	read_tags(skb, &t);
	if (bpf_skb_vlan_pop(skb))
		return -1;
	skb->mark = POPPED | (t.outer >> VLAN_PCP_SHIFT & 7);
	/* The next tag has taken its place. */
	return s->flags & SERVICE_INNER ? bpf_skb_vlan_pop(skb) : 0;
}

/* The class selector of the IP header inside a frame (RFC 2474, Section 4.2.2), of one
 * whose second tag, if it has one, is not in the way; 0 if there is none.
 */
static __always_inline __u32 class_selector(struct __sk_buff *skb)
{
	__be16 ethertype;
	__u8 b[2];

	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_proto), &ethertype, sizeof(ethertype)) ||
	    !is_ip(ethertype) || bpf_skb_load_bytes(skb, ETH_HLEN, b, sizeof(b)))
		return 0;
	return ethertype == bpf_htons(ETH_P_IP) ? b[1] >> 5 : (b[0] & 0x0f) >> 1;
}

/* The priority bits of a tag whose own are those of tci. */
static __always_inline __u32 priority_of(struct __sk_buff *skb, const struct service *s, __u32 tci)
{
	__u32 pcp = tci >> VLAN_PCP_SHIFT & 7;

	if (s->flags & SERVICE_DSCP_PCP)
		pcp = class_selector(skb);
	else if (s->flags & SERVICE_MAP_PCP)
		pcp = s->pcp >> (4 * pcp) & 7;
	return pcp << VLAN_PCP_SHIFT | (tci & VLAN_DEI_MASK);
}

static __always_inline int push_tag(struct __sk_buff *skb, __u32 tag)
{
	return bpf_skb_vlan_push(skb, bpf_htons(tag >> 16), tag & 0xffff);
}

/* Negative is a failure. 1 says that a tag has gone from the metadata into the frame: until
 * Linux 6.10 the kernel then takes the Ethernet header for longer than it is, so that what
 * comes after the program would find the frame in the wrong place.
 */
static __always_inline int put_tags_on(struct __sk_buff *skb, const struct service *s)
{
	struct tags t = {};
	__u32 priority;
	int in_frame;

	if (s->flags & SERVICE_PUSH) {
		priority = priority_of(skb, s, 0);
		in_frame = skb->vlan_present || (s->flags & SERVICE_INNER);
		if ((s->flags & SERVICE_INNER) && push_tag(skb, s->inner | priority))
			return -1;
		return push_tag(skb, s->outer | priority) ? -1 : in_frame;
	}
	if (!(s->flags & (SERVICE_REWRITE | SERVICE_MAP_PCP | SERVICE_DSCP_PCP)))
		return 0;
	read_tags(skb, &t);
	if (!t.outer && !(s->flags & SERVICE_REWRITE))
		return 0;
	if (t.outer && bpf_skb_vlan_pop(skb))
		return -1;
	/* RFC 4448, Section 4.4.1: on a pseudowire of tagged frames one without a tag is
	 * not to be; it gets one here.
	 */
	priority = priority_of(skb, s, t.outer);
	in_frame = skb->vlan_present;
	if (push_tag(skb, (s->flags & SERVICE_REWRITE ? s->outer : without_priority(t.outer)) | priority))
		return -1;
	return in_frame;
}

#endif
