/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The MSS clamp alone, for devices of another datapath: at both hooks of each. */
#ifndef PWD_CLAMP_H
#define PWD_CLAMP_H

#include "decap.h"

/* The longest IP packet that untagged frames of a device may carry, by ifindex. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PSEUDOWIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} clamps SEC(".maps");

SEC("tc")
int pwd_clamp(struct __sk_buff *skb)
{
	__u32 device = skb->ifindex;
	__be16 ethertype;
	__u32 *room;

	room = bpf_map_lookup_elem(&clamps, &device);
	if (!room)
		return TC_ACT_UNSPEC;
	/* What skb->protocol says of a tag that is not in the frame depends on the hook. */
	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_proto), &ethertype, sizeof(ethertype)))
		return TC_ACT_UNSPEC;
	clamp_frame(skb, ethertype, *room - (skb->vlan_present ? sizeof(struct vlan_tag) : 0));
	return TC_ACT_UNSPEC;
}

#endif
