/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the programs are told by the agent, and what they tell it.
 *
 * These layouts are shared with package bpf's Go side and, where maps are
 * pinned, with the programs of the version before: whoever changes one raises
 * Layout in layout.go, which gives the new ones maps of their own.
 */
#ifndef PWD_MAPS_H
#define PWD_MAPS_H

#include "wire.h"

/* The mark of packets in the slow lane that are to be decapsulated; of frames that
 * are to be encapsulated it is the ifindex of the pseudowire's outer end.
 */
#define LANE_DECAP 0

enum event {
	WRONG_COOKIE,
	UNKNOWN_SESSION,
	OVERSIZE,
	NO_NEIGHBOUR,
	NOT_ESTABLISHED,
	WRONG_VLAN,
	ERROR,
	FRAGMENTED,
	EVENTS,
};

struct traffic {
	__u64 frames;
	__u64 octets;
};

struct counters {
	struct traffic received;
	struct traffic transmitted;
	__u64 events[EVENTS];
};

#define TX_ESTABLISHED 0x01 /* the peer takes frames */
#define TX_RESOLVED 0x02    /* outer has the next hop's address */
#define TX_CHECKSUM 0x04    /* outer packets carry a UDP checksum */
#define TX_IPV6 0x08	    /* the outer header is IPv6 */

/* How frames of one pseudowire leave. */
struct transmit {
	__u32 session;	/* local session ID, the counters' key */
	__u32 flags;	/* TX_* */
	__u32 egress;	/* ifindex of the underlay */
	__u32 lane;	/* ifindex of the slow lane's entry */
	__u32 mtu;	/* longest outer packet, IP header included */
	__u32 room;	/* longest MTU that the frames may use of it, for the MSS */
	__u32 outer_len; /* octets of outer in use: Ethernet to L2TP */
	__u32 ip_sum;	/* sum of the IPv4 header, its length and check left out */
	__u32 pseudo_sum; /* sum of UDP's pseudo header, its length left out */
	__u32 id_slot;	/* of fragment_ids */
	__u16 vlan;	/* tag taken off, host order; 0 is none */
	__u16 pad;
	__u8 outer[88];
};

#define RX_UP 0x01	 /* the device takes frames */
#define RX_SUBLAYER 0x02 /* the peer sends a default sublayer */

/* A flow of packets between two LCCEs as it arrives; IPv4 addresses are mapped. */
struct flow {
	__be32 local[4];
	__be32 remote[4];
	__be16 local_port;
	__be16 remote_port;
};

/* How packets of one session arrive. */
struct receive {
	__u64 cookie; /* as it stands in memory, 0 filled */
	struct flow flow;
	__u32 flags;	  /* RX_* */
	__u32 device;	  /* ifindex of the pseudowire's outer end */
	__u32 lane;	  /* ifindex of the slow lane's entry */
	__u32 mtu;	  /* of the pseudowire device */
	__u32 room;	  /* as in struct transmit */
	__u16 vlan;	  /* tag put on, host order; 0 is none */
	__u16 cookie_len; /* 0, 4 or 8 */
	__u32 pad;
};

#define MAX_PSEUDOWIRES 16384

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PSEUDOWIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* ifindex of the outer end */
	__type(value, struct transmit);
} pseudowires SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PSEUDOWIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be32); /* local session ID */
	__type(value, struct receive);
} sessions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PSEUDOWIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow);
	__type(value, __u32);
} tunnels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, MAX_PSEUDOWIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* local session ID, host order */
	__type(value, struct counters);
} counts SEC(".maps");

/* What belongs to no session. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EVENTS);
	__type(key, __u32);
	__type(value, __u64);
} global_counts SEC(".maps");

static __always_inline void count_global(__u32 event)
{
	__u64 *n = bpf_map_lookup_elem(&global_counts, &event);

	if (n)
		*n += 1;
}

static __always_inline void count(__u32 session, enum event event)
{
	struct counters *c = bpf_map_lookup_elem(&counts, &session);

	if (c)
		c->events[event] += 1;
	else
		count_global(event);
}

static __always_inline int drop(__u32 session, enum event event)
{
	count(session, event);
	return TC_ACT_SHOT;
}

#endif
