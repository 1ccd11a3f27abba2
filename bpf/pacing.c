// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

//go:build ignore

/* Earliest departure times: a tunnel's packets leave an underlay one after the other at
 * the rate of its ceiling, each at a time that it is given here, at the egress of the
 * underlay, and that the qdisc fq keeps. A packet says which tunnel's it is by
 * skb->priority, so that both datapaths can have it. The time is set at the last place
 * before the qdisc: a redirect clears it.
 */
#include "octets.h"

#define TC_PRIO_CONTROL 7

#define CLASS_SHIFT 4 /* of a class's number in skb->priority (package qos) */
#define CLASS_MAJOR 0x70640000
#define CLASS_MASK 0xffff0000
#define CLASSES 8192 /* 4096, and as many that go from one interface to another */

#define SECOND_OCTETS 8000000000ULL /* nanoseconds that an octet takes at 1 bit/s */

/* DSCP CS6 (RFC 2474, Section 4.2.2), what L2TP's control messages have. */
#define TOS_CONTROL 0xc0

/* A class of one interface: a packet may leave through several, one over the other, and
 * its tunnel is in the class of one of them.
 */
struct pace_key {
	__u32 ifindex;
	__u32 number; /* the class's */
};

struct pace {
	__u64 rate;    /* bits a second */
	__u64 horizon; /* nanoseconds that a packet may wait */
	__u64 mark;    /* those from which on it gets a congestion mark */
};

struct departures {
	__u64 next; /* when the next packet may leave, CLOCK_MONOTONIC in nanoseconds */
	__u64 octets;
	__u64 frames;
	__u64 full; /* packets that would have had to wait for too long */
	__u64 marked;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CLASSES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct pace_key);
	__type(value, struct pace);
} paces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CLASSES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct pace_key);
	__type(value, struct departures);
} clocks SEC(".maps");

/* RFC 3931, Sections 3.2.1 and 4.1.2.1: the T bit over UDP, session 0 over IP. */
static __always_inline int is_control_payload(struct __sk_buff *skb, __u32 at, __u8 protocol)
{
	__be16 flags;
	__be32 session;

	if (protocol == IPPROTO_UDP)
		return !load_ip(skb, at + sizeof(struct udphdr), &flags, sizeof(flags)) &&
		       (bpf_ntohs(flags) & L2TP_T_AND_VERSION) == (L2TP_T | L2TP_DATA_VERSION_3);
	return protocol == IPPROTO_L2TP &&
	       !load_ip(skb, at, &session, sizeof(session)) && !session;
}

/* fq has one queue for what comes from one socket, and sends nothing of it before its
 * first packet may leave. On the kernel's datapath control messages come from the socket
 * of the data.
 */
static __always_inline int is_control(struct __sk_buff *skb)
{
	union ip ip;

	if (skb->protocol == bpf_htons(ETH_P_IP))
		return !load_ip(skb, 0, &ip.ip4, sizeof(ip.ip4)) &&
		       (ip.ip4.tos & DSCP_MASK) == TOS_CONTROL &&
		       !(ip.ip4.frag_off & bpf_htons(IP4_OFFSET)) &&
		       is_control_payload(skb, ip.ip4.ihl * 4, ip.ip4.protocol);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return !load_ip(skb, 0, &ip.ip6, sizeof(ip.ip6)) &&
		       (bpf_ntohs(*(__be16 *)&ip.ip6) >> 4 & DSCP_MASK) == TOS_CONTROL &&
		       is_control_payload(skb, sizeof(ip.ip6), ip.ip6.nexthdr);
	return 0;
}

static __always_inline void count(__u64 *counter, __u64 more)
{
	__sync_fetch_and_add(counter, more);
}

SEC("tc")
int pwd_depart(struct __sk_buff *skb)
{
	__u32 class = skb->priority;
	struct pace_key key = {
		.ifindex = skb->ifindex,
		.number = (class & ~CLASS_MASK) >> CLASS_SHIFT,
	};
	struct departures *d;
	struct pace *p;
	__u64 now, next, octets;

	if ((class & CLASS_MASK) != CLASS_MAJOR) {
		/* They are sockets' of this host: what others send through it only looks so. */
		if (skb->sk && is_control(skb))
			skb->priority = TC_PRIO_CONTROL; /* fq sends these first, at once */
		return TC_ACT_UNSPEC;
	}
	p = bpf_map_lookup_elem(&paces, &key);
	d = bpf_map_lookup_elem(&clocks, &key);
	if (!p || !d || !p->rate)
		return TC_ACT_UNSPEC;

	now = bpf_ktime_get_ns();
	next = d->next;
	if (next < now) {
		/* Of several CPUs one sets it, and all add to it. */
		__sync_val_compare_and_swap(&d->next, next, now);
	} else if (next - now > p->horizon) {
		count(&d->full, 1);
		return TC_ACT_SHOT;
	}
	octets = wire_octets(skb);
	next = __sync_fetch_and_add(&d->next, octets * SECOND_OCTETS / p->rate);
	if (next < now)
		next = now;
	count(&d->frames, 1);
	count(&d->octets, octets);
	skb->tstamp = next;
	/* A queue of its own in fq: nobody else's packets wait with these. */
	bpf_set_hash(skb, class);
	/* RFC 3168, Section 5: only where the outer header says that its ends know of it. */
	if (next - now > p->mark && bpf_skb_ecn_set_ce(skb))
		count(&d->marked, 1);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
