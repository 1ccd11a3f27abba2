/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* How many octets a tunnel's packet has on the wire, at the egress of its underlay, where it
 * may still be several segments (GSO). Each of them gets all headers. What the kernel reckons
 * (wire_len) has them to the outer ones alone: before Linux 6.17 it does not look into a tunnel.
 */
#ifndef PWD_OCTETS_H
#define PWD_OCTETS_H

#include "wire.h"

union ip {
	struct iphdr ip4;
	struct ipv6hdr ip6;
};

static __always_inline int load_ip(struct __sk_buff *skb, __u32 at, void *to, __u32 len)
{
	return bpf_skb_load_bytes_relative(skb, at, to, len, BPF_HDR_START_NET);
}

/* Says how many octets there are from the outer IP header to the payload of the first segment,
 * if the frame begins there: that of an IP packet which goes to where the outer one ends. 0
 * says that it does not. Such a frame has one tag at most, and plain headers (plan_segments).
 * Both functions are looked at by the verifier on their own.
 */
__noinline __u32 headers_of(struct __sk_buff *skb, __u32 frame, __u32 outer_len)
{
	__u32 at = frame + 2 * ETH_ALEN, end;
	struct tcphdr tcp;
	__be16 ethertype;
	__u8 protocol;
	union ip ip;

	if (load_ip(skb, at, &ethertype, sizeof(ethertype)))
		return 0;
	if (is_tag(ethertype)) {
		at += sizeof(struct vlan_tag);
		if (load_ip(skb, at, &ethertype, sizeof(ethertype)))
			return 0;
	}
	at += sizeof(ethertype);
	if (ethertype == bpf_htons(ETH_P_IP)) {
		if (load_ip(skb, at, &ip.ip4, sizeof(ip.ip4)))
			return 0;
		end = at + bpf_ntohs(ip.ip4.tot_len);
		at += ip.ip4.ihl * 4;
		protocol = ip.ip4.protocol;
	} else if (ethertype == bpf_htons(ETH_P_IPV6)) {
		if (load_ip(skb, at, &ip.ip6, sizeof(ip.ip6)))
			return 0;
		at += sizeof(ip.ip6);
		end = at + bpf_ntohs(ip.ip6.payload_len);
		protocol = ip.ip6.nexthdr;
	} else {
		return 0;
	}
	/* The outer length is of 16 bits, and may have come round. */
	if ((end ^ outer_len) & 0xffff)
		return 0;
	if (protocol == IPPROTO_UDP)
		return at + sizeof(struct udphdr);
	if (protocol != IPPROTO_TCP || load_ip(skb, at, &tcp, sizeof(tcp)))
		return 0;
	return at + tcp.doff * 4;
}

__noinline __u64 wire_octets(struct __sk_buff *skb)
{
	__u32 size = skb->gso_size, at, len, headers = 0;
	__u8 protocol;
	union ip ip;

	if (!size)
		return skb->len;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (load_ip(skb, 0, &ip.ip4, sizeof(ip.ip4)))
			return skb->wire_len;
		at = ip.ip4.ihl * 4;
		len = bpf_ntohs(ip.ip4.tot_len);
		protocol = ip.ip4.protocol;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (load_ip(skb, 0, &ip.ip6, sizeof(ip.ip6)))
			return skb->wire_len;
		at = sizeof(ip.ip6);
		len = at + bpf_ntohs(ip.ip6.payload_len);
		protocol = ip.ip6.nexthdr;
	} else {
		return skb->wire_len;
	}
	at += protocol == IPPROTO_UDP ? sizeof(struct udphdr) + sizeof(struct l2tphdr) : L2TP_IP_LEN;
	/* Only the session knows how long the cookie is, and whether there is a sublayer. */
#pragma unroll
	for (int i = 0; i < 4; i++)
		if (!headers)
			headers = headers_of(skb, at + 4 * i, len);
	if (!headers)
		return skb->wire_len;
	headers += (skb->len - len) & 0xffff; /* the link's */
	if (headers >= skb->len)
		return skb->wire_len;
	return skb->len + (__u64)((skb->len - headers - 1) / size) * headers;
}

#endif
