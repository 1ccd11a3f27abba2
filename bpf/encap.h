/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Frames into the pseudowire: they come in at the outer end of its veth pair and
 * leave, with outer headers, through the underlay.
 *
 * A frame arrives with its outermost tag in the skb's metadata. It belongs into
 * the L2TP payload: what is left in the metadata would go on the outer packet. So
 * all tags are taken off and written into the new inner Ethernet header.
 *
 * What a program cannot do goes through the slow lane, a veth pair without
 * offloads: the kernel finishes checksums and cuts segments on the way in, and
 * the frames come out as on a wire, at fragment (lane.h).
 */
#ifndef PWD_ENCAP_H
#define PWD_ENCAP_H

#include "ecn.h"
#include "maps.h"
#include "mss.h"
#include "order.h"
#include "steer.h"

/* Segments of less than this are not worth cutting: rather fragments. */
#define LEAST_SEGMENT 256

/* The Ethernet header of a frame whose tags have been taken off, and what its packet gets
 * beside the DSCP of all, as in IPv4's octet: the ECN field, and the DSCP if that depends
 * on the frame. A tag is in the first octets of a word, as on the wire, and
 * what else is written twice is a word, for the reason given at struct scratch.
 */
struct inner {
	__u64 tags[MAX_TAGS];
	__u64 tags_len;
	__u64 tos;
	__u8 addresses[2 * ETH_ALEN];
	__be16 ethertype; /* right behind them, as in a frame without tags */
	__u16 pad;
};

#define INNER_LEN (2 * ETH_ALEN + sizeof(__be16))

/* 802.1Q, Section 9.6: VID 0 is a priority tag, the frame belongs to no VLAN. */
static __always_inline int tagged_for(struct __sk_buff *skb, const struct transmit *tx)
{
	return skb->vlan_present && skb->vlan_proto == bpf_htons(ETH_P_8021Q) &&
	       (skb->vlan_tci & VLAN_VID_MASK) == tx->vlan;
}

/* The tag that says which frames are the pseudowire's comes off, unless it is part
 * of what the pseudowire carries.
 */
static __always_inline int takes_vlan_off(const struct transmit *tx)
{
	return tx->vlan && !(tx->flags & TX_KEEP_TAG);
}

static __always_inline int to_lane(struct __sk_buff *skb, const struct transmit *tx, __u32 device)
{
	skb->mark = device | (skb->cb[0] & 7) << LANE_PCP_SHIFT;
	return bpf_redirect(tx->lane, 0);
}

/* Takes all tags off. The kernel moves each next tag of the frame into the
 * metadata as the one before it goes.
 */
static __always_inline int take_tags(struct __sk_buff *skb, struct inner *inner)
{
#pragma unroll
	for (int i = 0; i < MAX_TAGS; i++) {
		if (!skb->vlan_present)
			break;
		inner->tags[i] = bpf_cpu_to_be64((__u64)bpf_ntohs(skb->vlan_proto) << 48 |
						 (__u64)skb->vlan_tci << 32);
		inner->tags_len += sizeof(struct vlan_tag);
		if (bpf_skb_vlan_pop(skb))
			return -1;
	}
	return skb->vlan_present ? -1 : 0;
}

static __always_inline int read_inner(struct __sk_buff *skb, struct inner *inner)
{
	const __u8 *frame = (const __u8 *)(long)skb->data;
	__u64 *words = (__u64 *)inner->addresses;

	/* As words, and what is behind them with them: see struct inner. */
	if (frame + 2 * sizeof(*words) > (const __u8 *)(long)skb->data_end)
		return bpf_skb_load_bytes(skb, 0, inner->addresses, INNER_LEN);
	words[0] = first_eight(frame);
	words[1] = first_eight(frame + sizeof(*words));
	return 0;
}

/* This and store_headers are functions of their own for the verifier, who looks at them once. */
__noinline int load_inner(struct __sk_buff *skb, const struct transmit *tx, struct inner *inner)
{
	if (!tx || !inner || read_inner(skb, inner))
		return -1;
	/* RFC 6040, Section 4.1, normal mode. */
	if (tx->flags & (TX_ECN | TX_COPY_DSCP))
		inner->tos = tos_inside(skb, inner->ethertype) &
			     ((tx->flags & TX_ECN ? ECN_MASK : 0) |
			      (tx->flags & TX_COPY_DSCP ? DSCP_MASK : 0));
	if (tx->flags & TX_MAP_PCP)
		inner->tos |= tx->dscp >> (8 * (skb->cb[0] & 7)) & DSCP_MASK;
	return 0;
}

/* Writes the inner Ethernet header, tags included, at the given offset. */
static __always_inline int store_inner(struct __sk_buff *skb, __u32 at, const struct inner *inner)
{
	if (!inner->tags_len)
		return bpf_skb_store_bytes(skb, at, inner->addresses, INNER_LEN, 0);
	if (bpf_skb_store_bytes(skb, at, inner->addresses, sizeof(inner->addresses), 0))
		return -1;
	at += sizeof(inner->addresses);
#pragma unroll
	for (int i = 0; i < MAX_TAGS; i++) {
		if (i * sizeof(struct vlan_tag) >= inner->tags_len)
			break;
		if (bpf_skb_store_bytes(skb, at, &inner->tags[i], sizeof(struct vlan_tag), 0))
			return -1;
		at += sizeof(struct vlan_tag);
	}
	return bpf_skb_store_bytes(skb, at, &inner->ethertype, sizeof(inner->ethertype), 0);
}

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* The length of the outer packet around a frame of that many octets. */
static __always_inline __u32 outer_ip_len(const struct transmit *tx, __u32 frame)
{
	return tx->outer_len - ETH_HLEN + frame;
}

/* The outer headers as they are in struct transmit, on the stack. */
union outer {
	__u64 words[11];
	struct {
		struct ethhdr eth;
		union {
			struct {
				struct iphdr ip4;
				struct udphdr udp4;
			} __attribute__((packed));
			struct {
				struct ipv6hdr ip6;
				struct udphdr udp6;
			} __attribute__((packed));
		};
	} __attribute__((packed));
};

/* Writes what depends on the frame into the outer headers around ip_len octets of packet. */
static __always_inline void finish_outer(union outer *outer, const struct transmit *tx,
					 __u32 ip_len, __u32 tos)
{
	if (tx->flags & TX_IPV6) {
		outer->ip6.priority |= tos >> 4;
		outer->ip6.flow_lbl[0] |= tos << IP6_ECN_SHIFT;
		outer->ip6.payload_len = bpf_htons(ip_len - sizeof(outer->ip6));
		if (!(tx->flags & TX_IP))
			outer->udp6.len = outer->ip6.payload_len;
	} else {
		outer->ip4.tos |= tos;
		outer->ip4.tot_len = bpf_htons(ip_len);
		outer->ip4.check = ~fold(tx->ip_sum + bpf_htons(tos) + outer->ip4.tot_len);
		if (!(tx->flags & TX_IP))
			outer->udp4.len = bpf_htons(ip_len - sizeof(outer->ip4));
	}
}

/* Writes the outer headers. */
static __always_inline int store_outer(struct __sk_buff *skb, const struct transmit *tx,
				       __u32 ip_len, __u32 tos)
{
	__u32 len = tx->outer_len;
	union outer outer;

#pragma unroll
	for (int i = 0; i < 11; i++)
		outer.words[i] = tx->outer[i];
	finish_outer(&outer, tx, ip_len, tos);
	if (len < OUTER_MIN)
		return -1;
	same_value(len);
	if (len > OUTER_MAX)
		return -1;
	return bpf_skb_store_bytes(skb, 0, outer.words, len, 0);
}

/* Writes outer headers of that length and an inner Ethernet header without tags where they
 * belong, if these are what the packet has: no helper is called and nothing copied twice.
 */
static __always_inline int write_headers(struct __sk_buff *skb, const struct transmit *tx,
					 __u32 ip_len, const struct inner *inner, const __u32 len)
{
	union outer *outer = (void *)(long)skb->data;

	if (tx->outer_len != len || inner->tags_len ||
	    (void *)outer + len + INNER_LEN > (void *)(long)skb->data_end)
		return 0;
	__builtin_memcpy(outer, tx->outer, len);
	finish_outer(outer, tx, ip_len, inner->tos);
	copy_ethernet((void *)outer + len, inner->addresses);
	/* Lest the compiler have one piece of code for two lengths: see pull. */
	asm volatile("" : : "i"(len));
	return 1;
}

/* RFC 3931, Section 5.4.4: of which frames the peer wants to know the order. */
static __always_inline int is_numbered(const struct transmit *tx, __be16 ethertype)
{
	return (tx->flags & TX_NUMBER_ALL) || ((tx->flags & TX_NUMBER_OTHERS) && !is_ip(ethertype));
}

/* Sends a packet through the underlay. Where that has no Ethernet headers the kernel
 * takes the outer one off, and what is behind it is the packet, if the skb says so;
 * change_head does not have it say so. Then the packet goes through the lane, where the
 * kernel looks at its headers anew, and leaves from there.
 */
static __always_inline int leave(struct __sk_buff *skb, const struct transmit *tx, __u32 device,
				 int headers_known)
{
	__u32 egress = tx->egress, lane = tx->lane;

	/* Lest the compiler share one load with two offsets. */
	same_value(egress);
	same_value(lane);
	if (headers_known || !(tx->flags & TX_NO_ETHERNET))
		return bpf_redirect(egress, 0);
	skb->mark = LANE_LEAVE | device;
	return bpf_redirect(lane, 0);
}

/* Writes all headers in front of what is behind the inner Ethernet header. */
__noinline int store_headers(struct __sk_buff *skb, const struct transmit *tx, __u32 ip_len,
			     const struct inner *inner)
{
	if (!tx || !inner)
		return -1;
	if (!write_headers(skb, tx, ip_len, inner, OUTER_USUAL4) &&
	    !write_headers(skb, tx, ip_len, inner, OUTER_USUAL6) &&
	    (store_outer(skb, tx, ip_len, inner->tos) || store_inner(skb, tx->outer_len, inner)))
		return -1;
	if (!is_numbered(tx, inner->ethertype))
		return 0;
	return number(skb, tx->session, tx->outer_len - L2TP_SUBLAYER_LEN);
}

/* How a frame of several segments (GSO) is to be carried. */
struct segments {
	__u64 headers; /* octets before each segment's payload, without tags */
	__u64 count;
	__u64 lower; /* what its size has to come down by to fit, 0 if it fits */
};

/* Says how a GSO frame can be carried as such; 0 if it cannot. */
static __noinline int plan_segments(struct __sk_buff *skb, const struct transmit *tx,
				    __u32 tags_len, struct segments *s)
{
	union {
		struct iphdr ip4;
		struct ipv6hdr ip6;
	} ip;
	struct tcphdr tcp;
	__u64 size = skb->gso_size, longest, lower = 0, headers = ETH_HLEN;
	__u8 protocol;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip.ip4, sizeof(ip.ip4)))
			return 0;
		protocol = ip.ip4.protocol;
		headers += ip.ip4.ihl * 4;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip.ip6, sizeof(ip.ip6)))
			return 0;
		protocol = ip.ip6.nexthdr;
		headers += sizeof(ip.ip6);
	} else {
		return 0;
	}
	if (protocol == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, headers, &tcp, sizeof(tcp)))
			return 0;
		headers += tcp.doff * 4;
	} else if (protocol == IPPROTO_UDP) {
		headers += sizeof(struct udphdr);
	} else {
		return 0;
	}
	if (headers >= skb->len)
		return 0;

	longest = outer_ip_len(tx, headers + tags_len + size);
	if (longest > tx->mtu) {
		/* A datagram's size is the sender's word: only TCP may be cut anew. */
		if (protocol != IPPROTO_TCP)
			return 0;
		lower = longest - tx->mtu;
		if (lower + LEAST_SEGMENT > size)
			return 0;
		size -= lower;
	}
	if (!size)
		return 0;
	s->headers = headers;
	s->lower = lower;
	s->count = (skb->len - headers + size - 1) / size;
	return 1;
}

/* adjust_room takes the length of the inner Ethernet header as part of a flag. */
static __always_inline __u64 room_flags(const struct transmit *tx, __u32 tags_len)
{
	return BPF_F_ADJ_ROOM_ENCAP_L2_ETH | BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN + tags_len) |
	       (tx->flags & TX_IP ? 0 : BPF_F_ADJ_ROOM_ENCAP_L4_UDP) |
	       (tx->flags & TX_IPV6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4);
}

/* Frames of several segments. The helper marks the skb as a UDP tunnel's, so
 * that each segment gets the outer headers.
 */
static __noinline int encap_segments(struct __sk_buff *skb, const struct transmit *tx,
					  __u32 device)
{
	__u32 own = skb->vlan_present && !takes_vlan_off(tx) ? sizeof(struct vlan_tag) : 0;
	__u16 tci = skb->vlan_tci;
	__be16 tpid = skb->vlan_proto;
	int tagged = skb->vlan_present;
	struct inner inner = {};
	struct segments s = {};
	__u32 ip_len;
	__u64 octets;

	if (!plan_segments(skb, tx, own, &s))
		return to_lane(skb, tx, device);
	if (tagged) {
		if (takes_vlan_off(tx)) {
			if (bpf_skb_vlan_pop(skb))
				return drop(tx->session, ERROR);
		} else if (take_tags(skb, &inner)) {
			return drop(tx->session, ERROR);
		}
	}
	if (load_inner(skb, tx, &inner))
		return drop(tx->session, ERROR);
	ip_len = outer_ip_len(tx, skb->len + own);
	octets = skb->len + own + (__u64)(s.count - 1) * (s.headers + own);

	/* Growing lowers the segment size by as much, shrinking leaves it. */
	if (s.lower && (bpf_skb_adjust_room(skb, s.lower, BPF_ADJ_ROOM_MAC, 0) ||
			bpf_skb_adjust_room(skb, -(__s32)s.lower, BPF_ADJ_ROOM_MAC,
					    BPF_F_ADJ_ROOM_FIXED_GSO)))
		goto refused;
	if (bpf_skb_adjust_room(skb, tx->outer_len + own, BPF_ADJ_ROOM_MAC,
				room_flags(tx, own) | BPF_F_ADJ_ROOM_FIXED_GSO))
		goto refused;
	if (store_headers(skb, tx, ip_len, &inner))
		return drop(tx->session, ERROR);
	count_transmitted(tx->session, s.count, octets);
	return leave(skb, tx, device, 1);

refused: /* a kind of segments that the helper knows nothing of: unchanged */
	if (tagged && bpf_skb_vlan_push(skb, tpid, tci))
		return drop(tx->session, ERROR);
	return to_lane(skb, tx, device);
}

/* Frames that fit into one packet of the underlay. */
static __noinline int encap_one(struct __sk_buff *skb, const struct transmit *tx, __u32 device)
{
	struct inner inner = {};
	__u32 frame, grow;
	int known = 1;

	if (takes_vlan_off(tx) && bpf_skb_vlan_pop(skb))
		return drop(tx->session, ERROR);
	if (take_tags(skb, &inner) || load_inner(skb, tx, &inner))
		return drop(tx->session, ERROR);
	if (may_be_syn(skb, inner.ethertype))
		clamp_mss(skb, ETH_HLEN, inner.ethertype, tx->room - inner.tags_len);

	frame = skb->len + inner.tags_len;

	/* adjust_room knows IP alone; it tells the device where the inner headers
	 * are, which a checksum left to do needs. Where it refuses, the frame is
	 * not IP or already in a tunnel.
	 */
	grow = tx->outer_len + inner.tags_len;
	if (bpf_skb_adjust_room(skb, grow, BPF_ADJ_ROOM_MAC, room_flags(tx, inner.tags_len))) {
		if (bpf_skb_change_head(skb, grow, 0))
			return drop(tx->session, ERROR);
		known = 0;
	}
	if (store_headers(skb, tx, outer_ip_len(tx, frame), &inner))
		return drop(tx->session, ERROR);
	count_transmitted(tx->session, 1, frame);
	return leave(skb, tx, device, known);
}

/* Over IPv6, decap has to lengthen a frame of less payload than an IPv6 header for
 * a while. The kernel does not let it where the skb is marked as a tunnel's by us,
 * on the same host: such frames go where no such mark is needed.
 */
static __always_inline int is_runt(struct __sk_buff *skb, const struct transmit *tx)
{
	return (tx->flags & TX_IPV6) && skb->len < ETH_HLEN + sizeof(struct ipv6hdr) &&
	       skb->protocol == bpf_htons(ETH_P_IP);
}

/* A frame into a pseudowire. */
static __always_inline int encap_over(struct __sk_buff *skb, const struct transmit *tx, __u32 device)
{
	__u32 frame;

	if (!(tx->flags & TX_ESTABLISHED))
		return drop(tx->session, NOT_ESTABLISHED);
	if (tx->vlan && !tagged_for(skb, tx))
		return drop(tx->session, WRONG_VLAN);
	if (!(tx->flags & TX_RESOLVED))
		return drop(tx->session, NO_NEIGHBOUR);
	if (tx->flags & TX_CHECKSUM)
		return to_lane(skb, tx, device);
	skb->priority = tx->priority;
	if (skb->gso_size)
		return tx->flags & TX_ONE_BY_ONE ? to_lane(skb, tx, device)
						 : encap_segments(skb, tx, device);

	frame = skb->len;
	if (skb->vlan_present && !takes_vlan_off(tx))
		frame += sizeof(struct vlan_tag);
	if (outer_ip_len(tx, frame) > tx->mtu || is_runt(skb, tx))
		return to_lane(skb, tx, device);
	return encap_one(skb, tx, device);
}

/* A frame of a pseudowire that has several ways. */
__noinline int encap_steered(struct __sk_buff *skb, __u32 device)
{
	__u32 key = choose_way(skb, device, 0);
	struct transmit *tx = bpf_map_lookup_elem(&pseudowires, &key);

	if (!tx) {
		count_global(NOT_ESTABLISHED);
		return TC_ACT_SHOT;
	}
	return encap_over(skb, tx, key);
}

static __always_inline int encap_by(struct __sk_buff *skb, const struct transmit *tx, __u32 device)
{
	if (tx->flags & TX_STEERED)
		return encap_steered(skb, device);
	return encap_over(skb, tx, device);
}

/* A frame into the pseudowire whose device has that outer end. */
static __always_inline int encap(struct __sk_buff *skb, __u32 device)
{
	struct transmit *tx = bpf_map_lookup_elem(&pseudowires, &device);

	if (!tx) {
		count_global(NOT_ESTABLISHED);
		return TC_ACT_SHOT;
	}
	return encap_by(skb, tx, device);
}

SEC("tc")
int pwd_encap(struct __sk_buff *skb)
{
	note_pcp(skb);
	return encap(skb, skb->ifindex);
}

/* The same at the egress of the device, before the way over the veth pair. What the
 * kernel does to frames on that way is not done yet: to cut segments, and to put a first
 * tag into the metadata. Frames that need it go on.
 */
SEC("tc")
int pwd_enter(struct __sk_buff *skb)
{
	__u32 link = skb->ifindex;
	struct transmit *tx = bpf_map_lookup_elem(&pseudowires, &link);

	if (!tx || (tx->flags & TX_ONE_BY_ONE) || (!skb->vlan_present && is_tag(skb->protocol)))
		return TC_ACT_UNSPEC;
	note_pcp(skb);
	return encap_by(skb, tx, tx->device);
}

#endif
