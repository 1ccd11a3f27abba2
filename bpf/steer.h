/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Which of several sessions a frame of one pseudowire leaves over: the rules of its
 * `steer:`, of which the first that matches says it.
 *
 * A session that frames can leave over is a way: an entry of the program's of its own,
 * whose key is no ifindex. That key is the frame's mark in the slow lane, so that it
 * leaves there over the way that was chosen here. The program has scratch(), a place to work
 * in that has struct steering.
 */
#ifndef PWD_STEER_H
#define PWD_STEER_H

#include "steering.h"

#define MAX_RULES 64
#define MAX_WAYS 8
/* The rule of frames that none of them matches. */
#define NO_RULE MAX_RULES

/* How many extension headers of IPv6 are passed over. */
#define MAX_EXTENSIONS 6

/* The first tag is the attachment circuit's, and comes off: its priority counts, its
 * number does not.
 */
#define STEER_POPPED 0x01

/* Where what a rule looks at is not there. NO_PCP is steering.h's. */
#define NO_VLAN 0x10000
#define NO_PORT 0x10000
#define NO_PROTOCOL 0x100

#define FAMILY_NONE 0x01
#define FAMILY_IPV4 0x02
#define FAMILY_IPV6 0x04

/* What frames it matches. All is as numbers, addresses of IPv4 are mapped into IPv6.
 * Where it is not about something, a mask is 0, a set all, a range everything.
 */
struct rule {
	__u64 dscps; /* a bit for each */
	__u64 source[2], source_mask[2];
	__u64 destination[2], destination_mask[2];
	__u64 source_mac, source_mac_mask;
	__u64 destination_mac, destination_mac_mask;
	__u32 families; /* FAMILY_* */
	__u32 pcps;	/* a bit for each, and bit NO_PCP */
	/* Ranges: the first, and how many after it. */
	__u32 vlan, vlans;
	__u32 source_port, source_ports;
	__u32 destination_port, destination_ports;
	__u32 ethertype, ethertype_mask;
	__u32 protocol, protocol_mask;
	__u32 ways;  /* bits of struct steer's: a flow takes one of them */
	__u32 was;   /* those it had before, while flows go over to new ones */
	__u32 only;  /* the key of the way, where there is one */
	__u32 pad;
};

struct way {
	__u64 seed; /* of its weight for a flow */
	__u32 key;  /* in pseudowires */
	__u32 pad;
};

struct steer {
	__u64 until; /* when no flow has to go over any more, 0 is never (CLOCK_MONOTONIC) */
	__u64 change; /* which change flows go over by: several, if each came before the one before was over */
	__u32 flags; /* STEER_* */
	__u32 count; /* of rules */
	/* Of frames that no rule matches, as in a rule. */
	__u32 ways;
	__u32 was;
	__u32 only;
	__u32 up; /* bits of all ways that take frames */
	struct way way[MAX_WAYS];
	struct rule rule[MAX_RULES];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PSEUDOWIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* ifindex of the outer end */
	__type(value, struct steer);
} steers SEC(".maps");

/* A flow that is to take another way than the one that it has, though that is still there: it
 * goes over in its first pause, in which what it has sent arrives.
 */
struct pausing_key {
	__u64 flow;
	__u64 change; /* which one, of which pseudowire */
};

struct pausing {
	__u64 last; /* when its last frame came */
	__u64 way;  /* the key of the one that it has */
};

#define FLOW_PAUSE 200000000ULL

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct pausing_key);
	__type(value, struct pausing);
} pauses SEC(".maps");

static __always_inline __u64 word(__u64 octets)
{
	return bpf_be64_to_cpu(octets);
}

/* Notes the priority bits of the frame's first tag, before it comes off, or if it has. */
static __always_inline void note_pcp(struct __sk_buff *skb)
{
	__u32 mark = skb->mark;

	skb->cb[0] = skb->vlan_present ? skb->vlan_tci >> VLAN_PCP_SHIFT & 7 : NO_PCP;
	if ((mark & POPPED_MASK) != POPPED)
		return;
	skb->cb[0] = mark & 7;
	skb->mark = 0;
	/* Lest the compiler makes one of this and the next mark, at an offset from the context. */
	asm volatile("" ::: "memory");
}

/* The same of a frame that is only asked about, with which comes a mark of its own, and in cb
 * one more than the priority bits of a tag that has come off, or 0. At a hook a frame's first
 * tag is in the metadata.
 */
static __always_inline int note_asked(struct __sk_buff *skb)
{
	if (!skb->vlan_present && is_tag(skb->protocol) && lift_tag(skb))
		return -1;
	if (skb->cb[0])
		skb->cb[0] -= 1;
	else
		note_pcp(skb);
	return 0;
}

/* Takes a tag's number in, if it is the first that stays on. */
static __always_inline void read_tag(struct headers *h, __u32 tci, int popped)
{
	if (!popped && h->vlan == NO_VLAN)
		h->vlan = tci & VLAN_VID_MASK;
}

/* Takes in a tag that is in the frame, if there is one; returns where what is behind it begins. */
static __always_inline __u32 next_tag(struct __sk_buff *skb, struct headers *h, __u32 at)
{
	if (!is_tag(bpf_htons(h->ethertype)) || bpf_skb_load_bytes(skb, at, h->octets, 4))
		return at;
	read_tag(h, word(h->octets[0]) >> 48, 0);
	h->ethertype = word(h->octets[0]) >> 32 & 0xffff;
	return at + sizeof(struct vlan_tag);
}

/* Two tags at most, the one that comes off not counted. Returns where what is behind
 * them begins.
 */
static __always_inline __u32 read_tags_of(struct __sk_buff *skb, struct headers *h, int popped)
{
	__u32 at = ETH_HLEN;

	h->pcp = 1 << (skb->cb[0] & 0x0f); /* note_pcp */
	h->vlan = NO_VLAN;
	if (skb->vlan_present)
		read_tag(h, skb->vlan_tci, popped);
	at = next_tag(skb, h, at);
	if (!skb->vlan_present || popped)
		at = next_tag(skb, h, at);
	return at;
}

static __always_inline int is_extension(__u32 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING ||
	       protocol == IPPROTO_DSTOPTS || protocol == IPPROTO_FRAGMENT ||
	       protocol == IPPROTO_AH || protocol == IPPROTO_MH || protocol == 139 ||
	       protocol == 140;
}

static __always_inline int has_ports(__u32 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
	       protocol == IPPROTO_UDPLITE || protocol == IPPROTO_DCCP;
}

/* Fragments have no ports, the first no more than the others, so that all of one packet
 * go one way.
 */
static __always_inline void read_ports(struct __sk_buff *skb, struct headers *h, __u32 at)
{
	if (!has_ports(h->protocol) || bpf_skb_load_bytes(skb, at, h->octets, 4))
		return;
	h->source_port = word(h->octets[0]) >> 48;
	h->destination_port = word(h->octets[0]) >> 32 & 0xffff;
}

static __noinline int read_ip4(struct __sk_buff *skb, struct headers *h, __u32 at)
{
	__u64 first, second;
	__u32 len;

	if (bpf_skb_load_bytes(skb, at, h->octets, sizeof(struct iphdr)))
		return 0;
	first = word(h->octets[0]);
	second = word(h->octets[1]);
	len = (first >> 56 & 0x0f) * 4;
	if (first >> 60 != 4 || len < sizeof(struct iphdr))
		return 0;
	h->family = FAMILY_IPV4;
	h->dscp = 1ULL << (first >> 50 & 0x3f);
	h->source[1] = 0xffff00000000ULL | (second & 0xffffffff);
	h->destination[1] = 0xffff00000000ULL | word(h->octets[2]) >> 32;
	h->protocol = second >> 48 & 0xff;
	if (!(first & (IP4_MF | IP4_OFFSET)))
		read_ports(skb, h, at + len);
	return 0;
}

/* RFC 8200, Section 4. Behind a fragment header nothing is looked at: only the first
 * fragment has it.
 */
static __noinline int read_extensions(struct __sk_buff *skb, struct headers *h, __u32 at)
{
	__u32 protocol = h->protocol, len;
	__u64 first;

#pragma unroll
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		if (!is_extension(protocol))
			break;
		if (bpf_skb_load_bytes(skb, at, h->octets, 8)) {
			h->protocol = NO_PROTOCOL;
			return 0;
		}
		first = word(h->octets[0]);
		len = first >> 48 & 0xff;
		if (protocol == IPPROTO_FRAGMENT) {
			if (first >> 32 & 0xfff9) {
				h->protocol = first >> 56;
				return 0;
			}
			len = 0;
		}
		at += protocol == IPPROTO_AH ? (len + 2) * 4 : (len + 1) * 8;
		protocol = first >> 56;
	}
	h->protocol = is_extension(protocol) ? NO_PROTOCOL : protocol;
	read_ports(skb, h, at);
	return 0;
}

static __noinline int read_ip6(struct __sk_buff *skb, struct headers *h, __u32 at)
{
	__u64 first;

	if (bpf_skb_load_bytes(skb, at, h->octets, sizeof(struct ipv6hdr)))
		return 0;
	first = word(h->octets[0]);
	if (first >> 60 != 6)
		return 0;
	h->family = FAMILY_IPV6;
	h->dscp = 1ULL << (first >> 54 & 0x3f);
	h->source[0] = word(h->octets[1]);
	h->source[1] = word(h->octets[2]);
	h->destination[0] = word(h->octets[3]);
	h->destination[1] = word(h->octets[4]);
	h->protocol = first >> 8 & 0xff;
	return read_extensions(skb, h, at + sizeof(struct ipv6hdr));
}

/* Reads what rules look at. What is cut off is not there. */
static __noinline int read_headers(struct __sk_buff *skb, struct headers *h, int popped)
{
	__u32 at;

	h->family = FAMILY_NONE;
	h->dscp = ~0ULL;
	h->source[0] = h->source[1] = h->destination[0] = h->destination[1] = 0;
	h->protocol = NO_PROTOCOL;
	h->source_port = h->destination_port = NO_PORT;
	if (bpf_skb_load_bytes(skb, 0, h->octets, ETH_HLEN))
		return -1;
	h->destination_mac = word(h->octets[0]) >> 16;
	h->source_mac = (word(h->octets[0]) & 0xffff) << 32 | word(h->octets[1]) >> 32;
	h->ethertype = word(h->octets[1]) >> 16 & 0xffff;
	at = read_tags_of(skb, h, popped);
	if (h->ethertype == ETH_P_IP)
		return read_ip4(skb, h, at);
	if (h->ethertype == ETH_P_IPV6)
		return read_ip6(skb, h, at);
	return 0;
}

/* What is searched with and for. */
struct search {
	struct steer *steer;
	struct scratch *scratch;
};

static __always_inline int differs(const __u64 *a, const __u64 *b, const __u64 *mask)
{
	return ((a[0] ^ b[0]) & mask[0]) || ((a[1] ^ b[1]) & mask[1]);
}

/* Looks at one rule; 1 ends the search. */
static long try_rule(__u32 i, struct search *x)
{
	struct steering *found = &x->scratch->steering;
	const struct headers *h = &found->headers;
	const struct rule *r;

	same_value(i);
	if (i >= MAX_RULES)
		return 1;
	r = &x->steer->rule[i];
	if (!(r->families & h->family) || !(r->pcps & h->pcp) || !(r->dscps & h->dscp))
		return 0;
	if (((h->protocol ^ r->protocol) & r->protocol_mask) ||
	    h->destination_port - r->destination_port > r->destination_ports ||
	    h->source_port - r->source_port > r->source_ports)
		return 0;
	if (h->vlan - r->vlan > r->vlans || ((h->ethertype ^ r->ethertype) & r->ethertype_mask))
		return 0;
	if (differs(h->source, r->source, r->source_mask) ||
	    differs(h->destination, r->destination, r->destination_mask))
		return 0;
	if (((h->source_mac ^ r->source_mac) & r->source_mac_mask) ||
	    ((h->destination_mac ^ r->destination_mac) & r->destination_mac_mask))
		return 0;
	found->rule = i;
	found->ways = r->ways;
	found->was = r->was;
	found->only = r->only;
	return 1;
}

static __always_inline __u64 mix(__u64 x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	return x ^ x >> 32;
}

/* The flow that a frame is of: addresses, protocol and ports, or what there is of them. */
static __always_inline __u64 flow_of(const struct headers *h)
{
	__u64 x;

	if (h->family == FAMILY_NONE)
		return mix(mix(h->source_mac) + h->destination_mac) + h->ethertype;
	x = mix(mix(h->source[0]) + h->source[1]);
	x = mix(mix(x + h->destination[0]) + h->destination[1]);
	return mix(x + h->protocol) + ((__u64)h->source_port << 32 | h->destination_port);
}

/* The way among some that weighs most for a flow: if one goes, its flows go to others,
 * and no others do.
 */
static __noinline __u32 heaviest(const struct steer *st, __u64 flow, __u32 ways)
{
	__u64 best = 0, weight;
	__u32 key = 0;

#pragma unroll
	for (int i = 0; i < MAX_WAYS; i++) {
		if (!(ways >> i & 1))
			continue;
		weight = mix(flow ^ st->way[i].seed) | 1;
		if (weight <= best)
			continue;
		best = weight;
		key = st->way[i].key;
	}
	return key;
}

/* The way of a flow that is to take the one with that key, while flows go over. */
static __noinline __u32 way_meanwhile(const struct steer *st, __u64 flow, __u64 change,
				      __u32 key, __u32 was)
{
	struct pausing_key k = {.flow = flow, .change = change};
	__u64 now = bpf_ktime_get_ns();
	struct pausing *p = bpf_map_lookup_elem(&pauses, &k);
	struct pausing first = {.last = now};

	if (!p) {
		first.way = heaviest(st, flow, was);
		if (!first.way || first.way == key)
			return key;
		bpf_map_update_elem(&pauses, &k, &first, BPF_ANY);
		return first.way;
	}
	if (now - p->last > FLOW_PAUSE || !(st->up >> (p->way & (MAX_WAYS - 1)) & 1))
		p->way = key;
	p->last = now;
	return p->way;
}

/* The key of the way that a frame of a steered pseudowire takes, or of the pseudowire; once
 * all flows have gone over, if that is what is asked for.
 */
__noinline int choose_way(struct __sk_buff *skb, __u32 device, __u32 settled)
{
	struct steer *st = bpf_map_lookup_elem(&steers, &device);
	struct scratch *s = scratch();
	struct search x;
	__u32 key;
	__u64 flow;

	if (!s)
		return device;
	s->steering.rule = NO_RULE;
	if (!st)
		return device;
	s->steering.ways = st->ways;
	s->steering.was = st->was;
	s->steering.only = st->only;
	if (read_headers(skb, &s->steering.headers, st->flags & STEER_POPPED))
		return device;
	x.steer = st;
	x.scratch = s;
	bpf_loop(st->count, try_rule, &x, 0);
	if (!st->until && s->steering.only)
		return s->steering.only;
	flow = flow_of(&s->steering.headers);
	key = heaviest(st, flow, s->steering.ways);
	if (!settled && st->until && bpf_ktime_get_ns() < st->until)
		key = way_meanwhile(st, flow, st->change + device, key,
				    s->steering.was);
	/* Lest another pseudowire's rules were read, that have taken the place of these. */
	return (key & ~WAY) >> WAY_SHIFT == device ? key : device;
}

#endif
