/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Headers as they stand on the wire, for what the kernel's own do not offer. */
#ifndef PWD_WIRE_H
#define PWD_WIRE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Makes the compiler keep a value in a register from here on, so that the verifier
 * sees the check and the use of one and the same: older ones lose track of copies.
 */
#define same_value(v) asm volatile("" : "+r"(v))

/* RFC 3931, Section 4.1.2.1: over UDP a data message begins with the T bit, here
 * 0, and the version, 3; the bits marked x and the reserved field are ignored.
 */
#define L2TP_T 0x8000
#define L2TP_T_AND_VERSION (L2TP_T | 0x000f)
#define L2TP_DATA_VERSION_3 0x0003

/* RFC 5085, Section 5.2: the V bit makes a packet one of the associated channel. */
#define L2TP_SUBLAYER_V 0x80000000
/* RFC 3931, Section 4.6: the S bit says that the sublayer has a sequence number. */
#define L2TP_SUBLAYER_S 0x40000000
#define L2TP_SUBLAYER_LEN 4
#define L2TP_NUMBER_MASK 0x00ffffff

/* The mark of frames whose first tag has come off before they get to the datapath (nsp.c):
 * that tag's priority bits are its last ones.
 */
#define POPPED 0x70770010
#define POPPED_MASK 0xfffffff8

struct l2tphdr {
	__be16 flags;
	__be16 reserved;
	__be32 session;
};

/* RFC 3931, Section 4.1.1: over IP there is the session ID alone. */
#define L2TP_IP_LEN 4

/* How many tags a frame may have. */
#define MAX_TAGS 4

struct vlan_tag {
	__be16 tpid;
	__be16 tci;
};

#define VLAN_VID_MASK 0x0fff
#define VLAN_PCP_SHIFT 13

#define IP4_DF 0x4000
#define IP4_MF 0x2000
#define IP4_OFFSET 0x1fff

/* RFC 8200, Section 4.5. */
struct ip6_fragment {
	__u8 nexthdr;
	__u8 reserved;
	__be16 frag_off;
	__be32 id;
};

#define IP6_MORE 0x0001

/* RFC 3168, Section 5: the ECN field, and how it stands in the second octet of an
 * IPv6 header.
 */
#define ECN_MASK 0x03
#define DSCP_MASK 0xfc
#define ECN_NOT_ECT 0
#define ECN_ECT_1 1
#define ECN_ECT_0 2
#define ECN_CE 3
#define IP6_ECN_SHIFT 4

/* From Ethernet, IPv4 and L2TP over IP alone to Ethernet, IPv6, UDP, L2TP with the
 * longest cookie and a sublayer.
 */
#define OUTER_MIN (ETH_HLEN + sizeof(struct iphdr) + L2TP_IP_LEN)
#define OUTER_MAX                                                                                  \
	(ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(struct udphdr) + sizeof(struct l2tphdr) + 8 +  \
	 L2TP_SUBLAYER_LEN)

/* What packets have over UDP with a cookie of 8 octets and no sublayer. */
#define OUTER_USUAL4                                                                               \
	(ETH_HLEN + sizeof(struct iphdr) + sizeof(struct udphdr) + sizeof(struct l2tphdr) + 8)
#define OUTER_USUAL6                                                                               \
	(ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(struct udphdr) + sizeof(struct l2tphdr) + 8)

/* Octets of packets that are read and written together wherever they are: what the compiler
 * knows no alignment of it takes one by one. No kernel that insists on alignment takes the
 * programs anyway.
 */
typedef __u64 __attribute__((may_alias)) eight_octets;
typedef __u32 __attribute__((may_alias)) four_octets;
typedef __u16 __attribute__((may_alias)) two_octets;

static __always_inline __u64 first_eight(const void *octets)
{
	return *(const eight_octets *)octets;
}

static __always_inline __u32 first_four(const void *octets)
{
	return *(const four_octets *)octets;
}

static __always_inline void copy_ethernet(void *to, const void *from)
{
	*(eight_octets *)to = *(const eight_octets *)from;
	*(four_octets *)(to + 8) = *(const four_octets *)(from + 8);
	*(two_octets *)(to + 12) = *(const two_octets *)(from + 12);
}

static __always_inline int is_ip(__be16 ethertype)
{
	return ethertype == bpf_htons(ETH_P_IP) || ethertype == bpf_htons(ETH_P_IPV6);
}

static __always_inline int is_tag(__be16 ethertype)
{
	return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
}

/* Moves the frame's first tag into the metadata, where it does not count for the
 * length that a device takes. Popping a tag does so with the next one, if the skb
 * is of that tag's protocol: which it is once a tag of no meaning was there.
 */
static __always_inline int lift_tag(struct __sk_buff *skb)
{
	return bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), 1) ||
	       bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), 1) || bpf_skb_vlan_pop(skb) ||
	       bpf_skb_vlan_pop(skb);
}

/* Makes the first octets of a packet readable in place, if it has as many; the
 * caller looks at data_end all the same. Offsets into them have to be constants:
 * without CAP_PERFMON the verifier takes no others, and what is somewhere else is
 * loaded by a helper.
 */
static __always_inline void pull(struct __sk_buff *skb, __u32 len)
{
	if ((void *)(long)skb->data + len > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, skb->len < len ? skb->len : len);
}

#endif
