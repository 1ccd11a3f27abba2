/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the programs are told by the agent, and what they tell it.
 *
 * These layouts are shared with package bpf's Go side and, where maps are
 * pinned, with the programs of the version before: whoever changes one raises
 * Layout in doc.go, which gives the new ones maps of their own.
 */
#ifndef PWD_MAPS_H
#define PWD_MAPS_H

#include "steering.h"

/* The marks of packets in the slow lane that are to be decapsulated: those that the
 * program at the underlay sent there, and those that the stack has put together from
 * fragments. The mark of frames that are to be encapsulated is the ifindex of the
 * pseudowire's outer end, which is positive, and above that the priority bits of the
 * frame's first tag.
 */
#define LANE_DEVICE 0x07ffffff
/* In its place there may be one of several ways out of a pseudowire: WAY. */
#define LANE_PCP_SHIFT 27
#define LANE_DECAP 0
#define LANE_REASSEMBLED 0x80000000
/* The mark of the agent's packets: packets of the session that is named in it are held
 * no longer (order.h).
 */
#define LANE_RELEASE 0x80000001
/* In the mark of packets that are complete and leave through an underlay without
 * Ethernet headers, beside the outer end's ifindex or the way (see leave).
 */
#define LANE_LEAVE 0x40000000
#define LANE_MARKS 0xc0000000

enum event {
	WRONG_COOKIE,
	UNKNOWN_SESSION,
	OVERSIZE,
	NO_NEIGHBOUR,
	NOT_ESTABLISHED,
	WRONG_VLAN,
	ERROR,
	FRAGMENTED,
	OUT_OF_SEQUENCE,
	CONGESTION,
	REASSEMBLED,
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
#define TX_IP 0x10	    /* L2TP is directly over IP */
#define TX_ECN 0x20	    /* the ECN field of IP inside is copied outside */
#define TX_KEEP_TAG 0x40    /* the tag vlan stays on */
#define TX_NUMBER_ALL 0x80  /* packets have sequence numbers */
#define TX_NUMBER_OTHERS 0x100 /* those that have no IP inside */
#define TX_DF 0x200	    /* packets do not leave in fragments */
#define TX_COPY_DSCP 0x400  /* the DSCP of IP inside is copied outside */
#define TX_MAP_PCP 0x800    /* the DSCP outside is that in dscp */
#define TX_STEERED 0x1000   /* there are several ways, and rules for them (steer.h) */
#define TX_NO_ETHERNET 0x8000  /* the underlay takes packets without an Ethernet header */
#define TX_ONE_BY_ONE (TX_IP | TX_CHECKSUM | TX_NUMBER_ALL) /* segments leave apart */

/* How frames of one pseudowire leave. */
struct transmit {
	__u32 session;	  /* local session ID, the counters' key */
	__u32 flags;	  /* TX_* */
	__u32 egress;	  /* ifindex of the underlay */
	__u32 lane;	  /* ifindex of the slow lane's entry */
	__u32 mtu;	  /* longest outer packet, IP header included */
	__u32 room;	  /* longest IP packet that an untagged frame may have in it */
	__u32 outer_len;  /* octets of outer in use: Ethernet to L2TP */
	__u32 ip_sum;	  /* sum of the IPv4 header, its length and check left out */
	__u32 pseudo_sum; /* sum of UDP's pseudo header, its length left out */
	__u32 id_slot;	  /* of fragment_ids */
	__u32 vlan;	  /* tag taken off; 0 is none */
	__u32 priority;	  /* of outer packets: a class of the underlay's qdisc */
	__u32 device;	  /* ifindex of the pseudowire's outer end */
	__u32 unused;
	__u64 dscp;	  /* an octet for each PCP of the frame's first tag: the DSCP as in
			   * IPv4's octet; those of PCP 0 are the lowest bits */
	__u64 outer[11]; /* the headers, copied as words */
};

#define RX_UP 0x01	 /* the device takes frames */
#define RX_SUBLAYER 0x02 /* the peer sends a default sublayer */
#define RX_NUMBERS 0x04	 /* sequence numbers count */
#define RX_ECN 0x08	 /* the ECN field outside counts */
#define RX_KEEP_TAG 0x10 /* a tag that is there becomes the tag vlan */

/* A flow of packets between two LCCEs as it arrives: addresses as on the wire, those
 * of IPv4 mapped into IPv6, and in the first octets of ports the local and the
 * remote one. Directly over IP the last octet is the protocol's number instead.
 */
struct flow {
	__u64 local[2];
	__u64 remote[2];
	__u64 ports;
};

/* How packets of one session arrive. */
struct receive {
	__u64 cookie;	   /* as it stands in memory, 0 filled */
	__u64 previous;	   /* the one before it, while the peer may still use that; else the same */
	__u64 cookie_mask; /* of as many octets as it has */
	struct flow flow;
	__u32 flags;	  /* RX_* */
	__u32 device;	  /* ifindex of the pseudowire's outer end */
	__u32 lane;	  /* ifindex of the slow lane's entry */
	__u32 mtu;	  /* of the pseudowire device */
	__u32 room;	  /* as in struct transmit */
	__u32 port;	  /* ifindex of the cross-connected port, 0 is none (port.h) */
	__u16 vlan;	  /* tag put on; 0 is none */
	__u16 cookie_len; /* 0, 4 or 8 */
	__u16 port_vlan;  /* as vlan, of frames that leave through the port */
	__u16 pad;
	__u32 inner;	  /* ifindex of the pseudowire device, 0: all frames go over the outer end */
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10 * MAX_PSEUDOWIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* ifindex of the outer end; of the device, the same once more; ways */
	__type(value, struct transmit);
} pseudowires SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PSEUDOWIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* local session ID */
	__type(value, struct receive);
} sessions SEC(".maps");

#define TUNNEL_OURS 0x01 /* no session in the flow is anybody else's */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PSEUDOWIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow);
	__type(value, __u32); /* TUNNEL_* */
} tunnels SEC(".maps");

/* The sequence number that a session's next numbered packet gets, of sessions that
 * number theirs. It counts on beyond 24 bits.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PSEUDOWIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* local session ID */
	__type(value, __u64);
} numbers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, MAX_PSEUDOWIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* local session ID */
	__type(value, struct counters);
} counts SEC(".maps");

/* What belongs to no session. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EVENTS);
	__type(key, __u32);
	__type(value, __u64);
} global_counts SEC(".maps");

#define PAYLOAD_CHUNK 512
#define PAYLOAD_MAX (19 * PAYLOAD_CHUNK)

/* A place to work in, each CPU its own. Loops are calls of bpf_loop, and what
 * changes from one turn to the next is here: without CAP_PERFMON the verifier wants
 * to see the same state at each turn, and of what is in a map it knows nothing. Nor
 * does that of Linux 6.1 then take two writes to one word of the stack.
 */
struct scratch {
	struct {
		__u32 at;
		__u32 end;
		__u32 tcp;
		__u32 limit;
	} options; /* of a TCP header (mss.h) */
	struct {
		__u32 len;
		__u32 sum;
	} checksum; /* of the payload (lane.h) */
	struct {
		__u32 id;
		__u32 at;  /* offset in the payload */
		__u32 len; /* octets of payload */
		__u32 more;
		__u32 left; /* octets of payload from at on */
		__u32 tos;
		__u32 failed;
	} fragment; /* the next one (lane.h) */
	struct {
		__u32 session; /* 0 is none */
		__u32 later;
		__u32 number;
		__u32 all;
	} turn; /* what is to be delivered from the store (order.h) */
	struct steering steering; /* which way a frame takes (steer.h) */
	/* What fragments have in their headers (lane.h). */
	struct {
		__be16 tot_len;
		__be16 id;
		__be16 frag_off;
		__u8 ttl;
		__u8 protocol;
		__u16 check;
	} ip4;
	struct {
		__be16 payload_len;
		__u8 nexthdr;
		__u8 hop_limit;
		struct ip6_fragment fragment;
	} ip6;
	/* The outer packet from the UDP header on. The verifier knows the bounds of
	 * an offset and of a length, not of their sum: hence the room.
	 */
	__u8 payload[PAYLOAD_MAX];
	__u8 room[PAYLOAD_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

static __always_inline struct scratch *scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratches, &zero);
}

/* Functions of their own, which the verifier looks at once, for any arguments:
 * inlined, or looked at for each call, an offset into the counters would depend on
 * the way to it, and that it refuses without CAP_PERFMON.
 */
__noinline int count_global(__u32 event)
{
	__u64 *n = bpf_map_lookup_elem(&global_counts, &event);

	if (n)
		*n += 1;
	return 0;
}

__noinline int count(__u32 session, __u32 event)
{
	struct counters *c = bpf_map_lookup_elem(&counts, &session);

	if (!c)
		return count_global(event);
	if (event < EVENTS)
		c->events[event] += 1;
	return 0;
}

__noinline int count_transmitted(__u32 session, __u32 frames, __u64 octets)
{
	struct counters *c = bpf_map_lookup_elem(&counts, &session);

	if (c) {
		c->transmitted.frames += frames;
		c->transmitted.octets += octets;
	}
	return 0;
}

__noinline int count_received(__u32 session, __u64 octets)
{
	struct counters *c = bpf_map_lookup_elem(&counts, &session);

	if (c) {
		c->received.frames += 1;
		c->received.octets += octets;
	}
	return 0;
}

static __always_inline int drop(__u32 session, enum event event)
{
	count(session, event);
	return TC_ACT_SHOT;
}

/* Drops a frame of the pseudowire whose device has that outer end. */
static __noinline int drop_at(__u32 device, __u32 event)
{
	struct transmit *tx = bpf_map_lookup_elem(&pseudowires, &device);

	if (tx)
		return drop(tx->session, event);
	count_global(event);
	return TC_ACT_SHOT;
}

#endif
