/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The MSS clamp: a TCP connection through the pseudowire agrees on segments that
 * fit the underlay (RFC 4459, Section 3.5; RFC 9293, Section 3.7.1).
 */
#ifndef PWD_MSS_H
#define PWD_MSS_H

#include "wire.h"

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
	struct tcphdr tcp;
	struct option opt = {};
	__u32 at, l4, end, limit;

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

	at = l4 + sizeof(tcp);
	end = l4 + tcp.doff * 4;
	for (int i = 0; i < TCP_OPTIONS_MAX && at + 1 < end; i++) {
		if (bpf_skb_load_bytes(skb, at, &opt, 2) || opt.kind == TCPOPT_END)
			return 0;
		if (opt.kind == TCPOPT_NOP) {
			at++;
			continue;
		}
		if (opt.len < 2)
			return 0;
		if (opt.kind == TCPOPT_MSS) {
			if (opt.len != TCPOLEN_MSS || at + TCPOLEN_MSS > end ||
			    bpf_skb_load_bytes(skb, at, &opt, TCPOLEN_MSS))
				return 0;
			if (bpf_ntohs(opt.mss) > limit)
				write_mss(skb, l4, at + offsetof(struct option, mss), opt.mss,
					  bpf_htons(limit));
			return 0;
		}
		at += opt.len;
	}
	return 0;
}

#endif
