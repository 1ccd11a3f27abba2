// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

//go:build ignore

/* Suppression of address resolution: requests for addresses that are known behind a
 * pseudowire of a network are answered, and cross none of its pseudowires (RFC 826; RFC
 * 4861, Section 7). The programs are at both hooks of each of a network's devices, which
 * share the maps: each network has programs and maps of its own.
 *
 * Which address belongs to which MAC address is learned from what comes out of the
 * pseudowires. Where that MAC address is, is learned apart from it, so that one frame of
 * a host that has moved is enough, whatever address resolution it does.
 */
#include "wire.h"

#define MAX_NEIGHBOURS 8192
#define MAX_STATIONS 8192
#define MAX_TOLD 16384
#define MAX_DEVICES 2048

/* The marks of frames that come to a device's ingress from a program: an answer of ours, and
 * one that native service processing sends through once more (nsp.c).
 */
#define ANSWER 0x70770002
#define AGAIN 0x70770001

/* Nanoseconds for which an address is answered for after its host has last said whose it is. */
volatile const __u64 lifetime = 120000000000;

struct neighbour_key {
	__u64 ip[2]; /* that of IPv4 is IPv4-mapped (RFC 4291, Section 2.5.5.2) */
	__u64 vlan;
};

struct neighbour {
	__u64 seen;
	__u8 mac[ETH_ALEN];
	__u16 router; /* the R bit of its advertisement (RFC 4861, Section 4.4) */
};

struct station_key {
	__u8 mac[ETH_ALEN];
	__u16 vlan;
};

/* An address on this side, and a device that its host has been heard through. */
struct told_key {
	struct neighbour_key address;
	__u64 device;
};

struct told {
	__u64 at;
	__u8 mac[ETH_ALEN];
	__u16 pad;
};

struct suppressions {
	__u64 answered; /* and so kept from crossing */
	__u64 withheld; /* as they are answered at another pseudowire's device */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_NEIGHBOURS);
	__type(key, struct neighbour_key);
	__type(value, struct neighbour);
} neighbours SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_TOLD);
	__type(key, struct told_key);
	__type(value, struct told);
} tellings SEC(".maps");

/* The device that a MAC address is behind. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_STATIONS);
	__type(key, struct station_key);
	__type(value, __u32);
} stations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_DEVICES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* ifindex of the pseudowire's device */
	__type(value, struct suppressions);
} counts SEC(".maps");

/* RFC 826, of Ethernet and IPv4. */
struct arp {
	__be16 hrd;
	__be16 pro;
	__u8 hln;
	__u8 pln;
	__be16 op;
	__u8 sha[ETH_ALEN];
	__u8 sip[4];
	__u8 tha[ETH_ALEN];
	__u8 tip[4];
};

#define ARP_ETHERNET 1
#define ARP_REQUEST 1
#define ARP_REPLY 2

/* RFC 4861, Sections 4.3, 4.4 and 4.6.1: a solicitation or an advertisement with a
 * link-layer address as its only option.
 */
struct nd {
	__u8 type;
	__u8 code;
	__be16 check;
	__u8 flags;
	__u8 reserved[3];
	__u8 target[16];
	__u8 option;
	__u8 length;
	__u8 mac[ETH_ALEN];
};

#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136
#define ND_SOURCE 1
#define ND_TARGET 2
#define ND_ROUTER 0x80
#define ND_SOLICITED 0x40
#define ND_OVERRIDE 0x20
#define ND_HOP_LIMIT 255

/* What is written to the stack is written by words of eight octets, which are put together in
 * registers: the verifier of 6.1 takes a write to a part of a word for one that corrupts a
 * pointer, if another part was written before. WORD and HALF put their first part first in memory.
 */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define WORD(first, second) ((__u64)(__u32)(first) | (__u64)(__u32)(second) << 32)
#define HALF(first, second) ((__u32)(__u16)(first) | (__u32)(__u16)(second) << 16)
#else
#define WORD(first, second) ((__u64)(__u32)(first) << 32 | (__u32)(second))
#define HALF(first, second) ((__u32)(__u16)(first) << 16 | (__u16)(second))
#endif

#define ALIGNED __attribute__((aligned(8)))

static __always_inline __u64 get64(const void *from)
{
	__u64 v;

	__builtin_memcpy(&v, from, sizeof(v));
	return v;
}

static __always_inline __u32 get32(const void *from)
{
	__u32 v;

	__builtin_memcpy(&v, from, sizeof(v));
	return v;
}

static __always_inline __u16 get16(const void *from)
{
	__u16 v;

	__builtin_memcpy(&v, from, sizeof(v));
	return v;
}

/* A MAC address, and what is beside it. */
static __always_inline __u64 word_of(const __u8 *mac, __u16 beside)
{
	return WORD(get32(mac), HALF(get16(mac + 4), beside));
}

struct frame {
	struct ethhdr eth;
	__u64 l3;
	__u64 vlan;
	__u64 type; /* in network order */
};

/* Reads the frame's Ethernet header, and one tag. Frames with more, or with a service tag,
 * are nothing to us.
 */
static __always_inline int read_frame(struct __sk_buff *skb, struct frame *f)
{
	struct {
		__be16 tci;
		__be16 type;
	} tag;

	if (bpf_skb_load_bytes(skb, 0, &f->eth, sizeof(f->eth)))
		return -1;
	f->type = f->eth.h_proto;
	f->l3 = ETH_HLEN;
	f->vlan = 0;
	if (skb->vlan_present) {
		if (skb->vlan_proto != bpf_htons(ETH_P_8021Q))
			return -1;
		f->vlan = skb->vlan_tci & VLAN_VID_MASK;
	} else if (f->type == bpf_htons(ETH_P_8021Q)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &tag, sizeof(tag)))
			return -1;
		f->vlan = bpf_ntohs(tag.tci) & VLAN_VID_MASK;
		f->type = tag.type;
		f->l3 += sizeof(tag);
	}
	return is_tag(f->type) || f->eth.h_source[0] & 1 ? -1 : 0;
}

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] &&
	       a[5] == b[5];
}

static __always_inline void key_of_ip4(struct neighbour_key *key, const __u8 *ip, __u64 vlan)
{
	key->ip[0] = 0;
	key->ip[1] = WORD(bpf_htonl(0xffff), get32(ip));
	key->vlan = vlan;
}

static __always_inline void key_of_ip6(struct neighbour_key *key, const void *ip, __u64 vlan)
{
	key->ip[0] = get64(ip);
	key->ip[1] = get64(ip + 8);
	key->vlan = vlan;
}

static __always_inline int is_unspecified(const struct neighbour_key *key)
{
	return !key->ip[0] && (!key->ip[1] || key->ip[1] == WORD(bpf_htonl(0xffff), 0));
}

/* A struct station_key as a word. */
static __always_inline __u64 station_of(const __u8 *mac, __u64 vlan)
{
	return word_of(mac, vlan);
}

/* Reads an ARP message that is a request or a reply. */
static __always_inline int read_arp(struct __sk_buff *skb, const struct frame *f, struct arp *arp)
{
	if (bpf_skb_load_bytes(skb, f->l3, arp, sizeof(*arp)))
		return -1;
	if (arp->hrd != bpf_htons(ARP_ETHERNET) || arp->pro != bpf_htons(ETH_P_IP) ||
	    arp->hln != ETH_ALEN || arp->pln != sizeof(arp->sip))
		return -1;
	return arp->op == bpf_htons(ARP_REQUEST) || arp->op == bpf_htons(ARP_REPLY) ? 0 : -1;
}

/* Reads a solicitation or advertisement; what is behind extension headers is none (RFC 4861,
 * Section 7.1). The result is the type of the only option, 0 where there are others or none
 * or it is longer than an address, and negative if it is no such message.
 */
static __always_inline int read_nd(struct __sk_buff *skb, const struct frame *f,
				   struct ipv6hdr *ip, struct nd *nd)
{
	const __u32 least = offsetof(struct nd, option);
	int has_option;
	__u32 at;

	if (bpf_skb_load_bytes(skb, f->l3, ip, sizeof(*ip)) || ip->version != 6 ||
	    ip->nexthdr != IPPROTO_ICMPV6 || ip->hop_limit != ND_HOP_LIMIT)
		return -1;
	if (bpf_skb_load_bytes(skb, f->l3 + sizeof(*ip), nd, least))
		return -1;
	if ((nd->type != ND_SOLICITATION && nd->type != ND_ADVERTISEMENT) || nd->code ||
	    nd->target[0] == 0xff)
		return -1;
	has_option = ip->payload_len == bpf_htons(sizeof(*nd));
	/* Where there is none, something is read nevertheless: the verifier follows the branches
	 * that a processor may take by mistake, too.
	 */
	at = has_option ? f->l3 + sizeof(*ip) + least : 0;
	if (bpf_skb_load_bytes(skb, at, &nd->option, sizeof(*nd) - least))
		return -1;
	return has_option && nd->length == 1 ? nd->option : 0;
}

static __always_inline void learn(const struct neighbour_key *key, const __u8 *mac, __u8 router)
{
	/* A struct neighbour. */
	__u64 n[] = {bpf_ktime_get_ns(), word_of(mac, router)};

	bpf_map_update_elem(&neighbours, key, n, BPF_ANY);
}

/* What is said of an address behind a pseudowire. The switch's table has the frame's source:
 * another address is not known to be reached the same way.
 */
static __always_inline void learn_arp(const struct frame *f, const struct arp *arp)
{
	struct neighbour_key key;

	key_of_ip4(&key, arp->sip, f->vlan);
	if (is_unspecified(&key))
		return;
	if (same_mac(arp->sha, f->eth.h_source))
		learn(&key, arp->sha, 0);
	else
		bpf_map_delete_elem(&neighbours, &key);
}

static __always_inline void learn_nd(const struct frame *f, const struct ipv6hdr *ip,
				     const struct nd *nd, int option)
{
	struct neighbour_key key;
	struct neighbour *n;

	if (nd->type == ND_ADVERTISEMENT) {
		key_of_ip6(&key, nd->target, f->vlan);
		/* Without the override flag it may not be the only one that answers. */
		if (option == ND_TARGET && nd->flags & ND_OVERRIDE &&
		    same_mac(nd->mac, f->eth.h_source))
			learn(&key, nd->mac, nd->flags & ND_ROUTER);
		else
			bpf_map_delete_elem(&neighbours, &key);
		return;
	}
	/* A solicitation does not say whether its source is a router. */
	key_of_ip6(&key, &ip->saddr, f->vlan);
	n = bpf_map_lookup_elem(&neighbours, &key);
	if (n && !same_mac(n->mac, f->eth.h_source))
		bpf_map_delete_elem(&neighbours, &key);
}

/* Out of the pseudowire: the ingress of its device. */
SEC("tc")
int pwd_learn(struct __sk_buff *skb)
{
	__u32 device = skb->ifindex;
	struct ipv6hdr ip ALIGNED;
	struct arp arp ALIGNED;
	struct nd nd ALIGNED;
	struct frame f;
	__u64 station;
	int option;

	if (skb->mark == ANSWER) {
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	if (skb->mark == AGAIN || read_frame(skb, &f))
		return TC_ACT_UNSPEC;
	if (f.type == bpf_htons(ETH_P_ARP)) {
		if (!read_arp(skb, &f, &arp))
			learn_arp(&f, &arp);
	} else if (f.type == bpf_htons(ETH_P_IPV6)) {
		option = read_nd(skb, &f, &ip, &nd);
		if (option < 0)
			return TC_ACT_UNSPEC;
		learn_nd(&f, &ip, &nd, option);
	} else if (f.type != bpf_htons(ETH_P_RARP)) {
		return TC_ACT_UNSPEC;
	}
	station = station_of(f.eth.h_source, f.vlan);
	bpf_map_update_elem(&stations, &station, &device, BPF_ANY);
	return TC_ACT_UNSPEC;
}

/* An address that speaks on this side: it is not behind this pseudowire any more, and not
 * that of another host behind any.
 */
static __always_inline void forget(const struct neighbour_key *key, const struct frame *f,
				   __u32 device)
{
	struct neighbour *n = bpf_map_lookup_elem(&neighbours, key);
	__u32 *behind;
	__u64 station;

	if (!n)
		return;
	station = station_of(n->mac, f->vlan);
	behind = bpf_map_lookup_elem(&stations, &station);
	if (!behind || *behind == device || !same_mac(n->mac, f->eth.h_source))
		bpf_map_delete_elem(&neighbours, key);
}

static __always_inline void forget_station(const struct frame *f, __u32 device)
{
	__u64 station = station_of(f->eth.h_source, f->vlan);
	__u32 *behind;

	behind = bpf_map_lookup_elem(&stations, &station);
	if (behind && *behind == device)
		bpf_map_delete_elem(&stations, &station);
}

/* Requests tell others whose the sender's address is (RFC 826; RFC 4861, Section 7.2.3). One that
 * has told nobody there lately, or of another MAC address, crosses whatever is known of its target.
 */
static __always_inline int has_told(const struct neighbour_key *sender, const struct frame *f,
				    __u32 device)
{
	struct told_key key = {.address = *sender, .device = device};
	struct told *before = bpf_map_lookup_elem(&tellings, &key);
	/* A struct told. */
	__u64 now[] = {bpf_ktime_get_ns(), word_of(f->eth.h_source, 0)};

	if (before && now[0] - before->at <= lifetime && same_mac(before->mac, f->eth.h_source))
		return 1;
	bpf_map_update_elem(&tellings, &key, now, BPF_ANY);
	return 0;
}

/* A neighbour that can be answered for to this frame's source, and the device that it is
 * behind.
 */
static __always_inline struct neighbour *find(const struct neighbour_key *key,
					      const struct frame *f, __u32 *behind)
{
	struct neighbour *n = bpf_map_lookup_elem(&neighbours, key);
	__u64 station;
	__u32 *device;

	if (!n || bpf_ktime_get_ns() - n->seen > lifetime || same_mac(n->mac, f->eth.h_source))
		return 0;
	station = station_of(n->mac, f->vlan);
	device = bpf_map_lookup_elem(&stations, &station);
	if (!device)
		return 0;
	*behind = *device;
	return n;
}

static __always_inline int is_broadcast(const __u8 *mac)
{
	return (mac[0] & mac[1] & mac[2] & mac[3] & mac[4] & mac[5]) == 0xff;
}

static __always_inline int turn_round(struct __sk_buff *skb, const struct frame *f,
				      const __u8 *source)
{
	const __u8 *to = f->eth.h_source;
	__u64 addresses[] = {word_of(to, get16(source)), WORD(get32(source + 2), 0)};

	return bpf_skb_store_bytes(skb, 0, addresses, 2 * ETH_ALEN, BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int answer_arp(struct __sk_buff *skb, const struct frame *f,
				      const struct arp *arp, const __u8 *mac)
{
	/* A struct arp. */
	__u64 answer[] = {
		WORD(HALF(bpf_htons(ARP_ETHERNET), bpf_htons(ETH_P_IP)),
		     HALF(bpf_htons(ETH_ALEN << 8 | sizeof(arp->sip)), bpf_htons(ARP_REPLY))),
		word_of(mac, get16(arp->tip)),
		WORD(HALF(get16(arp->tip + 2), get16(arp->sha)), get32(arp->sha + 2)),
		WORD(get32(arp->sip), 0),
	};

	return bpf_skb_store_bytes(skb, f->l3, answer, sizeof(*arp), BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int answer_nd(struct __sk_buff *skb, const struct frame *f,
				     const struct ipv6hdr *ip, const struct nd *nd,
				     const struct neighbour *n)
{
	const __be16 type = bpf_htons(ND_ADVERTISEMENT << 8);
	const __u32 flags = ND_SOLICITED | ND_OVERRIDE | (n->router & ND_ROUTER);
	__u64 addresses[] = {get64(nd->target), get64(nd->target + 8), get64(&ip->saddr),
			     get64((void *)&ip->saddr + 8)};
	__u64 pseudo[] = {WORD(bpf_htonl(sizeof(*nd)), bpf_htonl(IPPROTO_ICMPV6))};
	/* A struct nd. */
	__u64 answer[] = {
		WORD(HALF(type, 0), bpf_htonl(flags << 24)),
		addresses[0],
		addresses[1],
		WORD(HALF(bpf_htons(ND_TARGET << 8 | 1), get16(n->mac)), get32(n->mac + 2)),
	};
	__s64 sum;

	sum = bpf_csum_diff(0, 0, (__be32 *)addresses, sizeof(addresses), 0);
	if (sum < 0)
		return -1;
	sum = bpf_csum_diff(0, 0, (__be32 *)pseudo, sizeof(pseudo), sum);
	if (sum < 0)
		return -1;
	sum = bpf_csum_diff(0, 0, (__be32 *)answer, sizeof(answer), sum);
	if (sum < 0)
		return -1;
	sum = (sum & 0xffff) + ((__u32)sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	answer[0] = WORD(HALF(type, ~sum), bpf_htonl(flags << 24));
	if (bpf_skb_store_bytes(skb, f->l3 + offsetof(struct ipv6hdr, saddr), addresses,
				sizeof(addresses), BPF_F_RECOMPUTE_CSUM))
		return -1;
	return bpf_skb_store_bytes(skb, f->l3 + sizeof(*ip), answer, sizeof(answer),
				   BPF_F_RECOMPUTE_CSUM);
}

/* The answer comes out of the pseudowire, as the host's own would. */
static __always_inline int send_answer(struct __sk_buff *skb, __u32 device)
{
	struct suppressions *count = bpf_map_lookup_elem(&counts, &device);

	if (count)
		__sync_fetch_and_add(&count->answered, 1);
	skb->mark = ANSWER;
	return bpf_redirect(device, BPF_F_INGRESS);
}

static __always_inline int withhold(__u32 device)
{
	struct suppressions *count = bpf_map_lookup_elem(&counts, &device);

	if (count)
		__sync_fetch_and_add(&count->withheld, 1);
	return TC_ACT_SHOT;
}

static __always_inline int into_arp(struct __sk_buff *skb, struct frame *f, __u32 device)
{
	struct neighbour_key key, target;
	struct neighbour *n, copy;
	struct arp arp ALIGNED;
	__u32 behind;

	if (read_arp(skb, f, &arp))
		return TC_ACT_UNSPEC;
	key_of_ip4(&key, arp.sip, f->vlan);
	if (is_unspecified(&key))
		return TC_ACT_UNSPEC; /* a probe (RFC 5227): it asks the owner itself */
	forget(&key, f, device);
	if (arp.op != bpf_htons(ARP_REQUEST) || !is_broadcast(f->eth.h_dest) ||
	    !same_mac(arp.sha, f->eth.h_source) || !has_told(&key, f, device))
		return TC_ACT_UNSPEC;
	key_of_ip4(&target, arp.tip, f->vlan);
	n = find(&target, f, &behind);
	if (!n)
		return TC_ACT_UNSPEC; /* an announcement's own address is not behind any */
	if (behind != device)
		return withhold(device);
	copy = *n;
	if (turn_round(skb, f, copy.mac) || answer_arp(skb, f, &arp, copy.mac))
		return withhold(device); /* half an answer is no request any more */
	return send_answer(skb, device);
}

static __always_inline int into_nd(struct __sk_buff *skb, struct frame *f, __u32 device)
{
	struct neighbour_key key, target;
	struct neighbour *n, copy;
	struct ipv6hdr ip ALIGNED;
	struct nd nd ALIGNED;
	__u32 behind;
	int option;

	option = read_nd(skb, f, &ip, &nd);
	if (option < 0)
		return TC_ACT_UNSPEC;
	forget_station(f, device);
	if (nd.type == ND_ADVERTISEMENT) {
		key_of_ip6(&key, nd.target, f->vlan);
		forget(&key, f, device);
		return TC_ACT_UNSPEC;
	}
	key_of_ip6(&key, &ip.saddr, f->vlan);
	if (is_unspecified(&key))
		return TC_ACT_UNSPEC; /* duplicate address detection (RFC 4862, Section 5.4) */
	forget(&key, f, device);
	if (option != ND_SOURCE || !(f->eth.h_dest[0] & 1) ||
	    !same_mac(nd.mac, f->eth.h_source) || !has_told(&key, f, device))
		return TC_ACT_UNSPEC;
	key_of_ip6(&target, nd.target, f->vlan);
	n = find(&target, f, &behind);
	if (!n)
		return TC_ACT_UNSPEC;
	if (behind != device)
		return withhold(device);
	copy = *n;
	if (turn_round(skb, f, copy.mac) || answer_nd(skb, f, &ip, &nd, &copy))
		return withhold(device);
	return send_answer(skb, device);
}

/* Into the pseudowire: the egress of its device. */
SEC("tc")
int pwd_answer(struct __sk_buff *skb)
{
	__u32 device = skb->ifindex;
	struct frame f;

	if (read_frame(skb, &f))
		return TC_ACT_UNSPEC;
	if (f.type == bpf_htons(ETH_P_ARP)) {
		forget_station(&f, device);
		return into_arp(skb, &f, device);
	}
	if (f.type == bpf_htons(ETH_P_IPV6))
		return into_nd(skb, &f, device);
	if (f.type == bpf_htons(ETH_P_RARP))
		forget_station(&f, device);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
