/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The end of the slow lane. Frames that encap could not carry come out of it one
 * by one, their checksums finished, their mark the pseudowire's outer end. Here
 * they get outer headers, and where the packet does not fit the underlay it leaves
 * in fragments (RFC 3931, Section 4.1.4), over UDP with a checksum. Packets that
 * decap could not take apart come out of it one by one as well, and those that the
 * stack has put together from fragments come back here.
 *
 * The stack does not fragment what is redirected. So the packet's payload is
 * saved, the skb is cut to the size of a fragment, and for each fragment the skb
 * is written anew and a clone of it sent.
 */
#ifndef PWD_LANE_H
#define PWD_LANE_H

#include "decap.h"
#include "encap.h"
#include "toobig.h"

#define MAX_FRAGMENTS 32
#define ID_SLOTS 256

/* Identifications of fragments, a counter for each of many pairs of addresses:
 * numbers that are not used again soon (RFC 6864, Section 4.3). The agent starts
 * them anywhere.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ID_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} fragment_ids SEC(".maps");

static __always_inline __u32 ip_header_len(const struct transmit *tx)
{
	return tx->flags & TX_IPV6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
}

/* Adds a chunk of the payload to its sum. */
static long sum_chunk(__u32 i, void *unused)
{
	struct scratch *s = scratch();
	__u32 at = i * PAYLOAD_CHUNK, n;
	__s64 sum;

	if (!s || at >= s->checksum.len)
		return 1;
	n = s->checksum.len - at;
	if (n > PAYLOAD_CHUNK)
		n = PAYLOAD_CHUNK;
	/* The helper adds words of 4 octets. */
	n = (n + 3) & ~3;
	same_value(n);
	if (n > PAYLOAD_CHUNK)
		return 1;
	same_value(at);
	if (at >= PAYLOAD_MAX)
		return 1;
	sum = bpf_csum_diff(0, 0, (__be32 *)(s->payload + at), n, s->checksum.sum);
	if (sum < 0)
		return 1;
	s->checksum.sum = sum;
	return 0;
}

/* Saves the outer IP packet's payload, which is at the given offset. */
__noinline int save_payload(struct __sk_buff *skb, __u32 at, __u32 len)
{
	struct scratch *s = scratch();
	__u32 last = len & ~3;

	same_value(last);
	if (!s || last > PAYLOAD_MAX)
		return -1;
	*(__u32 *)(s->payload + last) = 0;
	if (len < L2TP_IP_LEN)
		return -1;
	same_value(len);
	if (len > PAYLOAD_MAX)
		return -1;
	return bpf_skb_load_bytes(skb, at, s->payload, len);
}

/* Writes the checksum of a saved payload, which begins with a UDP header, into it
 * and into the packet; pseudo is the sum of the pseudo header without the length.
 */
__noinline int finish_udp(struct __sk_buff *skb, __u32 at, __u32 len, __u32 pseudo)
{
	struct scratch *s = scratch();
	__u16 check;

	if (!s)
		return -1;
	s->checksum.len = len;
	s->checksum.sum = pseudo + bpf_htons(len);
	bpf_loop(PAYLOAD_MAX / PAYLOAD_CHUNK, sum_chunk, 0, 0);
	check = ~fold(s->checksum.sum);
	/* RFC 768: 0 would say that there is none. */
	if (!check)
		check = 0xffff;
	((struct udphdr *)s->payload)->check = check;
	return bpf_skb_store_bytes(skb, at + offsetof(struct udphdr, check), &check, sizeof(check),
				   0);
}

/* An IPv4 header from its total length to its checksum. */
static __always_inline int ip4_header(struct __sk_buff *skb, const struct transmit *tx,
				      struct scratch *s)
{
	const __u8 *outer = (const __u8 *)tx->outer + ETH_HLEN;

	s->ip4.tot_len = bpf_htons(sizeof(struct iphdr) + s->fragment.len);
	s->ip4.id = s->fragment.id;
	s->ip4.frag_off = bpf_htons(s->fragment.at / 8 | (s->fragment.more ? IP4_MF : 0));
	s->ip4.ttl = outer[offsetof(struct iphdr, ttl)];
	s->ip4.protocol = outer[offsetof(struct iphdr, protocol)];
	/* ip_sum counts the DF of packets that are whole. */
	s->ip4.check = ~fold(tx->ip_sum + bpf_htons(s->fragment.tos) + s->ip4.tot_len + s->ip4.id +
			     s->ip4.frag_off + (__u16)~bpf_htons(IP4_DF));
	return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, tot_len), &s->ip4,
				   sizeof(s->ip4), 0);
}

/* An IPv6 header from its payload length to its hop limit, and a fragment header. */
static __always_inline int ip6_header(struct __sk_buff *skb, const struct transmit *tx,
				      struct scratch *s)
{
	const __u8 *outer = (const __u8 *)tx->outer + ETH_HLEN;

	s->ip6.payload_len = bpf_htons(sizeof(s->ip6.fragment) + s->fragment.len);
	s->ip6.nexthdr = IPPROTO_FRAGMENT;
	s->ip6.hop_limit = outer[offsetof(struct ipv6hdr, hop_limit)];
	s->ip6.fragment.nexthdr = outer[offsetof(struct ipv6hdr, nexthdr)];
	s->ip6.fragment.reserved = 0;
	s->ip6.fragment.frag_off =
		bpf_htons(s->fragment.at | (s->fragment.more ? IP6_MORE : 0));
	s->ip6.fragment.id = s->fragment.id;
	if (bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, payload_len), &s->ip6,
				offsetof(typeof(s->ip6), fragment), 0))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(struct ipv6hdr), &s->ip6.fragment,
				   sizeof(s->ip6.fragment), 0);
}

/* What the turns of the loop share and do not change. */
struct fragments {
	struct __sk_buff *skb;
	struct transmit *tx;
	__u64 out; /* ifindex of where they leave: as it is in leave */
};

/* Makes the skb the fragment that is next. */
static __always_inline int write_fragment(struct __sk_buff *skb, const struct transmit *tx,
					  struct scratch *s, int ipv6)
{
	__u32 headers = ETH_HLEN + (ipv6 ? sizeof(struct ipv6hdr) + sizeof(struct ip6_fragment)
					 : sizeof(struct iphdr));
	__u32 at = s->fragment.at, len = s->fragment.len;

	if (skb->len != headers + len && bpf_skb_change_tail(skb, headers + len, 0))
		return -1;
	if (ipv6 ? ip6_header(skb, tx, s) : ip4_header(skb, tx, s))
		return -1;
	same_value(at);
	if (at >= PAYLOAD_MAX || len < 8)
		return -1;
	same_value(len);
	if (len > PAYLOAD_MAX)
		return -1;
	return bpf_skb_store_bytes(skb, headers, s->payload + at, len, 0);
}

/* Sends a clone as the next fragment, unless it is the last; 1 ends the loop. */
static __always_inline long next_fragment(struct fragments *f, int ipv6)
{
	struct scratch *s = scratch();

	if (!s || s->fragment.left <= s->fragment.len)
		return 1;
	if (write_fragment(f->skb, f->tx, s, ipv6) ||
	    bpf_clone_redirect(f->skb, f->out, 0)) {
		s->fragment.failed = 1;
		return 1;
	}
	s->fragment.left -= s->fragment.len;
	s->fragment.at += s->fragment.len;
	return 0;
}

static long next_ip4_fragment(__u32 i, struct fragments *f)
{
	return next_fragment(f, 0);
}

static long next_ip6_fragment(__u32 i, struct fragments *f)
{
	return next_fragment(f, 1);
}

/* Sends the payload in fragments of about the same size. */
static __always_inline int send_fragments(struct __sk_buff *skb, __u32 device, __u32 len, int ipv6)
{
	struct transmit *tx = bpf_map_lookup_elem(&pseudowires, &device);
	struct fragments f = {.skb = skb, .tx = tx, .out = 0};
	struct scratch *s = scratch();
	__u32 slot, step, n, egress, lane;
	__u64 *next;

	if (!tx || !s)
		return drop_at(device, ERROR);
	egress = tx->egress;
	lane = tx->lane;
	same_value(egress);
	same_value(lane);
	f.out = egress;
	if (tx->flags & TX_NO_ETHERNET) {
		skb->mark = LANE_LEAVE | device;
		f.out = lane;
	}
	slot = tx->id_slot;
	next = bpf_map_lookup_elem(&fragment_ids, &slot);
	if (!next)
		return drop(tx->session, ERROR);
	s->fragment.id = __sync_fetch_and_add(next, 1);
	step = tx->mtu - (ipv6 ? sizeof(struct ipv6hdr) + sizeof(struct ip6_fragment)
			       : sizeof(struct iphdr));
	step &= ~7;
	if (step < 8 || step > PAYLOAD_MAX)
		return drop(tx->session, ERROR);
	n = (len + step - 1) / step;
	if (n < 2 || n > MAX_FRAGMENTS)
		return drop(tx->session, OVERSIZE);

	s->fragment.at = 0;
	s->fragment.len = ((len + n - 1) / n + 7) & ~7;
	s->fragment.more = 1;
	s->fragment.left = len;
	s->fragment.failed = 0;
	if (ipv6)
		bpf_loop(MAX_FRAGMENTS, next_ip6_fragment, &f, 0);
	else
		bpf_loop(MAX_FRAGMENTS, next_ip4_fragment, &f, 0);
	s->fragment.len = s->fragment.left;
	s->fragment.more = 0;
	if (s->fragment.failed || write_fragment(skb, tx, s, ipv6))
		return drop(tx->session, ERROR);
	count(tx->session, FRAGMENTED);
	return leave(skb, tx, device, 0);
}

static __always_inline void set_fragment_tos(__u32 tos)
{
	struct scratch *s = scratch();

	if (s)
		s->fragment.tos = tos;
}

__noinline int send_ip4_fragments(struct __sk_buff *skb, __u32 device, __u32 len)
{
	return send_fragments(skb, device, len, 0);
}

__noinline int send_ip6_fragments(struct __sk_buff *skb, __u32 device, __u32 len)
{
	return send_fragments(skb, device, len, 1);
}

/* The way of a frame that was sent into the lane over one: another, if that takes none any more. */
__noinline int way_in_lane(struct __sk_buff *skb, __u32 key)
{
	struct transmit *tx = bpf_map_lookup_elem(&pseudowires, &key);
	const __u32 takes = TX_ESTABLISHED | TX_RESOLVED;

	if (!(key & WAY) || (tx && (tx->flags & takes) == takes))
		return key;
	return choose_way(skb, (key & ~WAY) >> WAY_SHIFT, 1);
}

/* Frames that come out of the lane, where nothing is left to the device any more. */
__noinline int encap_apart(struct __sk_buff *skb, __u32 device)
{
	__u64 frame, ip_len, len, at; /* see struct scratch */
	struct transmit *tx = bpf_map_lookup_elem(&pseudowires, &device);
	struct inner inner = {};

	if (!tx) {
		count_global(NOT_ESTABLISHED);
		return TC_ACT_SHOT;
	}
	if (!(tx->flags & TX_ESTABLISHED))
		return drop(tx->session, NOT_ESTABLISHED);
	if (!(tx->flags & TX_RESOLVED))
		return drop(tx->session, NO_NEIGHBOUR);
	if (tx->vlan && !tagged_for(skb, tx))
		return drop(tx->session, WRONG_VLAN);
	if ((tx->flags & TX_DF) && is_oversize(skb, tx))
		return refuse_oversize(skb, tx, device);
	if (takes_vlan_off(tx) && bpf_skb_vlan_pop(skb))
		return drop(tx->session, ERROR);
	if (take_tags(skb, &inner) || load_inner(skb, tx, &inner))
		return drop(tx->session, ERROR);
	skb->mark = 0;
	skb->priority = tx->priority; /* the lane's devices have taken it off */
	clamp_mss(skb, ETH_HLEN, inner.ethertype, tx->room - inner.tags_len);


	frame = skb->len + inner.tags_len;
	ip_len = outer_ip_len(tx, frame);
	at = ETH_HLEN + ip_header_len(tx);
	len = ip_len - ip_header_len(tx);
	if (len > PAYLOAD_MAX)
		return drop(tx->session, OVERSIZE);
	if (bpf_skb_change_head(skb, tx->outer_len + inner.tags_len, 0) ||
	    store_headers(skb, tx, ip_len, &inner))
		return drop(tx->session, ERROR);
	if (ip_len > tx->mtu || (tx->flags & TX_CHECKSUM)) {
		if (save_payload(skb, at, len))
			return drop(tx->session, ERROR);
		if (!(tx->flags & TX_IP) && finish_udp(skb, at, len, tx->pseudo_sum))
			return drop(tx->session, ERROR);
	}
	count_transmitted(tx->session, 1, frame);
	if (ip_len <= tx->mtu)
		return leave(skb, tx, device, 0);
	set_fragment_tos(inner.tos);
	return tx->flags & TX_IPV6 ? send_ip6_fragments(skb, device, len)
				   : send_ip4_fragments(skb, device, len);
}

/* Complete packets, whose headers the kernel has looked at now. */
static __noinline int leave_lane(struct __sk_buff *skb, __u32 device)
{
	struct transmit *tx = bpf_map_lookup_elem(&pseudowires, &device);

	if (!tx) {
		count_global(NOT_ESTABLISHED);
		return TC_ACT_SHOT;
	}
	skb->mark = 0;
	skb->priority = tx->priority;
	return leave(skb, tx, device, 1);
}

static __noinline int decap_in_lane(struct __sk_buff *skb)
{
	return decap(skb, 1);
}

SEC("tc")
int pwd_lane(struct __sk_buff *skb)
{
	__u32 device = skb->mark;
	int action;

	if (device == LANE_RELEASE) {
		release_late(skb);
		end_turn(skb);
		return TC_ACT_SHOT;
	}
	if ((device & LANE_MARKS) == LANE_LEAVE)
		return leave_lane(skb, device & ~LANE_LEAVE);
	if (device != LANE_DECAP && device != LANE_REASSEMBLED) {
		skb->cb[0] = device >> LANE_PCP_SHIFT & 7;
		return encap_apart(skb, way_in_lane(skb, device & LANE_DEVICE));
	}
	action = decap_in_lane(skb);
	end_turn(skb);
	if (action != PASS)
		return action;
	/* Nothing that comes out here is for the host. */
	count_global(ERROR);
	return TC_ACT_SHOT;
}

#endif
