/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the choice of a way works with (steer.h), in the scratch of the program that makes it. */
#ifndef PWD_STEERING_H
#define PWD_STEERING_H

#include "wire.h"

#define MAX_PSEUDOWIRES 16384

/* The key of one of several ways out of a pseudowire: this bit, the ifindex of the outer end,
 * and the way's index.
 */
#define WAY 0x04000000
#define WAY_SHIFT 3

#define NO_PCP 8 /* of frames without a tag; in the slow lane they are as those with 0 */

/* What rules look at: what is on the wire in network order is a number here. */
struct headers {
	__u64 octets[5]; /* those read last */
	__u64 dscp;	 /* its bit; all where there is none */
	__u64 source[2], destination[2];
	__u64 source_mac, destination_mac;
	__u32 family, pcp, vlan, ethertype;
	__u32 protocol, source_port, destination_port, pad;
};

struct steering {
	struct headers headers;
	__u32 rule;
	__u32 ways, was, only; /* as in struct rule */
};

#endif
