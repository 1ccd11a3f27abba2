/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Explicit congestion notification through the pseudowire, between LCCEs that have
 * agreed on it (RFC 9601): what the PSN marks in the outer header concerns the IP
 * packet inside (RFC 6040).
 */
#ifndef PWD_ECN_H
#define PWD_ECN_H

#include "maps.h"

/* The DSCP and the ECN field of the IP header behind the Ethernet header of a frame
 * without tags, as in IPv4's octet. What is not IP has DSCP 0, and is not capable of ECN.
 */
static __always_inline __u32 tos_inside(struct __sk_buff *skb, __be16 ethertype)
{
	const __u8 *at = (const __u8 *)(long)skb->data + ETH_HLEN;
	__u32 first, second;
	__u8 b[2];

	if (!is_ip(ethertype))
		return 0;
	if (at + sizeof(b) <= (const __u8 *)(long)skb->data_end) {
		first = at[0];
		second = at[1];
	} else {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, b, sizeof(b)))
			return 0;
		first = b[0];
		second = b[1];
	}
	return ethertype == bpf_htons(ETH_P_IP) ? second
						: (first & 0x0f) << 4 | second >> IP6_ECN_SHIFT;
}

/* Writes the ECN field of the IP header at l3, whose first two octets are b. */
static __always_inline int write_ecn(struct __sk_buff *skb, __u32 l3, __be16 ethertype,
				     const __u8 *b, __u8 ecn)
{
	__u8 octet;

	if (ethertype == bpf_htons(ETH_P_IPV6)) {
		octet = (b[1] & ~(ECN_MASK << IP6_ECN_SHIFT)) | ecn << IP6_ECN_SHIFT;
		return bpf_skb_store_bytes(skb, l3 + 1, &octet, 1, BPF_F_RECOMPUTE_CSUM);
	}
	octet = (b[1] & ~ECN_MASK) | ecn;
	/* The header's sum stays what it was, and so does that of all octets. */
	if (bpf_l3_csum_replace(skb, l3 + offsetof(struct iphdr, check),
				bpf_htons(b[0] << 8 | b[1]), bpf_htons(b[0] << 8 | octet),
				sizeof(__be16)))
		return -1;
	return bpf_skb_store_bytes(skb, l3 + 1, &octet, 1, 0);
}

/* RFC 6040, Section 4.2: brings the ECN field of the outer header, which is not 00,
 * into the frame at the start of the skb. 1 says that the frame is to be dropped:
 * who sent it would not understand the mark.
 */
__noinline int merge_ecn(struct __sk_buff *skb, __u32 outer)
{
	__be16 ethertype = 0, tag[2];
	__u32 l3 = ETH_HLEN;
	__u8 b[2], inner;

	if (bpf_skb_load_bytes(skb, l3 - 2, &ethertype, sizeof(ethertype)))
		return 0;
#pragma unroll
	for (int i = 0; i < MAX_TAGS; i++) {
		if (!is_tag(ethertype))
			break;
		if (bpf_skb_load_bytes(skb, l3, tag, sizeof(tag)))
			return 0;
		ethertype = tag[1];
		l3 += sizeof(tag);
	}
	if (!is_ip(ethertype) || bpf_skb_load_bytes(skb, l3, b, sizeof(b)))
		return outer == ECN_CE;
	inner = (ethertype == bpf_htons(ETH_P_IP) ? b[1] : b[1] >> IP6_ECN_SHIFT) & ECN_MASK;
	if (inner == ECN_NOT_ECT)
		return outer == ECN_CE;
	if (inner != ECN_CE && (outer == ECN_CE || outer == ECN_ECT_1) && inner != outer)
		write_ecn(skb, l3, ethertype, b, outer);
	return 0;
}

#endif
