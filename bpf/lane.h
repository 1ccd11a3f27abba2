/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The end of the slow lane. Frames that encap could not carry come out of it one
 * by one, their checksums finished, their mark the pseudowire's outer end. Here
 * they get outer headers with a UDP checksum, and where the packet does not fit
 * the underlay it leaves in fragments (RFC 3931, Section 4.1.4). Packets that
 * decap could not take apart come out of it one by one as well.
 *
 * The stack does not fragment what is redirected. So the packet's payload is
 * saved, the skb is cut to the size of a fragment, and for each fragment the skb
 * is written anew and a clone of it sent.
 */
#ifndef PWD_LANE_H
#define PWD_LANE_H

#include "decap.h"
#include "encap.h"

#define CHUNK 512
#define PAYLOAD_MAX (19 * CHUNK)
#define MAX_FRAGMENTS 32
#define ID_SLOTS 256

/* The payload of the outer packet, from the UDP header on. The verifier knows the
 * bounds of an offset and of a length, not of their sum: hence the room.
 */
struct payload {
	__u8 octets[PAYLOAD_MAX];
	__u8 room[PAYLOAD_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct payload);
} payloads SEC(".maps");

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

/* The functions that loop are not static: the verifier looks at each once. */

/* Saves the payload, from the UDP header at the given offset on, and returns its
 * checksum; pseudo is the sum of the pseudo header without the length. 0 is an
 * error.
 */
__noinline int save_payload(struct __sk_buff *skb, __u32 at, __u32 len, __u32 pseudo)
{
	__u32 zero = 0;
	struct payload *p = bpf_map_lookup_elem(&payloads, &zero);
	__s64 sum = pseudo + bpf_htons(len);

	if (!p || len < sizeof(struct udphdr) || len > PAYLOAD_MAX)
		return 0;
	/* The sum is over words of 4 octets. */
	*(__u32 *)(p->octets + (len & ~3)) = 0;
	if (bpf_skb_load_bytes(skb, at, p->octets, len))
		return 0;
	for (__u32 from = 0; from < PAYLOAD_MAX && from < len; from += CHUNK) {
		__u32 n = len - from;

		if (n > CHUNK)
			n = CHUNK;
		sum = bpf_csum_diff(0, 0, (__be32 *)(p->octets + from), (n + 3) & ~3, sum);
		if (sum < 0)
			return 0;
	}
	sum = (__u16)~fold(sum);
	/* RFC 768: 0 would say that there is none. */
	return sum ? sum : 0xffff;
}

/* Saves the payload and puts its checksum into it and into the packet. */
static __always_inline int finish_udp(struct __sk_buff *skb, const struct transmit *tx, __u32 len)
{
	__u32 at = ETH_HLEN + ip_header_len(tx), zero = 0;
	struct payload *p = bpf_map_lookup_elem(&payloads, &zero);
	__u16 check = save_payload(skb, at, len, tx->pseudo_sum);

	if (!p || !check)
		return -1;
	((struct udphdr *)p->octets)->check = check;
	return bpf_skb_store_bytes(skb, at + offsetof(struct udphdr, check), &check, sizeof(check),
				   0);
}

/* What tells one fragment from the next. */
struct cut {
	__u32 id;
	__u32 at;  /* offset in the payload */
	__u32 len; /* octets of payload */
	__u32 more;
};

/* The fields of an IPv4 header that a fragment has for itself, and two between. */
struct ip4_fragment {
	__be16 tot_len;
	__be16 id;
	__be16 frag_off;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
};

static __always_inline int ip4_header(struct __sk_buff *skb, const struct transmit *tx,
				      const struct cut *c)
{
	const __u8 *outer = tx->outer + ETH_HLEN;
	struct ip4_fragment f = {
		.tot_len = bpf_htons(sizeof(struct iphdr) + c->len),
		.id = c->id,
		.frag_off = bpf_htons(c->at / 8 | (c->more ? IP4_MF : 0)),
		.ttl = outer[offsetof(struct iphdr, ttl)],
		.protocol = outer[offsetof(struct iphdr, protocol)],
	};

	/* ip_sum counts the DF of packets that are whole. */
	f.check = ~fold(tx->ip_sum + f.tot_len + f.id + f.frag_off + (__u16)~bpf_htons(IP4_DF));
	return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, tot_len), &f, sizeof(f),
				   0);
}

static __always_inline int ip6_header(struct __sk_buff *skb, const struct transmit *tx,
				      const struct cut *c)
{
	const __u8 *outer = tx->outer + ETH_HLEN;
	struct ip6_fragment f = {
		.nexthdr = outer[offsetof(struct ipv6hdr, nexthdr)],
		.frag_off = bpf_htons(c->at | (c->more ? IP6_MORE : 0)),
		.id = c->id,
	};
	struct {
		__be16 payload_len;
		__u8 nexthdr;
		__u8 hop_limit;
	} h = {
		.payload_len = bpf_htons(sizeof(f) + c->len),
		.nexthdr = IPPROTO_FRAGMENT,
		.hop_limit = outer[offsetof(struct ipv6hdr, hop_limit)],
	};

	if (bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, payload_len), &h,
				sizeof(h), 0))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(struct ipv6hdr), &f, sizeof(f), 0);
}

/* Makes the skb the fragment that c says. */
static __always_inline int write_fragment(struct __sk_buff *skb, const struct transmit *tx,
					  struct payload *p, const struct cut *c, int ipv6)
{
	__u32 headers = ETH_HLEN + (ipv6 ? sizeof(struct ipv6hdr) + sizeof(struct ip6_fragment)
					 : sizeof(struct iphdr));
	__u32 at = c->at, len = c->len;

	if (skb->len != headers + len && bpf_skb_change_tail(skb, headers + len, 0))
		return -1;
	if (ipv6 ? ip6_header(skb, tx, c) : ip4_header(skb, tx, c))
		return -1;
	if (at >= PAYLOAD_MAX || len == 0 || len > PAYLOAD_MAX)
		return -1;
	return bpf_skb_store_bytes(skb, headers, p->octets + at, len, 0);
}

/* Sends the payload in fragments of about the same size. */
static __always_inline int send_fragments(struct __sk_buff *skb, __u32 device, __u32 len, int ipv6)
{
	struct transmit *tx = bpf_map_lookup_elem(&pseudowires, &device);
	__u32 zero = 0, slot, step, n;
	struct payload *p = bpf_map_lookup_elem(&payloads, &zero);
	struct cut c = {};
	__u64 *next;

	if (!tx || !p)
		return TC_ACT_SHOT;
	slot = tx->id_slot;
	next = bpf_map_lookup_elem(&fragment_ids, &slot);
	if (!next)
		return drop(tx->session, ERROR);
	c.id = __sync_fetch_and_add(next, 1);
	if (ipv6) {
		step = tx->mtu - sizeof(struct ipv6hdr) - sizeof(struct ip6_fragment);
	} else {
		step = tx->mtu - sizeof(struct iphdr);
		c.id &= 0xffff;
	}
	step &= ~7;
	if (step < 8 || step > PAYLOAD_MAX)
		return drop(tx->session, ERROR);
	n = (len + step - 1) / step;
	if (n < 2 || n > MAX_FRAGMENTS)
		return drop(tx->session, OVERSIZE);
	step = ((len + n - 1) / n + 7) & ~7;

	c.len = step;
	c.more = 1;
	for (__u32 i = 1; i < MAX_FRAGMENTS && i < n; i++) {
		if (write_fragment(skb, tx, p, &c, ipv6) ||
		    bpf_clone_redirect(skb, tx->egress, 0))
			return drop(tx->session, ERROR);
		c.at += step;
	}
	c.len = len - c.at;
	c.more = 0;
	if (write_fragment(skb, tx, p, &c, ipv6))
		return drop(tx->session, ERROR);
	count(tx->session, FRAGMENTED);
	return bpf_redirect(tx->egress, 0);
}

__noinline int send_ip4_fragments(struct __sk_buff *skb, __u32 device, __u32 len)
{
	return send_fragments(skb, device, len, 0);
}

__noinline int send_ip6_fragments(struct __sk_buff *skb, __u32 device, __u32 len)
{
	return send_fragments(skb, device, len, 1);
}

static __always_inline int encap_checked(struct __sk_buff *skb, __u32 device)
{
	__u32 frame, ip_len, len;
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
	if (tx->vlan && (!tagged_for(skb, tx) || bpf_skb_vlan_pop(skb)))
		return drop(tx->session, WRONG_VLAN);
	if (take_tags(skb, &inner) || load_inner(skb, &inner))
		return drop(tx->session, ERROR);
	skb->mark = 0;
	clamp_mss(skb, ETH_HLEN, inner.ethertype, tx->room - inner.tags_len);

	frame = skb->len + inner.tags_len;
	ip_len = outer_ip_len(tx, frame);
	len = ip_len - ip_header_len(tx);
	if (len > PAYLOAD_MAX)
		return drop(tx->session, OVERSIZE);
	if (bpf_skb_change_head(skb, tx->outer_len + inner.tags_len, 0) ||
	    store_outer(skb, tx, ip_len) || store_inner(skb, tx->outer_len, &inner) ||
	    finish_udp(skb, tx, len))
		return drop(tx->session, ERROR);
	transmitted(tx, 1, frame);
	if (ip_len <= tx->mtu)
		return bpf_redirect(tx->egress, 0);
	return tx->flags & TX_IPV6 ? send_ip6_fragments(skb, device, len)
				   : send_ip4_fragments(skb, device, len);
}

SEC("tc")
int pwd_lane(struct __sk_buff *skb)
{
	__u32 device = skb->mark;
	int action;

	if (device != LANE_DECAP)
		return encap_checked(skb, device);
	action = decap(skb);
	/* Nothing that comes out here is for the host. */
	return action == PASS ? TC_ACT_SHOT : action;
}

#endif
