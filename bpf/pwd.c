// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

//go:build ignore

/* The eBPF datapath: L2TPv3 Ethernet pseudowires in programs of the traffic
 * control hook. encap.h, decap.h and lane.h have the programs, maps.h what they
 * share with the agent; order.h and ecn.h are what some sessions ask for, toobig.h some
 * tunnels, steer.h some pseudowires. port.h is for
 * attachment circuits without a bridge, clamp.h for the kernel's l2tp_eth, classify.h
 * for pwctl classify.
 */
#include "encap.h"
#include "decap.h"
#include "lane.h"
#include "port.h"
#include "clamp.h"
#include "classify.h"

char _license[] SEC("license") = "Dual BSD/GPL";
