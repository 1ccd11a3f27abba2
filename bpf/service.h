/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the programs of nsp.c are told by the agent, and what they tell it. Where maps are
 * pinned these layouts are shared as those of maps.h.
 */
#ifndef PWD_SERVICE_H
#define PWD_SERVICE_H

#include "wire.h"

#define MAX_SERVICES 16384

/* Which way a frame goes: a part of what it is counted under, and of whose bucket it
 * takes from.
 */
#define INTO 0
#define OUT 8

/* Why a frame was dropped. The first ones are the kinds of frames that are limited. */
enum refused {
	POLICED_BROADCAST,
	POLICED_MULTICAST,
	POLICED_UNKNOWN,
	REFUSED_VLAN,
	REFUSED_GROUP,
	REFUSED_ERROR,
	POLICED,
};

struct refusals {
	__u64 of[2 * OUT];
};

#define SERVICE_FILTER 0x01   /* not all frames are the pseudowire's, but only */
#define SERVICE_UNTAGGED 0x02 /* those without a tag, or with one of VID 0 */
#define SERVICE_TAGGED 0x04   /* those with an outer tag among vlans */
#define SERVICE_INNER 0x08    /* ... and with the inner tag inner */
#define SERVICE_PUSH 0x10     /* the tags come off on the way in, and are put on on the way out */
#define SERVICE_REWRITE 0x20  /* the first tag becomes outer on the way out */
#define SERVICE_MAP_PCP 0x40  /* PCPs on the way out are mapped by pcp */
#define SERVICE_DSCP_PCP 0x80 /* they are those of the IP header inside */

#define KINDS 3 /* of frames that are limited */

struct service {
	__u32 flags; /* SERVICE_* */
	__u32 outer; /* the outer tag: TPID and VID */
	__u32 inner; /* the inner tag */
	__u32 pcp;   /* eight PCPs of four bits each, by that which they take the place of */
	__u32 groups; /* link-local groups that pass, by their last octet */
	__u32 pad;
	__u64 interval[KINDS]; /* nanoseconds a frame, 0 for no limit */
	__u64 police;	       /* on the way out: an octet's share of a second, in 1/1024 ns; 0 is none */
	__u64 vlans[64];       /* a bit for each outer VID */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SERVICES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* ifindex of the pseudowire's device */
	__type(value, struct service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, MAX_SERVICES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* ifindex of the pseudowire's device */
	__type(value, struct refusals);
} refused SEC(".maps");

/* Functions of their own for the reason that is given in maps.h. */
__noinline int count_refused(__u32 device, __u32 reason)
{
	struct refusals *r = bpf_map_lookup_elem(&refused, &device);

	if (r && reason < 2 * OUT)
		r->of[reason] += 1;
	return 0;
}

__noinline int has_vlan(__u32 device, __u32 vid)
{
	struct service *s = bpf_map_lookup_elem(&services, &device);
	__u32 word = vid >> 6;

	if (!s || word >= 64)
		return 0;
	return s->vlans[word] >> (vid & 63) & 1;
}

#endif
