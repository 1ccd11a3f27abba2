// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

//go:build ignore

/* Frames into a pseudowire that has several sessions, each with a device of its own, as those
 * of the kernel's l2tp_eth: to the device of the session that sends, or to that which rules
 * say (steer.h). The program is at the ingress of the outer end of the pseudowire's veth pair.
 */
#include "steering.h"

struct scratch {
	struct steering steering;
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

#include "steer.h"

#define EXIT_STEERED 0x01 /* there are several ways, and rules for them */

/* Where frames leave. */
struct exit {
	__u32 device;  /* ifindex of a session's device */
	__u32 session; /* its local ID */
	__u32 flags;   /* EXIT_* */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 9 * MAX_PSEUDOWIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* ifindex of the outer end; ways */
	__type(value, struct exit);
} exits SEC(".maps");

/* Frames that no session took. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

static __always_inline void count_lost(void)
{
	__u32 zero = 0;
	__u64 *n = bpf_map_lookup_elem(&lost, &zero);

	if (n)
		*n += 1;
}

SEC("tc")
int pwd_spread(struct __sk_buff *skb)
{
	__u32 key = skb->ifindex;
	struct exit *x = bpf_map_lookup_elem(&exits, &key);

	if (x && (x->flags & EXIT_STEERED)) {
		note_pcp(skb);
		key = choose_way(skb, key, 0);
		x = bpf_map_lookup_elem(&exits, &key);
	}
	if (!x) {
		count_lost();
		return TC_ACT_SHOT;
	}
	return bpf_redirect(x->device, 0);
}

/* Says what becomes of a frame, as pwd_classify does of the eBPF datapath's (classify.h): it
 * is run, and never attached. The mark is the outer end. The answer is in cb: the rule and the
 * session.
 */
SEC("tc")
int pwd_foretell(struct __sk_buff *skb)
{
	struct scratch *s;
	struct exit *x;
	__u32 key;

	if (note_asked(skb))
		return TC_ACT_UNSPEC;
	key = choose_way(skb, skb->mark, 1);
	x = bpf_map_lookup_elem(&exits, &key);
	s = scratch();
	if (!x || !s)
		return TC_ACT_UNSPEC;
	skb->cb[0] = s->steering.rule;
	skb->cb[4] = x->session;
	return TC_ACT_OK;
}

char _license[] SEC("license") = "Dual BSD/GPL";
