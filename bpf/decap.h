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

#include "ecn.h"
#include "maps.h"
#include "mss.h"
#include "order.h"

/* A data message over UDP up to its cookie, or as many octets of what follows: a
 * frame has more. A packet that is shorter is for the tunnel's socket to refuse.
 */
struct udp_data {
	struct udphdr udp;
	struct l2tphdr l2tp;
	__u8 cookie[8];
};

/* And one over IP. */
struct ip_data {
	__be32 session;
	__u8 cookie[8];
} __attribute__((packed));

/* What the outer headers say. */
struct packet {
	struct flow flow;
	__u64 cookie;
	__u64 session;
	__u64 ip_len;  /* header included */
	__u64 header;  /* from the Ethernet header to the session ID */
	__u64 min_len; /* what adjust_room wants to be left */
	__u64 ecn;
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

/* struct flow's ports where there are none. */
static __always_inline __u64 no_ports(void)
{
	return bpf_cpu_to_be64(IPPROTO_L2TP);
}

/* What is behind the IP header, of len octets. */
static __always_inline int parse_udp(struct __sk_buff *skb, const struct udp_data *h,
				     struct packet *p, __u64 len)
{
	if ((void *)(h + 1) > (void *)(long)skb->data_end || !is_data(&h->l2tp))
		return 0;
	/* Of a packet of many, the lengths are somebody's guess. */
	if (!skb->gso_size && bpf_ntohs(h->udp.len) != len)
		return 0;
	p->flow.ports = ports(&h->udp);
	p->session = bpf_ntohl(h->l2tp.session);
	p->cookie = first_eight(h->cookie);
	p->header += offsetof(struct udp_data, cookie);
	same_value(p->flow.ports);
	same_value(p->session);
	same_value(p->cookie);
	return 1;
}

static __always_inline int parse_ip(struct __sk_buff *skb, const struct ip_data *h,
				    struct packet *p)
{
	if ((void *)(h + 1) > (void *)(long)skb->data_end)
		return 0;
	p->flow.ports = no_ports();
	p->session = bpf_ntohl(first_four(h));
	p->cookie = first_eight(h->cookie);
	p->header += offsetof(struct ip_data, cookie);
	same_value(p->session);
	same_value(p->cookie);
	/* RFC 3931, Section 4.1.1.2: session ID 0 is a control message's. */
	return p->session != 0;
}

static __always_inline int parse_ip4(struct __sk_buff *skb, struct packet *p, const __u32 l2)
{
	const struct iphdr *ip;

	pull(skb, l2 + sizeof(*ip) + sizeof(struct udp_data));
	ip = (void *)(long)skb->data + l2;
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return 0;
	if (ip->version != 4 || ip->ihl != 5 || (ip->frag_off & bpf_htons(IP4_MF | IP4_OFFSET)))
		return 0;
	p->ip_len = bpf_ntohs(ip->tot_len);
	p->flow.local[0] = 0;
	p->flow.local[1] = mapped(ip->daddr);
	p->flow.remote[0] = 0;
	p->flow.remote[1] = mapped(ip->saddr);
	p->ecn = ip->tos & ECN_MASK;
	p->header = ETH_HLEN + sizeof(*ip);
	p->min_len = sizeof(*ip);
	if (ip->protocol == IPPROTO_UDP)
		return parse_udp(skb, (void *)(ip + 1), p, p->ip_len - sizeof(*ip));
	return ip->protocol == IPPROTO_L2TP && parse_ip(skb, (void *)(ip + 1), p);
}

static __always_inline int parse_ip6(struct __sk_buff *skb, struct packet *p, const __u32 l2)
{
	const struct ipv6hdr *ip;

	pull(skb, l2 + sizeof(*ip) + sizeof(struct udp_data));
	ip = (void *)(long)skb->data + l2;
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return 0;
	if (ip->version != 6)
		return 0;
	p->ip_len = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	p->flow.local[0] = first_eight(ip->daddr.in6_u.u6_addr8);
	p->flow.local[1] = first_eight(ip->daddr.in6_u.u6_addr8 + 8);
	p->flow.remote[0] = first_eight(ip->saddr.in6_u.u6_addr8);
	p->flow.remote[1] = first_eight(ip->saddr.in6_u.u6_addr8 + 8);
	p->ecn = (ip->flow_lbl[0] >> IP6_ECN_SHIFT) & ECN_MASK;
	p->header = ETH_HLEN + sizeof(*ip);
	p->min_len = sizeof(*ip);
	if (ip->nexthdr == IPPROTO_UDP)
		return parse_udp(skb, (void *)(ip + 1), p, p->ip_len - sizeof(*ip));
	return ip->nexthdr == IPPROTO_L2TP && parse_ip(skb, (void *)(ip + 1), p);
}

static __always_inline int same_flow(const struct flow *a, const struct flow *b)
{
	return !((a->local[0] ^ b->local[0]) | (a->local[1] ^ b->local[1]) |
		 (a->remote[0] ^ b->remote[0]) | (a->remote[1] ^ b->remote[1]) |
		 (a->ports ^ b->ports));
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
	struct ethhdr *eth;

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
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return bpf_skb_store_bytes(skb, 0, inner, sizeof(*inner), 0);
	copy_ethernet(eth, inner);
	return 0;
}

/* How a frame fits the pseudowire's device. */
enum fit { FITS, FITS_LIFTED, TOO_LONG };

/* Says that the frame gets no tag beside those it has. RFC 4448, Section 4.4.1: on a
 * pseudowire of tagged frames one without a tag is not to be; it gets one here.
 */
static __always_inline int keeps_tag(const struct receive *rx, __be16 ethertype)
{
	return (rx->flags & RX_KEEP_TAG) && is_tag(ethertype);
}

static __always_inline int puts_vlan_on(const struct receive *rx, __be16 ethertype)
{
	return rx->vlan && !keeps_tag(rx, ethertype);
}

/* RFC 4719, Section 3.1: gives the frame's first tag the number that it has here. What
 * else the tag says stays; its protocol is that of the attachment circuit.
 */
static __always_inline int rewrite_tag(struct __sk_buff *skb, const struct receive *rx)
{
	__be16 tci;
	__be32 tag;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &tci, sizeof(tci)))
		return -1;
	tag = bpf_htonl(ETH_P_8021Q << 16 | (bpf_ntohs(tci) & ~VLAN_VID_MASK) | rx->vlan);
	return bpf_skb_store_bytes(skb, 2 * ETH_ALEN, &tag, sizeof(tag), BPF_F_RECOMPUTE_CSUM);
}

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
	if (frame > max + sizeof(struct vlan_tag) || puts_vlan_on(rx, ethertype) ||
	    bpf_skb_load_bytes(skb, mac + ETH_HLEN + 2, &second, sizeof(second)) || !is_tag(second))
		return TOO_LONG;
	return FITS_LIFTED;
}

/* Where the frame is in a packet, and what it begins with. */
struct content {
	__u64 header;
	__u64 frame;
	__u32 pad;
	__be32 sublayer; /* 0 if there is none; in front of inner as in the packet */
	struct ethhdr inner;
	__u16 end;
};

/* Reads the frame's Ethernet header in place, if that is where it is. */
static __always_inline int read_ethernet(struct __sk_buff *skb, struct content *c, const __u32 at)
{
	const struct ethhdr *eth = (void *)(long)skb->data + at;

	if (c->header != at || (void *)(eth + 1) > (void *)(long)skb->data_end)
		return 0;
	copy_ethernet(&c->inner, eth);
	return 1;
}

/* Reads what the packet has in front of the frame's payload, where it begins being known. A
 * function of its own for the verifier, who looks at it once.
 */
__noinline int read_content(struct __sk_buff *skb, struct content *c, __u32 has_sublayer)
{
	if (!c)
		return -1;
	if (has_sublayer)
		return bpf_skb_load_bytes(skb, c->header - L2TP_SUBLAYER_LEN, &c->sublayer,
					  L2TP_SUBLAYER_LEN + sizeof(c->inner));
	if (read_ethernet(skb, c, OUTER_USUAL4) || read_ethernet(skb, c, OUTER_USUAL6))
		return 0;
	return bpf_skb_load_bytes(skb, c->header, &c->inner, sizeof(c->inner));
}

#define TAKEN_LIFTED 1
#define NOT_TAKEN(event) (-1 - (event))

/* Makes the packet the frame that is in it, with its tags where they were, but for a
 * first one that is to be lifted. Negative is the reason why it is to be dropped.
 */
static __always_inline int take_out(struct __sk_buff *skb, const struct packet *p,
				    const struct receive *rx, const struct content *c)
{
	enum fit fits = fit(skb, rx, c->header, c->inner.h_proto, c->frame);

	if (fits == TOO_LONG)
		return NOT_TAKEN(OVERSIZE);
	/* A tag of the underlay's, VID 0, ends here. */
	if (skb->vlan_present && bpf_skb_vlan_pop(skb))
		return NOT_TAKEN(ERROR);
	if (strip(skb, c->header, c->frame, p->min_len, &c->inner))
		return NOT_TAKEN(ERROR);
	if ((rx->flags & RX_ECN) && p->ecn && merge_ecn(skb, p->ecn))
		return NOT_TAKEN(CONGESTION);
	clamp_frame(skb, c->inner.h_proto, rx->room);
	if ((rx->flags & RX_KEEP_TAG) && is_tag(c->inner.h_proto) && rewrite_tag(skb, rx))
		return NOT_TAKEN(ERROR);
	return fits == FITS_LIFTED ? TAKEN_LIFTED : 0;
}

/* Says that a frame, with at most one tag, goes out through the pseudowire's device, not
 * through a cross-connected port at once. TCP is worth the detour: where it comes out
 * of the device the kernel puts segments together.
 */
static __always_inline int is_gathered(struct __sk_buff *skb, __be16 ethertype)
{
	const __u8 *ip = (const __u8 *)(long)skb->data + ETH_HLEN;
	__u32 protocol_at = ETH_HLEN;
	struct vlan_tag tag;
	union {
		__u8 protocol;
		__u64 word; /* all of it, see struct scratch */
	} in;

	/* What most frames are, read in place. */
	if (ip + sizeof(struct iphdr) <= (const __u8 *)(long)skb->data_end) {
		if (ethertype == bpf_htons(ETH_P_IP))
			return ip[offsetof(struct iphdr, protocol)] == IPPROTO_TCP;
		if (ethertype == bpf_htons(ETH_P_IPV6))
			return ip[offsetof(struct ipv6hdr, nexthdr)] == IPPROTO_TCP;
	}
	if (is_tag(ethertype)) {
		if (bpf_skb_load_bytes(skb, protocol_at, &tag, sizeof(tag)))
			return 0;
		ethertype = tag.tci;
		protocol_at += sizeof(tag);
	}
	if (ethertype == bpf_htons(ETH_P_IP))
		protocol_at += offsetof(struct iphdr, protocol);
	else if (ethertype == bpf_htons(ETH_P_IPV6))
		protocol_at += offsetof(struct ipv6hdr, nexthdr);
	else
		return 0;
	return !bpf_skb_load_bytes(skb, protocol_at, &in.protocol, sizeof(in.protocol)) &&
	       in.protocol == IPPROTO_TCP;
}

static __always_inline void count_taken(struct __sk_buff *skb, __u32 session, __u64 frame)
{
	count_received(session, frame);
	if (skb->mark == LANE_REASSEMBLED)
		count(session, REASSEMBLED);
}

/* Sends a frame to the pseudowire's device: TCP over its outer end, all else right into
 * it, which saves the way over a veth pair.
 */
static __noinline int to_device(struct __sk_buff *skb, const struct receive *rx, __u32 ethertype)
{
	__u32 device = rx->device, inner = rx->inner;

	same_value(device);
	same_value(inner);
	if (!inner || is_gathered(skb, ethertype))
		return bpf_redirect(device, 0);
	return bpf_redirect(inner, BPF_F_INGRESS);
}

#define NOT_TO_PORT -1

/* Sends a frame out of the cross-connected port, if there is one and it is not to be
 * gathered. A function of its own, for the sake of the caller's stack.
 */
static __noinline int to_port(struct __sk_buff *skb, const struct receive *rx, __u32 session,
			      __u32 ethertype, int taken)
{
	if (!rx->port || is_gathered(skb, ethertype))
		return NOT_TO_PORT;
	if ((taken == TAKEN_LIFTED && lift_tag(skb)) ||
	    (rx->port_vlan && !keeps_tag(rx, ethertype) &&
	     bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), rx->port_vlan)))
		return drop(session, ERROR);
	return bpf_redirect(rx->port, 0);
}

/* Stores the frame that is in the skb now, in a packet that is not the next one, or is
 * it while others are held; end_turn delivers what is in order then. Without keep the
 * frame is dropped. In the lane alone.
 */
static __always_inline int deliver_in_turn(struct __sk_buff *skb, __u32 session, __u32 number,
					   __u32 vlan, __u32 keep)
{
	struct order *o = bpf_map_lookup_elem(&orders, &session);
	int all = 1;

	if (!o)
		return drop(session, ERROR);
	if (store(skb, session, number, vlan, keep)) {
		count(session, ERROR);
		note_not_stored(o, number);
	} else {
		all = note_stored(o, session, number);
	}
	begin_turn(session, all, 0, 0);
	return TC_ACT_SHOT;
}

/* Delivers a frame that cannot be stored, unless device is 0; end_turn delivers what is
 * in order then.
 */
static __always_inline int deliver_first(struct __sk_buff *skb, __u32 session, __u32 device)
{
	if (device && bpf_clone_redirect(skb, device, 0))
		count(session, ERROR);
	begin_turn(session, 0, 0, 0);
	return TC_ACT_SHOT;
}

/* Has end_turn deliver what is held before a packet, which comes again as the next one. */
static __noinline int deliver_before(struct __sk_buff *skb, const struct receive *rx, __u32 session,
				     __u32 number)
{
	int later = is_rewritable(skb) && !bpf_clone_redirect(skb, rx->lane, 0);

	if (!later)
		count(session, ERROR);
	begin_turn(session, later, later, number);
	return TC_ACT_SHOT;
}

static __always_inline int deliver(struct __sk_buff *skb, const struct packet *p,
				   const struct receive *rx, int in_lane)
{
	__u32 session = p->session;
	__u32 device = rx->device, lane = rx->lane, number = 0, hold = 0, first = 0;
	struct content c = {.header = p->header};
	int taken;

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
	if (((p->cookie ^ rx->cookie) & rx->cookie_mask) &&
	    ((p->cookie ^ rx->previous) & rx->cookie_mask))
		return drop(session, WRONG_COOKIE);
	c.header += rx->cookie_len;
	if (rx->flags & RX_SUBLAYER)
		c.header += L2TP_SUBLAYER_LEN;
	if (ETH_HLEN + p->ip_len > skb->len)
		return PASS;
	/* Links pad; the padding is no part of the frame. */
	if (ETH_HLEN + p->ip_len < skb->len && bpf_skb_change_tail(skb, ETH_HLEN + p->ip_len, 0))
		return drop(session, ERROR);
	if (skb->len < c.header + ETH_HLEN)
		return drop(session, ERROR);
	c.frame = skb->len - c.header;
	if (read_content(skb, &c, rx->flags & RX_SUBLAYER))
		return drop(session, ERROR);
	/* RFC 5085, Section 3: VCCV that nobody asked for is discarded. */
	if (c.sublayer & bpf_htonl(L2TP_SUBLAYER_V))
		return drop(session, ERROR);
	if (!(rx->flags & RX_UP))
		return drop(session, NOT_ESTABLISHED);

	if ((rx->flags & RX_NUMBERS) && (c.sublayer & bpf_htonl(L2TP_SUBLAYER_S))) {
		struct order *order = bpf_map_lookup_elem(&orders, &session);

		if (!order)
			return drop(session, ERROR);
		number = bpf_ntohl(c.sublayer) & L2TP_NUMBER_MASK;
		switch (turn_of(order, number, c.frame + sizeof(struct vlan_tag) <= HELD_LEN,
				in_lane)) {
		case TURN_NOW:
			break;
		case TURN_OVER:
			return drop(session, OUT_OF_SEQUENCE);
		case TURN_LANE:
			if (!in_lane)
				skb->mark = LANE_DECAP;
			return bpf_redirect(lane, 0);
		case TURN_HOLD:
			hold = 1;
			break;
		case TURN_FIRST:
			first = 1;
			break;
		case TURN_LATER:
			return in_lane ? deliver_before(skb, rx, session, number)
				       : drop(session, ERROR);
		}
	}

	taken = take_out(skb, p, rx, &c);
	if (taken < 0)
		count(session, NOT_TAKEN(taken));
	else
		count_taken(skb, session, c.frame);
	/* What comes out of the lane goes through the device: the stack has no room. */
	if (!in_lane && taken >= 0) {
		int action = to_port(skb, rx, session, c.inner.h_proto, taken);

		if (action != NOT_TO_PORT)
			return action;
	}
	if (in_lane && hold)
		return deliver_in_turn(skb, session, number,
				       puts_vlan_on(rx, c.inner.h_proto) ? rx->vlan : 0,
				       taken >= 0);
	if (taken < 0 || (taken == TAKEN_LIFTED && lift_tag(skb)) ||
	    (puts_vlan_on(rx, c.inner.h_proto) &&
	     bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), rx->vlan))) {
		if (taken >= 0)
			count(session, ERROR);
		return in_lane && first ? deliver_first(skb, session, 0) : TC_ACT_SHOT;
	}
	if (in_lane)
		skb->mark = 0;
	if (in_lane && first)
		return deliver_first(skb, session, device);
	return in_lane ? bpf_redirect(device, 0) : to_device(skb, rx, c.inner.h_proto);
}

/* Finds the outer headers of a data message behind l2 octets. */
static __always_inline int parse(struct __sk_buff *skb, struct packet *p, const __u32 l2)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return parse_ip4(skb, p, l2);
	return skb->protocol == bpf_htons(ETH_P_IPV6) && parse_ip6(skb, p, l2);
}

/* The session of a data message, if it is one of ours. */
static __always_inline struct receive *session_of(const struct packet *p)
{
	struct receive *rx;
	union {
		__u32 session;
		__u64 word; /* all of it, see struct scratch */
	} key;

	key.session = p->session;
	rx = bpf_map_lookup_elem(&sessions, &key.session);
	return rx && same_flow(&rx->flow, &p->flow) ? rx : 0;
}

/* Says that a flow has no sessions but ours. */
static __always_inline int is_ours(const struct packet *p)
{
	__u32 *tunnel = bpf_map_lookup_elem(&tunnels, &p->flow);

	return tunnel && (*tunnel & TUNNEL_OURS);
}

static __always_inline int decap(struct __sk_buff *skb, int in_lane)
{
	struct receive *rx;
	struct packet p;

	/* A VLAN of the underlay's is another device's, which has its own program. */
	if (skb->vlan_present && (skb->vlan_tci & VLAN_VID_MASK))
		return PASS;
	if (!parse(skb, &p, ETH_HLEN))
		return PASS;
	rx = session_of(&p);
	if (rx)
		return deliver(skb, &p, rx, in_lane);
	if (!is_ours(&p))
		return PASS;
	count_global(UNKNOWN_SESSION);
	return TC_ACT_SHOT;
}

static __noinline int decap_here(struct __sk_buff *skb)
{
	return decap(skb, 0);
}

SEC("tc")
int pwd_decap(struct __sk_buff *skb)
{
	return skb->pkt_type == PACKET_HOST ? decap_here(skb) : PASS;
}

/* Says that a packet without an Ethernet header is for decap. */
static __noinline int is_for_decap(struct __sk_buff *skb)
{
	struct packet p;

	/* A packet of many cannot get one either; the stack takes it apart for the
	 * tunnel's socket.
	 */
	if (skb->gso_size || !parse(skb, &p, 0) || p.ip_len > skb->len)
		return 0;
	return session_of(&p) || is_ours(&p);
}

/* The same where packets come in without an Ethernet header: they get one. */
SEC("tc")
int pwd_decap_ip(struct __sk_buff *skb)
{
	__be16 ethertype = skb->protocol;

	if (skb->pkt_type != PACKET_HOST || !is_for_decap(skb))
		return PASS;
	if (bpf_skb_change_head(skb, ETH_HLEN, 0) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &ethertype, sizeof(ethertype),
				0)) {
		count_global(ERROR);
		return TC_ACT_SHOT;
	}
	return decap_here(skb);
}

#endif
