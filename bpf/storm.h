/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Storm control: limits for frames that go to many, or where nobody knows the one; and the
 * limit for all that comes out of a pseudowire.
 */
#ifndef PWD_STORM_H
#define PWD_STORM_H

#include "service.h"

#define SECOND 1000000000ULL
/* As many frames as come in that time may come at once. */
#define BURST (SECOND / 10)
/* How long an address is known after its last frame: what bridges take. */
#define KNOWN (300 * SECOND)
#define MAX_STATIONS 65536
#define POLICE_SHIFT 10

/* When the next frame is due, by CLOCK_MONOTONIC, if all came evenly: one word that all
 * CPUs share without a lock. The generic cell rate algorithm (ITU-T I.371, Annex A) is
 * a token bucket that way.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SERVICES * (2 * KINDS + 1));
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* ifindex of the pseudowire's device, shifted by four, way and kind */
	__type(value, __u64);
} due SEC(".maps");

/* An address and the side of the pseudowire that it was seen on. */
struct station {
	__u32 device;
	__u16 side;
	__u8 address[ETH_ALEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_STATIONS);
	__type(key, struct station);
	__type(value, __u64); /* when */
} stations SEC(".maps");

static __always_inline int take(__u32 key, __u64 cost)
{
	__u64 *next = bpf_map_lookup_elem(&due, &key), now = bpf_ktime_get_ns(), was;

	if (!next)
		return 1;
	/* Who is overtaken by four others lets its frame pass. */
#pragma unroll
	for (int i = 0; i < 4; i++) {
		was = *(volatile __u64 *)next;
		if (was > now + BURST)
			return 0;
		if (__sync_val_compare_and_swap(next, was, (was > now ? was : now) + cost) == was)
			break;
	}
	return 1;
}

/* Notes who sent the frame, and says whether whom it is for has sent any that went the
 * other way: it is there, so bridges know it too.
 */
static __always_inline int is_known(__u32 device, const struct ethhdr *eth, __u32 way)
{
	struct station s = {.device = device, .side = way};
	__u64 now = bpf_ktime_get_ns(), *seen;

	__builtin_memcpy(s.address, eth->h_source, ETH_ALEN);
	seen = bpf_map_lookup_elem(&stations, &s);
	if (!seen)
		bpf_map_update_elem(&stations, &s, &now, BPF_ANY);
	else if (now - *seen > SECOND)
		*seen = now;
	s.side = way == INTO ? OUT : INTO;
	__builtin_memcpy(s.address, eth->h_dest, ETH_ALEN);
	seen = bpf_map_lookup_elem(&stations, &s);
	return seen && now - *seen < KNOWN;
}

/* The kind of a frame that is one too many, -1 for others. */
static __always_inline int is_over(struct __sk_buff *skb, const struct service *s, __u32 device,
				   const struct ethhdr *eth, __u32 way)
{
	__u64 interval = 0, frames = skb->gso_segs;
	const __u8 *d = eth->h_dest;
	int kind, known = 1;

	if (s->interval[POLICED_UNKNOWN])
		known = is_known(device, eth, way);
	if ((d[0] & d[1] & d[2] & d[3] & d[4] & d[5]) == 0xff) {
		kind = POLICED_BROADCAST;
		interval = s->interval[POLICED_BROADCAST];
	} else if (d[0] & 1) {
		kind = POLICED_MULTICAST;
		interval = s->interval[POLICED_MULTICAST];
	} else {
		kind = POLICED_UNKNOWN;
		if (!known)
			interval = s->interval[POLICED_UNKNOWN];
	}
	if (!interval)
		return -1;
	if (!frames)
		frames = 1;
	return take(device << 4 | way | kind, interval * frames) ? -1 : kind;
}

/* Says that a frame out of the pseudowire is beyond what it may deliver. */
static __always_inline int is_policed(struct __sk_buff *skb, const struct service *s, __u32 device)
{
	__u64 len = skb->len;

	if (!s->police)
		return 0;
	if (skb->vlan_present)
		len += sizeof(struct vlan_tag);
	return !take(device << 4 | OUT | POLICED, len * s->police >> POLICE_SHIFT);
}

#endif
