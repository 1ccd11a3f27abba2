// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

//go:build ignore

/* Native service processing (RFC 3985, Section 4.2.2; RFC 4448, Section 3): what
 * happens to frames between an attachment circuit and its pseudowire that the
 * datapaths do not do themselves. The programs are at both hooks of a pseudowire's
 * device, so that any datapath can have them, and in an object of their own.
 */
#include "tags.h"
#include "storm.h"

/* Link-local groups: 01-80-C2-00-00-0x (IEEE 802.1Q, Table 8-1). */
static __always_inline int is_refused_group(const struct service *s, const struct ethhdr *eth)
{
	const __u8 *d = eth->h_dest;

	if (d[0] != 0x01 || d[1] != 0x80 || d[2] != 0xc2 || d[3] || d[4] || d[5] > 0x0f)
		return 0;
	return !(s->groups >> d[5] & 1);
}

/* The mark of frames that come once more. */
#define AGAIN 0x70770001

static __always_inline int refuse(__u32 device, __u32 reason)
{
	count_refused(device, reason);
	return TC_ACT_SHOT;
}

/* From the attachment circuit into the pseudowire: the egress of its device. */
SEC("tc")
int pwd_into(struct __sk_buff *skb)
{
	__u32 device = skb->ifindex;
	struct service *s = bpf_map_lookup_elem(&services, &device);
	struct ethhdr eth;
	int kind;

	if (!s || bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return TC_ACT_UNSPEC;
	if (!is_admitted(skb, s, device))
		return refuse(device, INTO | REFUSED_VLAN);
	if (is_refused_group(s, &eth))
		return refuse(device, INTO | REFUSED_GROUP);
	kind = is_over(skb, s, device, &eth, INTO);
	if (kind >= 0)
		return refuse(device, INTO | kind);
	if (take_tags_off(skb, s))
		return refuse(device, INTO | REFUSED_ERROR);
	return TC_ACT_UNSPEC;
}

/* Out of the pseudowire into the attachment circuit: the ingress of its device. */
SEC("tc")
int pwd_out(struct __sk_buff *skb)
{
	__u32 device = skb->ifindex;
	struct service *s = bpf_map_lookup_elem(&services, &device);
	struct ethhdr eth;
	int kind, put;

	if (skb->mark == AGAIN) {
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	if (!s || bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return TC_ACT_UNSPEC;
	if (!(s->flags & (SERVICE_PUSH | SERVICE_REWRITE)) && !is_admitted(skb, s, device))
		return refuse(device, OUT | REFUSED_VLAN);
	if (is_refused_group(s, &eth))
		return refuse(device, OUT | REFUSED_GROUP);
	kind = is_over(skb, s, device, &eth, OUT);
	if (kind >= 0)
		return refuse(device, OUT | kind);
	if (is_policed(skb, s, device))
		return refuse(device, OUT | POLICED);
	put = put_tags_on(skb, s);
	if (put < 0)
		return refuse(device, OUT | REFUSED_ERROR);
	if (!put)
		return TC_ACT_UNSPEC;
	/* Through the device once more, where its headers are looked for anew. */
	skb->mark = AGAIN;
	return bpf_redirect(device, BPF_F_INGRESS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
