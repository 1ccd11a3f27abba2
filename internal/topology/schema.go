package topology

import "time"

// The keys of the topology file (design: the topology file).

var topologyObject = &object{
	name: "topology", where: "",
	fields: []field{
		{key: "apiVersion", shape: fixed("pwd/v1"), required: true, about: "The version of this format: `pwd/v1`."},
		{key: "kind", shape: fixed("Topology"), required: true, about: "`Topology`."},
		{key: "metadata", shape: metadataObject, required: true, about: "What the topology is called."},
		{key: "sites", shape: table{"SITE", nameOf("a site"), siteObject}, required: true, about: "The places that are joined. Each runs one daemon, with this very file, unless it is foreign."},
		{key: "tunnels", shape: table{"TUNNEL", nameOf("a tunnel"), tunnelObject}, about: "Control connections between sites. Several between the same pair are the normal case."},
		{key: "pseudowires", shape: table{"PSEUDOWIRE", nameOf("a pseudowire"), pseudowireObject}, about: "Ethernet services from one site to another. Pseudowires and networks share one name space."},
		{key: "classes", shape: table{"CLASS", nameOf("a class"), classObject}, about: "Classes of service, for tunnels."},
		{key: "pairs", shape: table{"PAIR", nameOf("a pair"), pairObject}, about: "What all tunnels between two sites may send together."},
		{key: "networks", shape: table{"NETWORK", nameOf("a network"), networkObject}, about: "Ethernet services among many sites: a pseudowire for each pair of them."},
	},
}

var metadataObject = &object{
	name: "metadata", where: "metadata",
	fields: []field{
		{key: "name", shape: nameOf("the topology"), required: true, about: "The topology's name, shown by `pwctl status`."},
	},
}

var siteObject = &object{
	name: "site", where: "sites.SITE",
	fields: []field{
		{key: "address", shape: siteAddress, standard: "required, or `underlays`", about: "Where the site's tunnels end: the address of an interface of its host, which may be in a VRF. `dynamic`: it may change, or be behind address translation."},
		{key: "bridges", shape: table{"BRIDGE", interfaceOf("a bridge"), bridgeObject}, about: "The bridges that pseudowires attach to. The key is the name of the Linux bridge."},
		{key: "router-id", shape: routerID, standard: "from the tunnel's and the site's names", about: "The Router ID that the site signals on the only tunnel of a pair of sites. With several tunnels between the pair each has one of its own."},
		{key: "rate", shape: rate, standard: "not known", about: "What the site's link to the others carries: all tunnels with a class that has a rate or a ceiling send no more than that together."},
		{key: "qdisc", shape: qdisc, standard: "keep", about: "What becomes of a root qdisc that somebody else has set on the interface of tunnels that are shaped. `keep`: it is left alone, and nothing is shaped there. `replace`: it gives way, and comes back when nothing is shaped any more; where it could not come back it stays."},
		{key: "shaper", shape: shaper, standard: "htb", about: "What shapes the site's tunnels. `htb` shares the link by guarantees and priorities. `edt` gives packets departure times, which `fq` keeps: each tunnel has its ceiling and nothing is shared, so that all ceilings have to fit into the link."},
		{key: "underlays", shape: table{"UNDERLAY", nameOf("an underlay"), underlayObject}, about: "Several paths to the site, each with an address of its own; instead of `address`, `rate`, `qdisc` and `shaper`."},
		{key: "managed", shape: boolean(), standard: "true", about: "Whether the site runs this daemon. `false`: it is a foreign one, a router of another make."},
		{key: "host-name", shape: phrase("a host name"), standard: "any", about: "The Host Name that a foreign site signals (RFC 3931, Section 5.4.3)."},
		{key: "numbers", shape: wordOf(choice{words: []string{"standard", "cisco"}}), standard: "standard", about: "Under which numbers a foreign site is called with attributes: RFC 3931's, or those that Cisco gave them before it. When it calls, its own are understood and used."},
	},
}

var qdisc = wordOf(choice{words: []string{"keep", "replace"}})

var shaper = wordOf(choice{words: []string{"htb", "edt"}})

var underlayObject = &object{
	name: "underlay", where: "sites.SITE.underlays.UNDERLAY",
	fields: []field{
		{key: "address", shape: address, required: true, about: "The site's address on it."},
		{key: "interface", shape: interfaceOf("an interface"), standard: "-", about: "The interface with that address, for the reader: packets leave by the host's routes."},
		{key: "rate", shape: rate, standard: "not known", about: "What it carries, as `rate` of a site."},
		{key: "qdisc", shape: qdisc, standard: "keep", about: "As `qdisc` of a site."},
		{key: "shaper", shape: shaper, standard: "htb", about: "As `shaper` of a site."},
	},
}

var bridgeObject = &object{
	name: "bridge", where: "sites.SITE.bridges.BRIDGE",
	fields: []field{
		{key: "ports", shape: list{of: interfaceOf("an interface"), unique: true}, standard: "none", about: "Interfaces that the daemon puts into the bridge: where the LAN is."},
		{key: "vlan-aware", shape: wordOf(choice{words: []string{"auto", "true", "false", "on", "off"}}), standard: "auto", about: "Whether the bridge filters VLANs. `auto`: where the kernel can."},
		{key: "external", shape: boolean(), standard: "false", about: "The bridge is somebody else's: it is used, never made, changed or removed."},
		{key: "link-local", shape: groupList, standard: "none", about: "The link-local groups (01-80-C2-00-00-0x) that the bridge passes on: `all`, `none`, or some of `stp`, `lacp`, `802.1x`, `lldp`. A bridge keeps them to itself otherwise, but for those of STP, which it passes on in any case, as it runs none."},
	},
}

var groupList = list{of: wordOf(choice{words: []string{"all", "none", "stp", "lacp", "802.1x", "lldp"}}), least: 1, orOne: true, unique: true}

var classObject = &object{
	name: "class", where: "classes.CLASS",
	fields: []field{
		{key: "dscp", shape: list{of: classDSCP, least: 8, most: 8, orOne: true}, standard: "default (0)", about: "The DSCP of data packets' outer IP header. One: of all; the peer is asked for it too (RFC 3308). `copy`: that of the IP packet inside, 0 for other frames. A list of eight: by the priority bits of the frame's first tag, from 0 on; those of a frame without one are 0. The last two are the eBPF datapath's."},
		{key: "priority", shape: integer("priority", 0, 7), standard: "0", about: "Who takes first of what is left when all have what is guaranteed to them; lower first. It takes `rate` or `ceiling`."},
		{key: "rate", shape: rate, standard: "none", about: "What each tunnel of the class can always send, at each of its ends: octets of outer packets, the link's header included."},
		{key: "ceiling", shape: rate, standard: "the `rate` of its pair, or of the site", about: "What it sends at most."},
		{key: "queue", shape: integer("queue", 1, 100000), standard: "1000", about: "How many packets wait at most, for each tunnel. It takes `rate` or `ceiling`."},
	},
}

var pairObject = &object{
	name: "pair", where: "pairs.PAIR",
	fields: []field{
		{key: "sites", shape: list{of: nameOf("a site"), least: 2, most: 2}, required: true, about: "The two sites. A pair of them is there once."},
		{key: "rate", shape: rate, required: true, about: "What all tunnels between the two send at most together, at each end, through one interface. Those whose class has neither rate nor ceiling take what the others leave."},
	},
}

var tunnelObject = &object{
	name: "tunnel", where: "tunnels.TUNNEL",
	fields: []field{
		{key: "sites", shape: list{of: nameOf("a site"), least: 2}, required: true, about: "Two sites or more; n sites are n(n-1)/2 control connections."},
		{key: "encapsulation", shape: wordOf(choice{words: []string{"udp", "ip"}}), standard: "udp", about: "What carries L2TP: `udp`, port 1701, or `ip` itself, protocol 115 (RFC 3931, Section 4.1)."},
		{key: "static", shape: table{"SITE", nameOf("a site"), staticTunnelObject}, standard: "none", about: "The tunnel has no control connection: nothing is signalled, and both ends are told here what they would agree on. For peers that signal nothing."},
		{key: "hello", shape: duration(time.Second, time.Hour), standard: "60s", about: "How long the peer may be silent before it is asked whether it lives (RFC 3931, Section 4.4)."},
		{key: "underlay", shape: table{"SITE", nameOf("a site"), nameOf("an underlay")}, standard: "the only one", about: "Which underlay it takes, by site: for each of its sites that has several."},
		{key: "secret-file", shape: list{of: phrase("the name of a file"), least: 1, most: 2, orOne: true, unique: true}, standard: "none", about: "Turns authentication on: the file with the secret that all sites of the tunnel share, or two of them while one takes the place of the other. Relative to this file."},
		{key: "digest", shape: wordOf(choice{words: []string{"md5", "sha1"}}), standard: "md5", about: "How messages are signed: HMAC-MD5 or HMAC-SHA-1 (RFC 3931, Section 5.4.1). The peer's may be either."},
		{key: "hide", shape: boolean(), standard: "false", about: "Whether control messages hide what they may (RFC 3931, Section 5.3). It takes a secret."},
		{key: "class", shape: nameOf("a class"), standard: "none", about: "The tunnel's class of service, one of `classes`."},
		{key: "ecn", shape: boolean(), standard: "true", about: "Whether congestion marks of the network between are passed on to the packets inside, where both ends' datapaths can (RFC 9601, RFC 6040)."},
		{key: "udp-checksum", shape: wordOf(choice{words: []string{"on", "off"}, yes: "on", no: "off"}), standard: "`on` towards foreign sites, else `off`", about: "Whether data packets over UDP have UDP checksums. `off`: whole packets of the eBPF datapath have none, over IPv6 neither (RFC 6935), which is faster; those in fragments and those of the kernel datapath have one all the same. Both kinds are accepted."},
		{key: "df", shape: boolean(), standard: "false", about: "`true`: outer packets do not leave in fragments. A frame that does not fit one is dropped and counted (`oversize`); where the IP packet in it asks not to be fragmented, as IPv6 always does, its sender is told the MTU by ICMP, from the frame's own destination. On the eBPF datapath."},
	},
}

var (
	sequencing = wordOf(choice{words: []string{"none", "non-ip", "all"}})
	sublayer   = wordOf(choice{words: []string{"none", "default"}})
	cookie     = among("cookie", 0, 4, 8)
)

var serviceFields = []field{
	{key: "tunnel", shape: nameOf("a tunnel"), standard: "required, or `tunnels`, or `redundancy`", about: "The tunnel that carries it."},
	{key: "tunnels", shape: list{of: nameOf("a tunnel"), least: 1, unique: true}, about: "The same as a list; several take `steer` or `redundancy`."},
	{key: "redundancy", shape: redundancyObject, about: "An active tunnel and those that stand in for it."},
	{key: "attach", shape: table{"SITE", nameOf("a site"), attachmentObject}, required: true, about: "Where it attaches, by site."},
	{key: "type", shape: wordOf(choice{words: []string{"ethernet", "ethernet-vlan"}}), standard: "ethernet", about: "The pseudowire type that is signalled (RFC 4719): Ethernet port (0x0005), or Ethernet VLAN (0x0004), whose frames keep their tag on the way."},
	{key: "end-id", shape: identifier("end ID"), standard: "the name, in ASCII", about: "The Remote End ID that both ends signal (RFC 3931, Section 5.4.4). `7` is four octets in network order, `\"7\"` its characters. Unique among the pseudowires of one control connection."},
	{key: "agi", shape: identifier("AGI"), standard: "none", about: "The Attachment Group Identifier that both ends signal (RFC 4667, Section 4.3), written as `end-id` is."},
	{key: "cookie", shape: cookie, standard: "8", about: "Octets of the cookie that each end assigns (RFC 3931, Section 4.1.2.1)."},
	{key: "mtu", shape: integer("MTU", 576, 9216), standard: "1500", about: "The MTU of the pseudowire's device: octets after the Ethernet header, tags not counted. Where it is set both ends signal it, and it has to be the same (RFC 4667, Section 4.3); what routers say of the path (ICMP, which anybody can forge) then only has the peer asked what arrives. Under 1280 there is a warning: IPv6 needs that."},
	{key: "max-macs", shape: integer("the number", 1, 1000000), standard: "no limit", about: "How many addresses the bridge of a site learns behind it, for a network behind all of its pseudowires together. Frames from and to others pass, and are flooded."},
	{key: "datapath", shape: wordOf(choice{words: []string{"auto", "ebpf", "kernel"}}), standard: "auto", about: "What carries its frames: eBPF programs or the kernel's l2tp_eth. `auto` is the daemon's choice."},
	{key: "sequencing", shape: sequencing, standard: "none", about: "Which data packets each end wants numbered, to put them back in order (RFC 3931, Section 4.6): those that are not IP, or all."},
	{key: "storm-control", shape: stormObject, standard: "no limits", about: "Limits for frames that go to many, at each end and each way. What is beyond is dropped and counted."},
	{key: "suppress", shape: wordOf(choice{words: []string{"none", "arp-nd"}}), standard: "none", about: "`arp-nd`: ARP requests and neighbour solicitations for addresses that are known behind it, for a network behind any of its pseudowires, are answered at the site, and do not cross."},
	{key: "police", shape: rate, standard: "no limit", about: "The most that comes out of the pseudowire at each end, for a network out of each: octets of frames, without what they travel in. What is beyond is dropped and counted as `policed`; what comes within 100 ms may come at once. Shaping at the sender (`classes`) loses less."},
	{key: "sublayer", shape: sublayer, standard: "default with `sequencing`, else none", about: "The L2-Specific Sublayer that each end wants in data packets (RFC 3931, Section 4.6)."},
}

var stormObject = &object{
	name: "storm-control", where: "pseudowires.PSEUDOWIRE.storm-control",
	fields: []field{
		{key: "broadcast", shape: frameRate, standard: "none", about: "Broadcast frames, counted as `policed-broadcast` where they are too many. What comes within 100 ms may come at once."},
		{key: "multicast", shape: frameRate, standard: "none", about: "Multicast frames, link-local groups included: `policed-multicast`."},
		{key: "unknown-unicast", shape: frameRate, standard: "none", about: "Frames to addresses that have sent nothing the other way through the pseudowire for five minutes: `policed-unknown-unicast`."},
	},
}

var pseudowireObject = &object{
	name: "pseudowire", where: "pseudowires.PSEUDOWIRE",
	fields: append(serviceFields[:len(serviceFields):len(serviceFields)],
		field{key: "static", shape: table{"SITE", nameOf("a site"), staticSessionObject}, standard: "none", about: "The session is not signalled: what packets to each end carry. On tunnels that are `static`."},
		field{key: "steer", shape: list{of: steerObject, least: 1}, about: "Which frame takes which of the `tunnels`: the first rule that matches says it. Frames that none matches take the last of the tunnels."},
	),
}

var networkObject = &object{
	name: "network", where: "networks.NETWORK",
	fields: append(serviceFields[:len(serviceFields):len(serviceFields)],
		field{key: "hub", shape: nameOf("a site"), standard: "none", about: "The site that all others have their only pseudowire to, and which passes frames between them. Without it there is one between every two sites."},
	),
}

var redundancyObject = &object{
	name: "redundancy", where: "pseudowires.PSEUDOWIRE.redundancy",
	fields: []field{
		{key: "active", shape: nameOf("a tunnel"), required: true, about: "The tunnel that is used when all is well."},
		{key: "standby", shape: list{of: nameOf("a tunnel"), least: 1, orOne: true, unique: true}, required: true, about: "Those that stand in for it, the first that works."},
		{key: "revertive", shape: boolean(), standard: "true", about: "Whether a tunnel that works again is taken again before those behind it."},
		{key: "hold", shape: duration(0, time.Hour), standard: "10s", about: "How long it has to have worked for that. Each time that it fails soon after, twice as long as before."},
	},
}

var attachmentObject = &object{
	name: "attachment", where: "pseudowires.PSEUDOWIRE.attach.SITE",
	fields: []field{
		{key: "bridge", shape: interfaceOf("a bridge"), about: "A bridge among the site's `bridges`."},
		{key: "interface", shape: interfaceOf("an interface"), about: "An interface; without `vlan` the whole port, tags and all."},
		{key: "vlan", shape: vlanID, standard: "none", about: "The VLAN here. Its tag is popped towards the pseudowire and pushed from it, so that it can differ at the other end. On a bridge without it: untagged traffic."},
		{key: "vlans", shape: list{of: vlanOrRange, least: 1}, standard: "none", about: "Several VLANs here, as `[100, 200-210]`. Their tags stay on: the other end has the same, or a whole port."},
		{key: "untagged", shape: boolean(), standard: "false", about: "`true`: frames without a tag, or with one of VLAN 0. With `vlans` beside those, else they alone."},
		{key: "inner-vlan", shape: vlanID, standard: "any, or none", about: "The second of two tags. With `vlan` both are popped and pushed; with `vlans`, or without either, both stay on."},
		{key: "tag-protocol", shape: wordOf(choice{words: []string{"802.1q", "802.1ad"}}), standard: "802.1q", about: "The protocol of the first tag: 0x8100, or 0x88a8 for service tags (802.1ad). That of an inner tag is 0x8100."},
		{key: "pcp", shape: list{of: priorityBits, least: 8, most: 8, orOne: true}, standard: "keep", about: "The priority bits of tags on frames out of the pseudowire. `keep`: as they are, 0 where a tag is pushed. A number: always that. A list of eight: the new bits by the old ones, from 0 on. `dscp`: the first three bits of the DSCP in the IP header behind the tag, 0 for other frames."},
		{key: "link-local", shape: groupList, standard: "all", about: "The link-local groups that the pseudowire carries here, each way, of those that get there: `all`, `none`, or some of `stp`, `lacp`, `802.1x`, `lldp`. An attached interface passes on all but MAC pause; a bridge has its own `link-local`."},
		{key: "end-id", shape: identifier("end ID"), standard: "the pseudowire's", about: "At a foreign site: the Remote End ID that is sent to it. The pseudowire's own `end-id` is what it sends."},
		{key: "cookie", shape: cookie, standard: "the pseudowire's", about: "At a foreign site: octets of the cookie that it is to send."},
		{key: "sequencing", shape: sequencing, standard: "the pseudowire's", about: "At a foreign site: which packets it is to number."},
		{key: "sublayer", shape: sublayer, standard: "the pseudowire's", about: "At a foreign site: the sublayer that it is to send."},
	},
}

var configObject = &object{
	name: "configuration", where: "",
	fields: []field{
		{key: "apiVersion", shape: fixed("pwd/v1"), required: true, about: "The version of this format: `pwd/v1`."},
		{key: "kind", shape: fixed("Config"), required: true, about: "`Config`."},
		{key: "site", shape: nameOf("a site"), about: "This host's name in the topology (`--site`)."},
		{key: "topology", shape: absolutePath(4095), about: "The topology file (`--topology`)."},
		{key: "on-stop", shape: wordOf(choice{words: []string{"leave", "teardown"}}), standard: "leave", about: "What SIGTERM leaves behind. `leave`: connections and forwarding go on, for the next start to take up. `teardown`: all is closed and removed."},
		{key: "datapath", shape: wordOf(choice{words: []string{"auto", "ebpf", "kernel"}}), standard: "auto", about: "For pseudowires that do not say (`--datapath`). `auto`: eBPF where its programs load, else the kernel's l2tp_eth."},
		{key: "log-level", shape: wordOf(choice{words: []string{"debug", "info", "warn", "error"}}), standard: "info", about: "The least that is logged (`--log-level`)."},
		{key: "run-dir", shape: absolutePath(maxSocketPath - len("/pwd.sock")), standard: "/run/pwd", about: "Where the API's socket `pwd.sock` is (`--run-dir`)."},
		{key: "state-dir", shape: absolutePath(4000), standard: "/var/lib/pwd", about: "Where state is kept (`--state-dir`)."},
		{key: "bpf-dir", shape: absolutePath(4000), standard: "/sys/fs/bpf/pwd", about: "Where eBPF objects are pinned (`--bpf-dir`)."},
		{key: "metrics", shape: listenAddress, about: "Where `/metrics`, `/healthz` and `/readyz` are served over HTTP besides the API's socket (`--metrics`), without access control: choose an address that only monitoring reaches."},
		{key: "access", shape: accessObject, about: "Who may look at the site through the API's socket, and who may change it."},
		{key: "timers", shape: timersObject, about: "Of the control protocol."},
	},
}

var timersObject = &object{
	name: "timers", where: "timers",
	fields: []field{
		{key: "retransmit", shape: duration(100*time.Millisecond, 8*time.Second), standard: "1s", about: "How long the first retransmission waits; each further one waits twice as long, 8 s at most."},
		{key: "max-retransmits", shape: integer("the number", 1, 30), standard: "10", about: "Retransmissions without an answer after which the peer is taken for dead."},
	},
}

// configObjects are those of the configuration.
func configObjects() []*object {
	return []*object{configObject, timersObject, accessObject, changeObject}
}

// maxSocketPath is the kernel's limit for the path of a unix socket, without
// the final zero.
const maxSocketPath = 107

// objects are those of the topology, in the order of the reference.
func objects() []*object {
	return []*object{
		topologyObject, metadataObject, siteObject, bridgeObject, tunnelObject, classObject, pairObject, pseudowireObject, networkObject, stormObject, attachmentObject,
		staticTunnelObject, staticSessionObject,
		underlayObject, steerObject, redundancyObject,
	}
}

// elsewhere maps the keys to the places where they can be used.
var elsewhere = map[string][]string{}

func init() {
	for _, o := range objects() {
		for _, f := range o.fields {
			if o.where != "" {
				elsewhere[f.key] = append(elsewhere[f.key], o.where)
			}
		}
	}
}

// placesOf are the paths under which a key can be used.
func placesOf(key string) []string { return elsewhere[key] }
