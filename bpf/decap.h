/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Packets out of the pseudowire: data messages of our sessions are taken from the
 * underlay's ingress, become frames again, and leave through the outer end of the
 * pseudowire's veth pair, which is to say they come in at its inner end.
 *
 * Everything else is the stack's: control messages, fragments (put together, they
 * arrive at the tunnel's socket), packets with IP options, other people's UDP.
 *
 * A checksum of the outer packet that the device has not verified is not verified
 * here: each link of the underlay guards its frames, IP inside guards itself, and
 * where it matters most, in fragments, the stack verifies it.
 */
#ifndef PWD_DECAP_H
#define PWD_DECAP_H

#include "maps.h"
#include "mss.h"

/* A data message up to its cookie, or as many octets of what follows: a frame has
 * more. A packet that is shorter is for the tunnel's socket to refuse.
 */
struct ip4_data {
	struct iphdr ip;
	struct udphdr udp;
	struct l2tphdr l2tp;
	__u8 cookie[8];
};

struct ip6_data {
	struct ipv6hdr ip;
	struct udphdr udp;
	struct l2tphdr l2tp;
	__u8 cookie[8];
};

/* What the outer headers say. */
struct packet {
	struct flow flow;
	__u64 cookie;
	__u64 session;
	__u64 ip_len;  /* header included */
	__u64 header;  /* from the Ethernet header to the session ID */
	__u64 min_len; /* what adjust_room wants to be left */
};

#define PASS TC_ACT_UNSPEC

static __always_inline int is_data(const struct l2tphdr *l2tp)
{
	return (l2tp->flags & bpf_htons(L2TP_T_AND_VERSION)) == bpf_htons(L2TP_DATA_VERSION_3);
}

static __always_inline __u64 mapped(__be32 address)
{
	return bpf_cpu_to_be64(0xffffULL << 32 | bpf_ntohl(address));
}

static __always_inline __u64 ports(const struct udphdr *udp)
{
	return bpf_cpu_to_be64((__u64)bpf_ntohs(udp->dest) << 48 |
			       (__u64)bpf_ntohs(udp->source) << 32);
}

static __always_inline __u64 first_eight(const __u8 *octets)
{
	__u64 v;

	__builtin_memcpy(&v, octets, sizeof(v));
	return v;
}

static __always_inline int parse_ip4(struct __sk_buff *skb, struct packet *p)
{
	const struct ip4_data *h;

	pull(skb, ETH_HLEN + sizeof(*h));
	h = (void *)(long)skb->data + ETH_HLEN;
	if ((void *)(h + 1) > (void *)(long)skb->data_end)
		return 0;
	if (h->ip.version != 4 || h->ip.ihl != 5 || h->ip.protocol != IPPROTO_UDP ||
	    (h->ip.frag_off & bpf_htons(IP4_MF | IP4_OFFSET)) || !is_data(&h->l2tp))
		return 0;
	p->ip_len = bpf_ntohs(h->ip.tot_len);
	/* Of a packet of many, the lengths are somebody's guess. */
	if (!skb->gso_size && bpf_ntohs(h->udp.len) + sizeof(h->ip) != p->ip_len)
		return 0;
	p->flow.local[0] = 0;
	p->flow.local[1] = mapped(h->ip.daddr);
	p->flow.remote[0] = 0;
	p->flow.remote[1] = mapped(h->ip.saddr);
	p->flow.ports = ports(&h->udp);
	p->session = bpf_ntohl(h->l2tp.session);
	p->cookie = first_eight(h->cookie);
	same_value(p->flow.ports);
	same_value(p->session);
	same_value(p->cookie);
	p->header = ETH_HLEN + offsetof(struct ip4_data, cookie);
	p->min_len = sizeof(h->ip);
	return 1;
}

static __always_inline int parse_ip6(struct __sk_buff *skb, struct packet *p)
{
	const struct ip6_data *h;

	pull(skb, ETH_HLEN + sizeof(*h));
	h = (void *)(long)skb->data + ETH_HLEN;
	if ((void *)(h + 1) > (void *)(long)skb->data_end)
		return 0;
	if (h->ip.version != 6 || h->ip.nexthdr != IPPROTO_UDP || !is_data(&h->l2tp))
		return 0;
	p->ip_len = bpf_ntohs(h->ip.payload_len) + sizeof(h->ip);
	if (!skb->gso_size && h->udp.len != h->ip.payload_len)
		return 0;
	p->flow.local[0] = first_eight(h->ip.daddr.in6_u.u6_addr8);
	p->flow.local[1] = first_eight(h->ip.daddr.in6_u.u6_addr8 + 8);
	p->flow.remote[0] = first_eight(h->ip.saddr.in6_u.u6_addr8);
	p->flow.remote[1] = first_eight(h->ip.saddr.in6_u.u6_addr8 + 8);
	p->flow.ports = ports(&h->udp);
	p->session = bpf_ntohl(h->l2tp.session);
	p->cookie = first_eight(h->cookie);
	same_value(p->flow.ports);
	same_value(p->session);
	same_value(p->cookie);
	p->header = ETH_HLEN + offsetof(struct ip6_data, cookie);
	p->min_len = sizeof(h->ip);
	return 1;
}

static __always_inline int same_flow(const struct flow *a, const struct flow *b)
{
	return !((a->local[0] ^ b->local[0]) | (a->local[1] ^ b->local[1]) |
		 (a->remote[0] ^ b->remote[0]) | (a->remote[1] ^ b->remote[1]) |
		 (a->ports ^ b->ports));
}

static __always_inline int is_tag(__be16 ethertype)
{
	return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
}

/* The MSS of a frame with at most two tags. */
static __always_inline void clamp_frame(struct __sk_buff *skb, __be16 ethertype, __u32 room)
{
	struct vlan_tag tag;
	__u32 l3 = ETH_HLEN;

	if (!may_be_syn(skb, ethertype))
		return;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (!is_tag(ethertype))
			break;
		/* A tag's two octets, then the EtherType of what follows. */
		if (bpf_skb_load_bytes(skb, l3, &tag, sizeof(tag)))
			return;
		ethertype = tag.tci;
		l3 += sizeof(tag);
		room -= sizeof(tag);
	}
	clamp_mss(skb, l3, ethertype, room);
}

/* Removes everything up to the frame, whose Ethernet header is inner. */
static __always_inline int strip(struct __sk_buff *skb, __u32 header, __u32 frame, __u32 min_len,
				 const struct ethhdr *inner)
{
	__u32 least = min_len + ETH_HLEN;

	/* The helper leaves no less than an IP header behind it. */
	if (frame < least && bpf_skb_change_tail(skb, header + least, 0))
		return -1;
	if (bpf_skb_adjust_room(skb, -(__s32)header, BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return -1;
	/* The outer checksum was one of those that the device has verified. */
	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	if (frame < least && bpf_skb_change_tail(skb, frame, 0))
		return -1;
	return bpf_skb_store_bytes(skb, 0, inner, sizeof(*inner), 0);
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

/* How a frame fits the pseudowire's device. */
enum fit { FITS, FITS_LIFTED, TOO_LONG };

/* Two tags do not count, one of which has to be in the metadata. */
static __always_inline enum fit fit(struct __sk_buff *skb, const struct receive *rx, __u32 mac,
				    __be16 ethertype, __u32 frame)
{
	__u32 max = rx->mtu + ETH_HLEN;
	__be16 second;

	if (frame <= max)
		return FITS;
	max += sizeof(struct vlan_tag);
	if (!is_tag(ethertype))
		return TOO_LONG;
	if (frame <= max)
		return FITS;
	if (frame > max + sizeof(struct vlan_tag) || rx->vlan ||
	    bpf_skb_load_bytes(skb, mac + ETH_HLEN + 2, &second, sizeof(second)) || !is_tag(second))
		return TOO_LONG;
	return FITS_LIFTED;
}

static __always_inline int deliver(struct __sk_buff *skb, const struct packet *p,
				   const struct receive *rx)
{
	__u32 session = p->session;
	__u32 device = rx->device, lane = rx->lane;
	__u64 header = p->header, frame;
	struct ethhdr inner;
	enum fit fits;

	/* Loaded here, lest the compiler share one load with two offsets below. */
	same_value(device);
	same_value(lane);

	/* A packet of many: one that was sent as such on this host, or that the
	 * device put together. The kernel can take it apart as long as it is whole.
	 */
	if (skb->gso_size) {
		skb->mark = LANE_DECAP;
		return bpf_redirect(lane, 0);
	}

	/* RFC 3931, Section 4.5: the session ID first, then the cookie. The comparison
	 * takes the same time whatever differs.
	 */
	if ((p->cookie ^ rx->cookie) & rx->cookie_mask)
		return drop(session, WRONG_COOKIE);
	header += rx->cookie_len;
	if (rx->flags & RX_SUBLAYER) {
		__be32 sublayer;

		/* RFC 5085, Section 3: VCCV that nobody asked for is discarded. */
		if (bpf_skb_load_bytes(skb, header, &sublayer, sizeof(sublayer)) ||
		    (sublayer & bpf_htonl(L2TP_SUBLAYER_V)))
			return drop(session, ERROR);
		header += L2TP_SUBLAYER_LEN;
	}

	if (ETH_HLEN + p->ip_len > skb->len)
		return PASS;
	/* Links pad; the padding is no part of the frame. */
	if (ETH_HLEN + p->ip_len < skb->len && bpf_skb_change_tail(skb, ETH_HLEN + p->ip_len, 0))
		return drop(session, ERROR);
	if (skb->len < header + ETH_HLEN)
		return drop(session, ERROR);
	frame = skb->len - header;
	if (bpf_skb_load_bytes(skb, header, &inner, sizeof(inner)))
		return drop(session, ERROR);
	if (!(rx->flags & RX_UP))
		return drop(session, NOT_ESTABLISHED);

	fits = fit(skb, rx, header, inner.h_proto, frame);
	if (fits == TOO_LONG)
		return drop(session, OVERSIZE);

	/* A tag of the underlay's, VID 0, ends here. */
	if (skb->vlan_present && bpf_skb_vlan_pop(skb))
		return drop(session, ERROR);
	if (strip(skb, header, frame, p->min_len, &inner))
		return drop(session, ERROR);
	clamp_frame(skb, inner.h_proto, rx->room);
	if (fits == FITS_LIFTED && lift_tag(skb))
		return drop(session, ERROR);
	if (rx->vlan && bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), rx->vlan))
		return drop(session, ERROR);
	count_received(session, frame);
	return bpf_redirect(device, 0);
}

static __noinline int decap(struct __sk_buff *skb)
{
	struct receive *rx;
	struct packet p;
	union {
		__u32 session;
		__u64 word; /* all of it, see struct scratch */
	} key;

	/* A VLAN of the underlay's is another device's, which has its own program. */
	if (skb->vlan_present && (skb->vlan_tci & VLAN_VID_MASK))
		return PASS;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (!parse_ip4(skb, &p))
			return PASS;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (!parse_ip6(skb, &p))
			return PASS;
	} else {
		return PASS;
	}
	key.session = p.session;
	rx = bpf_map_lookup_elem(&sessions, &key.session);
	if (rx && same_flow(&rx->flow, &p.flow))
		return deliver(skb, &p, rx);
	if (!bpf_map_lookup_elem(&tunnels, &p.flow))
		return PASS;
	count_global(UNKNOWN_SESSION);
	return TC_ACT_SHOT;
}

SEC("tc")
int pwd_decap(struct __sk_buff *skb)
{
	return skb->pkt_type == PACKET_HOST ? decap(skb) : PASS;
}

#endif
