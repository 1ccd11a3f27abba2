/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Sequence numbers (RFC 3931, Sections 4.6 and 4.6.1, and Appendix C), of sessions
 * that asked for them.
 */
#ifndef PWD_ORDER_H
#define PWD_ORDER_H

#include "maps.h"

/* Numbers up to half of all there are ahead of the expected one are new. */
#define NEW_WINDOW 0x800000

/* What has come of a session's numbered packets. */
struct order {
	struct bpf_spin_lock lock;
	__u32 started;
	__u32 expected;
	__u32 behind;	   /* what would be in sequence with the last one that was old */
	__u32 run;	   /* how many old ones were in sequence among themselves */
	__u32 resync;	   /* how many of these make the old the new */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PSEUDOWIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* local session ID */
	__type(value, struct order);
} orders SEC(".maps");

/* Says whether a packet of that number is new, and expects the next. */
static __always_inline int is_new(struct order *o, __u32 number)
{
	int new = 1;

	bpf_spin_lock(&o->lock);
	if (o->started && ((number - o->expected) & L2TP_NUMBER_MASK) >= NEW_WINDOW) {
		/* Old ones in sequence are a peer that has begun anew. */
		o->run = o->run && number == o->behind ? o->run + 1 : 1;
		o->behind = (number + 1) & L2TP_NUMBER_MASK;
		new = o->run >= o->resync;
	}
	if (new) {
		o->started = 1;
		o->expected = (number + 1) & L2TP_NUMBER_MASK;
		o->run = 0;
	}
	bpf_spin_unlock(&o->lock);
	return new;
}

/* Gives the packet of a session, whose sublayer is at the given offset, the next
 * number. Numbers are the packets' in the order in which they leave.
 */
static __always_inline int number(struct __sk_buff *skb, __u32 session, __u32 at)
{
	__u64 *next = bpf_map_lookup_elem(&numbers, &session);
	__be32 sublayer;

	if (!next)
		return -1;
	sublayer = bpf_htonl(L2TP_SUBLAYER_S |
			     (__sync_fetch_and_add(next, 1) & L2TP_NUMBER_MASK));
	return bpf_skb_store_bytes(skb, at, &sublayer, sizeof(sublayer), 0);
}

#endif
