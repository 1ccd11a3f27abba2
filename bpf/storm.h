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
#define POLICE_SHIFT 10

/* How many stations are known on each side of a pseudowire: those whose addresses fall into
 * one set push each other out, the one that was not heard for longest first.
 */
#define STATION_SETS_SHIFT 10
#define STATION_SETS (1 << STATION_SETS_SHIFT)
#define STATION_WAYS 8

/* The unit of a station's age, about 4 s, and how many of them are KNOWN. */
#define AGE_SHIFT 32
#define AGE_KNOWN (KNOWN >> AGE_SHIFT)
#define AGE_MASK 0xffff

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

/* An address, and in the last 16 bits when it was last heard; 0 is none. A station that comes
 * back after 78 hours may be taken for one of the last five minutes.
 */
struct station_set {
	__u64 stations[STATION_WAYS];
};

/* Those of one pseudowire, one side after the other. */
struct station_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * STATION_SETS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct station_set));
};

/* Each pseudowire has a table of its own: a flood in one makes none of another's unknown. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, MAX_SERVICES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* ifindex of the pseudowire's device */
	__array(values, struct station_table);
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

static __always_inline __u64 station_of(const __u8 *address)
{
	__u64 station = 0;

#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		station = station << 8 | address[i];
	return station << 16;
}

static __always_inline struct station_set *set_of(void *table, __u64 station, __u32 way)
{
	__u32 set = (way == INTO ? 0 : STATION_SETS) |
		    station * 0xd6e8feb86659fd93ULL >> (64 - STATION_SETS_SHIFT);

	return bpf_map_lookup_elem(table, &set);
}

static __always_inline int is_same(__u64 a, __u64 b)
{
	return !((a ^ b) & ~(__u64)AGE_MASK);
}

/* Puts a station first in its set. Those before a place, which is free then, move up. */
static __always_inline void put_first(struct station_set *set, __u64 station, int place)
{
#pragma unroll
	for (int i = STATION_WAYS - 1; i > 0; i--)
		if (i <= place)
			set->stations[i] = set->stations[i - 1];
	set->stations[0] = station;
}

/* Notes that a station was heard: a set has those first that were heard last. Where two CPUs
 * note one at once, one may be forgotten until its next frame.
 */
static __always_inline void note_station(struct station_set *set, __u64 station, __u64 now)
{
#pragma unroll
	for (int i = 0; i < STATION_WAYS; i++) {
		if (!is_same(set->stations[i], station))
			continue;
		if (set->stations[i] != (station | now))
			put_first(set, station | now, i);
		return;
	}
	put_first(set, station | now, STATION_WAYS - 1);
}

static __always_inline int has_station(const struct station_set *set, __u64 station, __u64 now)
{
#pragma unroll
	for (int i = 0; i < STATION_WAYS; i++)
		if (is_same(set->stations[i], station))
			return ((now - set->stations[i]) & AGE_MASK) <= AGE_KNOWN;
	return 0;
}

/* Notes who sent the frame, and says whether whom it is for has sent any that went the
 * other way: it is there, so bridges know it too. A function of its own for the reason that
 * is given in maps.h.
 */
__noinline int is_known(struct __sk_buff *skb, __u32 device, __u32 way)
{
	__u64 now = bpf_ktime_get_ns() >> AGE_SHIFT & AGE_MASK, station;
	void *table = bpf_map_lookup_elem(&stations, &device);
	struct station_set *set;
	struct ethhdr eth;

	if (!table || bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return 1;
	station = station_of(eth.h_source);
	set = set_of(table, station, way);
	if (set)
		note_station(set, station, now);
	station = station_of(eth.h_dest);
	set = set_of(table, station, way == INTO ? OUT : INTO);
	return set && has_station(set, station, now);
}

/* The kind of a frame that is one too many, -1 for others. */
static __always_inline int is_over(struct __sk_buff *skb, const struct service *s, __u32 device,
				   const struct ethhdr *eth, __u32 way)
{
	__u64 interval = 0, frames = skb->gso_segs;
	const __u8 *d = eth->h_dest;
	int kind, known = 1;

	if (s->interval[POLICED_UNKNOWN])
		known = is_known(skb, device, way);
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
