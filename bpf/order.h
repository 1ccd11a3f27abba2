/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Sequence numbers (RFC 3931, Sections 4.6 and 4.6.1, and Appendix C), of sessions
 * that asked for them.
 *
 * Packets that come in order are delivered where they come in, and packets that are
 * old dropped. One that is ahead of others is held for a short time in hope of those
 * (Appendix C). A program cannot keep an skb, but it can keep what is in it: such a
 * packet, and all that come while one is held, go through the slow lane, where the
 * kernel finishes their checksums and puts them into one queue; at its end their
 * frames are stored in a map, and delivered in order, in clones of the skb of the
 * packet that was missing. When that does not come, the next packet that does, or the
 * agent, has the held ones delivered without it.
 */
#ifndef PWD_ORDER_H
#define PWD_ORDER_H

#include "maps.h"

/* Numbers up to half of all there are ahead of the expected one are new. */
#define NEW_WINDOW 0x800000

/* How far ahead a packet may be that is held, how long its frame, tag included, and
 * how many are held of all sessions together.
 */
#define HELD_AHEAD 512
#define HELD_LEN 1600
#define HELD_TOTAL 2048

#define HELD_WORDS (HELD_AHEAD / 64)
#define HELD_WORD(number) ((number) / 64 % HELD_WORDS)
#define HELD_BIT(number) (1ULL << (number) % 64)

/* What has come of a session's numbered packets. The lock is where a pointer to it is
 * one to the whole: without CAP_PERFMON the verifier takes no other.
 */
struct order {
	struct bpf_spin_lock lock;
	__u32 started;
	__u64 held[HELD_WORDS]; /* which are held, a bit for each number modulo HELD_AHEAD */
	__u64 since; /* since when the expected one is waited for */
	__u64 hold;  /* how long it is waited for, in nanoseconds; 0 is not at all */
	__u32 expected;
	__u32 behind; /* what would be in sequence with the last one that was old */
	__u32 run;    /* how many old ones were in sequence among themselves */
	__u32 resync; /* how many of these make the old the new */
	__u32 busy;   /* frames are being stored or delivered from the store */
	__u32 count;  /* how many are held */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PSEUDOWIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* local session ID */
	__type(value, struct order);
} orders SEC(".maps");

struct turn_key {
	__u64 session;
	__u64 number;
};

struct held_frame {
	__u64 len; /* 0 is a packet whose frame was dropped: only its turn is held */
	__u8 frame[HELD_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HELD_TOTAL);
	__type(key, struct turn_key);
	__type(value, struct held_frame);
} held SEC(".maps");

/* What the agent is told: that a session's packets are held, and since when, or 0 if
 * they can be delivered. It puts a packet with LANE_RELEASE into the lane when their time
 * is over.
 */
struct waiting {
	__u64 since;
	__u64 session;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} waits SEC(".maps");

#define KEEPER_UNTIL 0	/* until when the agent says that it will do so, by bpf_ktime_get_ns */
#define KEEPER_UNTOLD 1 /* how often there was no room to tell it: it looks at all sessions then */
#define KEEPER_VALUES 2

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KEEPER_VALUES);
	__type(key, __u32);
	__type(value, __u64);
} keeper SEC(".maps");

static __always_inline void tell_waiting(__u32 session, __u64 since)
{
	struct waiting w = {.since = since, .session = session};
	__u32 key = KEEPER_UNTOLD;
	__u64 *untold;

	if (!bpf_ringbuf_output(&waits, &w, sizeof(w), 0))
		return;
	untold = bpf_map_lookup_elem(&keeper, &key);
	if (untold)
		__sync_fetch_and_add(untold, 1);
}

/* What a packet's number makes of it. */
enum turn {
	TURN_NOW,   /* deliver it */
	TURN_OVER,  /* drop it, it is old */
	TURN_LANE,  /* let it come again, through the lane */
	TURN_HOLD,  /* store it, and deliver what is in order then */
	TURN_FIRST, /* deliver it, and then what is held and in order */
	TURN_LATER, /* deliver what is held before it, and let it come again as the next one */
};

/* The index is added to where held is, not to where the lock is. */
static __always_inline __u64 *held_word(struct order *o, __u32 number)
{
	__u64 *words = o->held;

	same_value(words);
	return words + HELD_WORD(number);
}

static __always_inline int is_held(struct order *o, __u32 number)
{
	return !!(*held_word(o, number) & HELD_BIT(number));
}

/* With the last three nobody else stores or delivers until end_turn. */
static __noinline int turn_of(struct order *o, __u64 number, __u64 fits, __u64 in_lane)
{
	__u64 now = 0, *until, can_hold = 0, ahead, turn;
	__u32 key = KEEPER_UNTIL;

	if (o->hold && (o->expected != number || o->count || o->busy)) {
		until = bpf_map_lookup_elem(&keeper, &key);
		now = bpf_ktime_get_ns();
		can_hold = fits && until && now < *until;
	}
	bpf_spin_lock(&o->lock);
	ahead = (number - o->expected) & L2TP_NUMBER_MASK;
	if (o->started && ahead >= NEW_WINDOW) {
		/* Old ones in sequence are a peer that has begun anew. */
		o->run = o->run && number == o->behind ? o->run + 1 : 1;
		o->behind = (number + 1) & L2TP_NUMBER_MASK;
		turn = o->run >= o->resync && !o->count && !o->busy ? TURN_NOW : TURN_OVER;
	} else if (!o->count && !o->busy && (!ahead || !can_hold || ahead >= HELD_AHEAD)) {
		turn = TURN_NOW;
	} else if (ahead < HELD_AHEAD && is_held(o, number)) {
		turn = TURN_OVER;
	} else if (!in_lane || o->busy) {
		turn = TURN_LANE;
	} else {
		o->busy = 1;
		if (ahead < HELD_AHEAD && (can_hold || (!ahead && fits)))
			turn = TURN_HOLD;
		else
			turn = ahead ? TURN_LATER : TURN_FIRST;
	}
	if (turn == TURN_NOW || turn == TURN_FIRST) {
		o->started = 1;
		o->expected = (number + 1) & L2TP_NUMBER_MASK;
		o->run = 0;
	}
	bpf_spin_unlock(&o->lock);
	return turn;
}

/* Keeps the frame in the skb, with the tag vlan in it unless that is 0. Without keep
 * only its turn is.
 */
__noinline int store(struct __sk_buff *skb, __u32 session, __u32 number, __u32 vlan, __u32 keep)
{
	struct turn_key key = {.session = session, .number = number};
	struct scratch *s = scratch();
	struct vlan_tag tag = {bpf_htons(ETH_P_8021Q), bpf_htons(vlan)};
	__u32 len = skb->len;
	struct held_frame *h;

	if (!s)
		return -1;
	h = (struct held_frame *)s->payload;
	h->len = 0;
	if (keep) {
		h->len = skb->len;
		if (len <= 2 * ETH_ALEN)
			return -1;
		if (!vlan) {
			same_value(len);
			if (len > HELD_LEN)
				return -1;
			if (bpf_skb_load_bytes(skb, 0, h->frame, len))
				return -1;
		} else {
			h->len += sizeof(tag);
			if (bpf_skb_load_bytes(skb, 0, h->frame, 2 * ETH_ALEN))
				return -1;
			__builtin_memcpy(h->frame + 2 * ETH_ALEN, &tag, sizeof(tag));
			len -= 2 * ETH_ALEN;
			same_value(len);
			if (len < 2)
				return -1;
			same_value(len);
			if (len > HELD_LEN - 2 * ETH_ALEN - sizeof(tag))
				return -1;
			if (bpf_skb_load_bytes(skb, 2 * ETH_ALEN,
					       h->frame + 2 * ETH_ALEN + sizeof(tag), len))
				return -1;
		}
	}
	return bpf_map_update_elem(&held, &key, h, BPF_ANY);
}

/* Notes that a packet is in the store. Says whether the time of those is over. */
static __always_inline int note_stored(struct order *o, __u32 session, __u32 number)
{
	__u64 now = bpf_ktime_get_ns();
	int first, over;

	bpf_spin_lock(&o->lock);
	first = !o->count && number != o->expected;
	if (!o->count)
		o->since = now;
	o->count++;
	*held_word(o, number) |= HELD_BIT(number);
	o->started = 1;
	o->run = 0;
	over = now - o->since >= o->hold;
	bpf_spin_unlock(&o->lock);
	if (first)
		tell_waiting(session, now);
	return over;
}

/* Notes that there was no room for a packet. If nothing is held, what is missing before it
 * is not waited for: there is no room for what follows either.
 */
static __always_inline void note_not_stored(struct order *o, __u32 number)
{
	bpf_spin_lock(&o->lock);
	if (!o->count) {
		o->expected = (number + 1) & L2TP_NUMBER_MASK;
		o->started = 1;
		o->run = 0;
	}
	bpf_spin_unlock(&o->lock);
}

/* The kernel does not change the length of an skb that it has marked as a tunnel's,
 * which it does for us when the packet was sent on this host. Then the agent's packet is
 * what frames are delivered in.
 */
static __always_inline int is_rewritable(struct __sk_buff *skb)
{
	return !bpf_skb_change_tail(skb, skb->len, 0);
}

/* What is delivered from the store: the skb is rewritten for each frame. */
struct release {
	struct __sk_buff *skb;
	__u64 session;
	__u64 device;
	__u64 longest; /* frame without a tag in the metadata */
	__u64 all;     /* those behind what is missing too */
	__u64 later;   /* those before number only */
	__u64 number;
};


/* A tag that goes can have the next one take its place in the metadata. */
static __always_inline int without_tags(struct __sk_buff *skb)
{
#pragma unroll
	for (int i = 0; i < MAX_TAGS; i++)
		if (skb->vlan_present && bpf_skb_vlan_pop(skb))
			return -1;
	return 0;
}

static __always_inline int send_held(struct release *r, struct held_frame *h)
{
	struct __sk_buff *skb = r->skb;
	__u32 len = h->len;

	/* What was known of the octets that were there is not true of these: a
	 * change of the length has the kernel forget it.
	 */
	if (bpf_skb_change_tail(skb, HELD_LEN + 1, 0))
		return -1;
	bpf_csum_level(skb, BPF_CSUM_LEVEL_RESET);
	if (len < ETH_HLEN)
		return -1;
	same_value(len);
	if (len > HELD_LEN)
		return -1;
	if (bpf_skb_change_tail(skb, len, 0) || bpf_skb_store_bytes(skb, 0, h->frame, len, 0))
		return -1;
	if (len > r->longest && lift_tag(skb))
		return -1;
	if (bpf_clone_redirect(skb, r->device, 0))
		return -1;
	return without_tags(skb);
}

/* Delivers what has the next number; 1 ends the loop. */
static long release_next(__u32 i, struct release *r)
{
	struct turn_key key = {.session = r->session};
	__u32 session = r->session;
	struct order *o = bpf_map_lookup_elem(&orders, &session);
	__u64 now = bpf_ktime_get_ns();
	int found, end = 0;
	struct held_frame *h;

	if (!o)
		return 1;
	bpf_spin_lock(&o->lock);
	key.number = o->expected;
	found = is_held(o, key.number);
	if (!o->count || (!found && !r->all) || (r->later && key.number == r->number)) {
		end = 1;
	} else {
		*held_word(o, key.number) &= ~HELD_BIT(key.number);
		o->count -= found;
		o->expected = (key.number + 1) & L2TP_NUMBER_MASK;
		o->since = now;
	}
	bpf_spin_unlock(&o->lock);
	if (end || !found)
		return end;
	h = bpf_map_lookup_elem(&held, &key);
	if (!h)
		return 0;
	if (h->len && send_held(r, h))
		count(r->session, ERROR);
	bpf_map_delete_elem(&held, &key);
	return 0;
}

/* Has end_turn deliver what is held and in order, or all, or all before number. */
__noinline int begin_turn(__u32 session, __u32 all, __u32 later, __u32 number)
{
	struct scratch *s = scratch();

	if (!s)
		return 0;
	s->turn.session = session;
	s->turn.all = all;
	s->turn.later = later;
	s->turn.number = number;
	return 0;
}

/* After TURN_HOLD, TURN_FIRST or TURN_LATER, and when the time of what is held is over:
 * delivers what is held and in order, or all that is held, as the scratch area says.
 * What was in the skb is of no use any more.
 */
__noinline int end_turn(struct __sk_buff *skb)
{
	struct scratch *s = scratch();
	struct receive *rx;
	struct order *o;
	__u32 session;

	if (!s || !s->turn.session)
		return 0;
	session = s->turn.session;
	s->turn.session = 0;
	o = bpf_map_lookup_elem(&orders, &session);
	rx = bpf_map_lookup_elem(&sessions, &session);
	if (!o)
		return 0;
	if (rx && is_rewritable(skb)) {
		struct release r = {
			.skb = skb,
			.session = session,
			.device = rx->device,
			.longest = rx->mtu + ETH_HLEN + sizeof(struct vlan_tag),
			.all = s->turn.all,
			.later = s->turn.later,
			.number = s->turn.number,
		};

		skb->mark = 0;
		if (!without_tags(skb))
			bpf_loop(2 * HELD_AHEAD, release_next, &r, 0);
	} else {
		tell_waiting(session, 0);
	}
	bpf_spin_lock(&o->lock);
	if (s->turn.later) {
		o->expected = s->turn.number;
		o->started = 1;
	}
	o->busy = 0;
	bpf_spin_unlock(&o->lock);
	return 0;
}

/* The agent's packet: delivers what is held and in order, or all if its time is over. */
static __noinline int release_late(struct __sk_buff *skb)
{
	int due = 0, again = 0, over;
	struct order *o;
	__be32 number;
	__u32 session;
	__u64 now, since;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &number, sizeof(number)))
		return 0;
	session = bpf_ntohl(number);
	o = bpf_map_lookup_elem(&orders, &session);
	if (!o)
		return 0;
	now = bpf_ktime_get_ns();
	bpf_spin_lock(&o->lock);
	since = o->since;
	over = now - since >= o->hold;
	if (o->count) {
		due = !o->busy && (over || is_held(o, o->expected));
		again = !due;
		if (due)
			o->busy = 1;
	}
	bpf_spin_unlock(&o->lock);
	if (again)
		tell_waiting(session, since);
	if (due)
		begin_turn(session, over, 0, 0);
	return 0;
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
