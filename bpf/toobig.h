/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What a sender is told whose packet does not fit a tunnel that is not to fragment: an
 * ICMP error from the packet's own destination, as the kernel's tunnels send to those
 * behind a bridge (RFC 1191, Section 4; RFC 8201, Section 3), for nobody on the way has
 * an address there: IP and Ethernet addresses are the frame's own, turned round. It goes
 * back where the frame came from, so a sender on this host or behind the bridge gets it.
 */
#ifndef PWD_TOOBIG_H
#define PWD_TOOBIG_H

#include "encap.h"

/* How much of the packet is quoted: with 8 octets of ICMP header it is what one call of
 * the helper adds up. Linux and others want no more than that of the packet's headers.
 */
#define QUOTE_LEN 504

/* Answers for each pseudowire: one every 10 ms, 50 in a row. */
#define ANSWER_INTERVAL 10000000ULL
#define ANSWER_BURST (50 * ANSWER_INTERVAL)

/* When the answers sent so far would all have had their turn. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_PSEUDOWIRES);
	__type(key, __u32); /* as of pseudowires */
	__type(value, __u64);
} answers SEC(".maps");

struct icmp_error {
	__u8 type;
	__u8 code;
	__be16 check;
	__be32 mtu;
};

/* The answer, from its Ethernet header on; what is before that has the words behind it
 * where words are to be.
 */
struct answer4 {
	__be16 unused;
	struct ethhdr eth;
	struct iphdr ip;
	struct icmp_error icmp;
	__u8 quote[QUOTE_LEN];
};

struct answer6 {
	__be16 unused;
	struct ethhdr eth;
	struct ipv6hdr ip;
	struct icmp_error icmp;
	__u8 quote[QUOTE_LEN];
};

#define ICMP_UNREACHABLE 3
#define ICMP_FRAGMENTATION_NEEDED 4
#define ICMPV6_TOO_BIG 2
#define ICMPV6_INFORMATIONAL 0x80
#define IPV6_LEAST_MTU 1280
#define IPV4_LEAST_MTU 576
#define PRECEDENCE_CONTROL 0xc0 /* RFC 1812, Section 4.3.2.5 */

static __always_inline int may_answer(__u32 device)
{
	__u64 now = bpf_ktime_get_ns(), next = now + ANSWER_INTERVAL;
	__u64 *until = bpf_map_lookup_elem(&answers, &device);

	if (!until)
		return !bpf_map_update_elem(&answers, &device, &next, BPF_ANY);
	if (*until > now + ANSWER_BURST)
		return 0;
	*until = (*until > now ? *until : now) + ANSWER_INTERVAL;
	return 1;
}

/* Reads the addresses of the frame's Ethernet header, the other way round. */
static __always_inline int turn_round(struct __sk_buff *skb, struct ethhdr *eth)
{
	if (bpf_skb_load_bytes(skb, 0, eth->h_source, ETH_ALEN) ||
	    bpf_skb_load_bytes(skb, ETH_ALEN, eth->h_dest, ETH_ALEN))
		return -1;
	/* An answer comes from somebody, and goes to one. */
	return (eth->h_source[0] | eth->h_dest[0]) & 1 ? -1 : 0;
}

static __always_inline int write_answer(struct __sk_buff *skb, const struct ethhdr *answer,
					__u32 len)
{
	if (bpf_skb_change_tail(skb, len, 0))
		return -1;
	return bpf_skb_store_bytes(skb, 0, answer, len, 0);
}

/* RFC 1122, Section 3.2.2: no error is sent about one, nor about what is not from or not
 * to a host, nor about any fragment but the first.
 */
static __always_inline int answer_ip4(struct __sk_buff *skb, struct answer4 *a, __u32 mtu)
{
	struct iphdr *ip = (struct iphdr *)a->quote;
	__u8 first, last, type;
	__s64 sum;

	if (mtu < IPV4_LEAST_MTU || turn_round(skb, &a->eth) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, a->quote, QUOTE_LEN))
		return -1;
	if (ip->version != 4 || ip->ihl < 5 ||
	    (ip->frag_off & bpf_htons(IP4_DF | IP4_OFFSET)) != bpf_htons(IP4_DF))
		return -1;
	first = *(__u8 *)&ip->saddr;
	last = *(__u8 *)&ip->daddr;
	if (first == 0 || first == 127 || first >= 224 || last == 0 || last >= 224)
		return -1;
	if (ip->protocol == IPPROTO_ICMP) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + ip->ihl * 4, &type, sizeof(type)))
			return -1;
		if ((type >= 3 && type <= 5) || type == 11 || type == 12)
			return -1;
	}

	a->eth.h_proto = bpf_htons(ETH_P_IP);
	a->ip.version = 4;
	a->ip.ihl = sizeof(a->ip) / 4;
	a->ip.tos = PRECEDENCE_CONTROL;
	a->ip.tot_len = bpf_htons(sizeof(a->ip) + sizeof(a->icmp) + QUOTE_LEN);
	a->ip.id = 0;
	a->ip.frag_off = bpf_htons(IP4_DF);
	a->ip.ttl = 64;
	a->ip.protocol = IPPROTO_ICMP;
	a->ip.check = 0;
	a->ip.saddr = ip->daddr;
	a->ip.daddr = ip->saddr;
	sum = bpf_csum_diff(0, 0, (__be32 *)&a->ip, sizeof(a->ip), 0);
	if (sum < 0)
		return -1;
	a->ip.check = ~fold(sum);
	a->icmp.type = ICMP_UNREACHABLE;
	a->icmp.code = ICMP_FRAGMENTATION_NEEDED;
	a->icmp.check = 0;
	a->icmp.mtu = bpf_htonl(mtu);
	sum = bpf_csum_diff(0, 0, (__be32 *)&a->icmp, sizeof(a->icmp) + QUOTE_LEN, 0);
	if (sum < 0)
		return -1;
	a->icmp.check = ~fold(sum);
	return write_answer(skb, &a->eth, sizeof(*a) - offsetof(typeof(*a), eth));
}

/* RFC 4443, Section 2.4 (e.6): the unspecified address and multicast ones are nobody's;
 * the loopback one is not to be on a wire (RFC 4291, Section 2.5.3).
 */
static __always_inline int is_answerable_ip6(const struct in6_addr *source)
{
	const __be32 *words = source->in6_u.u6_addr32;

	if (!words[0] && !words[1] && !words[2] && !(words[3] & ~bpf_htonl(1)))
		return 0;
	return source->in6_u.u6_addr8[0] != 0xff;
}

/* RFC 4443, Section 2.4 (e). What is behind extension headers is not looked for. A
 * multicast destination would be answered, by a router that has an address; here there
 * is none to answer from.
 */
static __always_inline int answer_ip6(struct __sk_buff *skb, struct answer6 *a, __u32 mtu)
{
	struct ipv6hdr *ip = (struct ipv6hdr *)a->quote;
	__be32 rest[2] = {bpf_htonl(sizeof(a->icmp) + QUOTE_LEN), bpf_htonl(IPPROTO_ICMPV6)};
	__s64 sum;

	if (mtu < IPV6_LEAST_MTU || turn_round(skb, &a->eth) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, a->quote, QUOTE_LEN))
		return -1;
	if (ip->version != 6 || !is_answerable_ip6(&ip->saddr) || ip->daddr.in6_u.u6_addr8[0] == 0xff)
		return -1;
	if (ip->nexthdr == IPPROTO_ICMPV6 && !(a->quote[sizeof(*ip)] & ICMPV6_INFORMATIONAL))
		return -1;

	a->eth.h_proto = bpf_htons(ETH_P_IPV6);
	__builtin_memset(&a->ip, 0, offsetof(struct ipv6hdr, saddr));
	a->ip.version = 6;
	a->ip.priority = PRECEDENCE_CONTROL >> 4;
	a->ip.payload_len = bpf_htons(sizeof(a->icmp) + QUOTE_LEN);
	a->ip.nexthdr = IPPROTO_ICMPV6;
	a->ip.hop_limit = 64;
	a->ip.saddr = ip->daddr;
	a->ip.daddr = ip->saddr;
	a->icmp.type = ICMPV6_TOO_BIG;
	a->icmp.code = 0;
	a->icmp.check = 0;
	a->icmp.mtu = bpf_htonl(mtu);
	sum = bpf_csum_diff(0, 0, (__be32 *)&a->ip.saddr, 2 * sizeof(a->ip.saddr), 0);
	if (sum < 0)
		return -1;
	sum = bpf_csum_diff(0, 0, rest, sizeof(rest), sum);
	if (sum < 0)
		return -1;
	sum = bpf_csum_diff(0, 0, (__be32 *)&a->icmp, sizeof(a->icmp) + QUOTE_LEN, sum);
	if (sum < 0)
		return -1;
	a->icmp.check = ~fold(sum);
	return write_answer(skb, &a->eth, sizeof(*a) - offsetof(typeof(*a), eth));
}

/* Makes the skb the answer, its tag in the metadata as it was. */
__noinline int write_too_big(struct __sk_buff *skb, __u32 mtu)
{
	struct scratch *s = scratch();

	if (!s)
		return -1;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return answer_ip4(skb, (struct answer4 *)s->payload, mtu);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return answer_ip6(skb, (struct answer6 *)s->payload, mtu);
	return -1;
}

/* The octets that a tag in the metadata adds to what is carried. */
static __always_inline __u32 own_tag(struct __sk_buff *skb, const struct transmit *tx)
{
	__u32 present = skb->vlan_present;

	same_value(present);
	return present && !takes_vlan_off(tx) ? sizeof(struct vlan_tag) : 0;
}

static __always_inline int is_oversize(struct __sk_buff *skb, const struct transmit *tx)
{
	return outer_ip_len(tx, skb->len + own_tag(skb, tx)) > tx->mtu;
}

/* Drops a frame that fits no packet, counted, or sends it back as an answer. */
static __always_inline int refuse_oversize(struct __sk_buff *skb, const struct transmit *tx,
					   __u32 device)
{
	count(tx->session, OVERSIZE);
	if (!may_answer(device) || write_too_big(skb, tx->room - own_tag(skb, tx)))
		return TC_ACT_SHOT;
	skb->mark = 0;
	return bpf_redirect(tx->device, 0);
}

#endif
