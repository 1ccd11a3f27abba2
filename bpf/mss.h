/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The MSS clamp: a TCP connection through the pseudowire agrees on segments that
 * fit the underlay (RFC 4459, Section 3.5; RFC 9293, Section 3.7.1).
 */
#ifndef PWD_MSS_H
#define PWD_MSS_H

#include "maps.h"

#define TCPOPT_END 0
#define TCPOPT_NOP 1
#define TCPOPT_MSS 2
#define TCPOLEN_MSS 4
#define TCP_OPTIONS_MAX 40
/* Less than this is nobody's wish: RFC 9293's least MTU of 68, headers taken off. */
#define MSS_LEAST 28

struct option {
	__u8 kind;
	__u8 len;
	__be16 mss;
};

/* RFC 1624, with what the skb knows: a checksum that the sender left to the
 * device covers the pseudo header alone, and bpf_l4_csum_replace leaves it so.
 */
static __always_inline void write_mss(struct __sk_buff *skb, __u32 tcp, __u32 at, __be16 from,
				      __be16 to)
{
	__u16 was = from, is = to;

	if (bpf_skb_store_bytes(skb, at, &to, sizeof(to), 0))
		return;
	/* In the sum, a word at an odd offset counts with its octets swapped. */
	if ((at - tcp) & 1) {
		was = __builtin_bswap16(was);
		is = __builtin_bswap16(is);
	}
	bpf_l4_csum_replace(skb, tcp + offsetof(struct tcphdr, check), was, is, sizeof(is));
}

#define TCP_SYN 0x02

/* Says whether a frame of that EtherType may be a SYN: a quick look that spares all
 * others a thorough one.
 */
static __always_inline int may_be_syn(struct __sk_buff *skb, __be16 ethertype)
{
	const __u8 *b = (const __u8 *)(long)skb->data;
	const __u8 *end = (const __u8 *)(long)skb->data_end;
	const __u32 tcp4 = ETH_HLEN + sizeof(struct iphdr);
	const __u32 tcp6 = ETH_HLEN + sizeof(struct ipv6hdr);

	if (ethertype == bpf_htons(ETH_P_IP)) {
		if (b + tcp4 + sizeof(struct tcphdr) > end)
			return skb->len >= tcp4 + sizeof(struct tcphdr);
		return b[ETH_HLEN + offsetof(struct iphdr, protocol)] == IPPROTO_TCP &&
		       (b[ETH_HLEN] != 0x45 || (b[tcp4 + 13] & TCP_SYN));
	}
	if (ethertype == bpf_htons(ETH_P_IPV6)) {
		if (b + tcp6 + sizeof(struct tcphdr) > end)
			return skb->len >= tcp6 + sizeof(struct tcphdr);
		return b[ETH_HLEN + offsetof(struct ipv6hdr, nexthdr)] == IPPROTO_TCP &&
		       (b[tcp6 + 13] & TCP_SYN);
	}
	return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
}

struct segment {
	struct __sk_buff *skb;
};

/* Looks at one option; 1 ends the walk. */
static long clamp_option(__u32 i, struct segment *segment)
{
	struct scratch *s = scratch();
	struct option opt = {};
	__u32 at;

	if (!s)
		return 1;
	at = s->options.at;
	if (at + 1 >= s->options.end || bpf_skb_load_bytes(segment->skb, at, &opt, 2) ||
	    opt.kind == TCPOPT_END)
		return 1;
	if (opt.kind == TCPOPT_NOP) {
		s->options.at = at + 1;
		return 0;
	}
	if (opt.len < 2)
		return 1;
	if (opt.kind != TCPOPT_MSS) {
		s->options.at = at + opt.len;
		return 0;
	}
	if (opt.len == TCPOLEN_MSS && at + TCPOLEN_MSS <= s->options.end &&
	    !bpf_skb_load_bytes(segment->skb, at, &opt, TCPOLEN_MSS) &&
	    bpf_ntohs(opt.mss) > s->options.limit)
		write_mss(segment->skb, s->options.tcp, at + offsetof(struct option, mss), opt.mss,
			  bpf_htons(s->options.limit));
	return 1;
}

/* Lowers the MSS of a SYN whose IP header of the given EtherType is at l3, so
 * that its packets have no more than room octets. Anything else it leaves alone.
 *
 * Not static, so that the verifier looks at it once and not at every call.
 */
__noinline int clamp_mss(struct __sk_buff *skb, __u32 l3, __u32 ethertype, __u32 room)
{
	union {
		struct iphdr ip4;
		struct ipv6hdr ip6;
	} ip;
	struct segment segment = {.skb = skb};
	struct scratch *s = scratch();
	struct tcphdr tcp;
	__u32 l4, limit;

	if (ethertype == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, l3, &ip.ip4, sizeof(ip.ip4)))
			return 0;
		if (ip.ip4.protocol != IPPROTO_TCP || (ip.ip4.frag_off & bpf_htons(IP4_OFFSET)))
			return 0;
		l4 = l3 + ip.ip4.ihl * 4;
		room -= sizeof(ip.ip4);
	} else if (ethertype == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, l3, &ip.ip6, sizeof(ip.ip6)))
			return 0;
		if (ip.ip6.nexthdr != IPPROTO_TCP)
			return 0;
		l4 = l3 + sizeof(ip.ip6);
		room -= sizeof(ip.ip6);
	} else {
		return 0;
	}
	if (bpf_skb_load_bytes(skb, l4, &tcp, sizeof(tcp)) || !tcp.syn)
		return 0;
	limit = room - sizeof(tcp);
	if (limit < MSS_LEAST || limit > 0xffff)
		return 0;
	if (!s)
		return 0;
	s->options.limit = limit;
	s->options.tcp = l4;
	s->options.at = l4 + sizeof(tcp);
	s->options.end = l4 + tcp.doff * 4;
	bpf_loop(TCP_OPTIONS_MAX, clamp_option, &segment, 0);
	return 0;
}

#endif
