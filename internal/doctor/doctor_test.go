package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/internal/api"
)

// well is a host and a site without a fault.
func well() (*Host, *Site, fstest.MapFS, map[string]string) {
	files := fstest.MapFS{}
	for name, text := range map[string]string{
		"proc/sys/kernel/osrelease":                        "6.12.41+deb13-amd64\n",
		"proc/sys/net/core/bpf_jit_enable":                 "1\n",
		"proc/mounts":                                      "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,nosuid 0 0\n",
		"proc/sys/net/bridge/bridge-nf-call-iptables":      "0\n",
		"sys/class/net/eth1/ifalias":                       "\n",
		"sys/class/net/pw-lan/ifalias":                     "pwd:lane\n",
		"sys/class/net/br-lan/ifalias":                     "pwd:bridge:br-lan\n",
		"sys/module/bridge/refcnt":                         "1\n",
		"proc/sys/net/bridge/bridge-nf-filter-vlan-tagged": "0\n",
	} {
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	for _, process := range []string{"self", "7"} {
		link(files, "proc/"+process+"/ns/net", "net:[1]")
	}
	said := map[string]string{"nft list ruleset": ""}
	h := &Host{
		Files: files,
		Run: func(_ context.Context, args ...string) ([]byte, error) {
			out, there := said[strings.Join(args, " ")]
			if !there {
				return nil, errors.New("not found")
			}
			return []byte(out), nil
		},
		LoadProgram:       func() error { return nil },
		ClockSynchronised: func() (bool, error) { return true, nil },
		Addresses:         func(string) ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("fe80::1")}, nil },
		Table:             func(string, bool) (*Table, error) { return nil, errors.New("no such table") },
		Attached:          func() ([]Attached, error) { return nil, nil },
		Aliases: func() (map[string]string, error) {
			found := map[string]string{}
			for name, file := range files {
				if device, is := strings.CutPrefix(path.Dir(name), "sys/class/net/"); is && path.Base(name) == "ifalias" {
					found[device] = strings.TrimSpace(string(file.Data))
				}
			}
			return found, nil
		},
		StateDir: DefaultStateDir,
	}
	s := &Site{
		Pwctl: "v1", PID: 7,
		Status: &api.Status{
			Site: "dc1", Version: "v1", Generation: 4, Datapath: "ebpf",
			Tunnels: []api.Tunnel{{Name: "gold", Peer: "dc2", State: "established", PathMTU: 9000, Local: "192.0.2.1:1701", Remote: "192.0.2.2:1701", Encapsulation: "udp"}},
			Pseudowires: []api.Pseudowire{{
				Name: "lan", Peer: "dc2", State: "up", Datapath: "ebpf", MTU: 1500, Device: "pw-lan", Tunnel: "gold",
			}},
		},
		Sessions:    []api.Session{{Tunnel: "gold", Pseudowire: "lan", Peer: "dc2", CookieOctets: 8}},
		Attachments: []api.Attachment{{Pseudowire: "lan", Interface: "eth1", PrivateBridge: "pwb-eth1"}, {Pseudowire: "other", Bridge: "br-lan"}},
	}
	return h, s, files, said
}

func link(files fstest.MapFS, name, to string) {
	files[name] = &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink}
}

func lines(findings []Finding) (out []string) {
	for _, f := range findings {
		out = append(out, fmt.Sprintf("%s %s: %s", f.Level, f.Check, f.What))
	}
	return out
}

func TestNothingIsWrong(t *testing.T) {
	h, s, _, _ := well()
	findings := Examine(t.Context(), *h, *s)
	want := []string{
		"ok daemon: pwd v1 serves site dc1, generation 4",
		"ok site: 1 tunnel and 1 pseudowire, no problems",
		"ok kernel: Linux 6.12.41+deb13-amd64",
		"ok ebpf: programs load, and there is a bpffs to pin them in",
		"ok modules: none of the kernel's L2TP modules is needed",
		"ok bridges: frames on bridges do not go through the firewall's rules for packets",
		"ok firewall: no rules",
		"ok mtu: tunnel gold to dc2: the path carries packets of 9000 octets",
		"ok mtu: 1 pseudowire whose longest frames fit the path",
		"ok clock: the clock is kept",
		"ok restart: 1 pseudowire on the eBPF datapath: frames are forwarded while the daemon is restarted, replaced or killed",
	}
	if diff := cmp.Diff(want, lines(findings)); diff != "" || Worst(findings) != OK {
		t.Errorf("%s (-want +got):\n%s", Worst(findings), diff)
	}
}

// Each case is one thing that is wrong, and the one finding that it adds.
func TestWhatIsWrong(t *testing.T) {
	type world struct {
		*Host
		*Site
		files fstest.MapFS
		said  map[string]string
	}
	set := func(name, text string) func(w *world) {
		return func(w *world) { w.files[name] = &fstest.MapFile{Data: []byte(text)} }
	}
	const closedInput = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\t\ttcp dport 22 accept\n\t}\n}\n"
	for _, tt := range []struct {
		name  string
		spoil func(*world)
		want  string
		why   string
		fix   string
	}{
		{"no daemon", func(w *world) { *w.Site = Site{Err: errors.New("pwd is not running")} },
			"fault daemon: no daemon answers: pwd is not running", "frames may still be forwarded: br-lan, pw-lan are there", "systemctl status pwd"},
		{"another build", func(w *world) { w.Pwctl = "v2" },
			"warning daemon: the daemon is v1, pwctl v2", "another build was installed", "systemctl restart pwd; traffic is not interrupted"},
		{"another build on the kernel's datapath", func(w *world) {
			w.Pwctl, w.Status.Pseudowires[0].Datapath = "v2", "kernel"
			for _, m := range []string{"l2tp_core", "l2tp_netlink", "l2tp_eth"} {
				set("sys/module/"+m+"/refcnt", "1")(w)
			}
		}, "warning daemon: the daemon is v1, pwctl v2", "", "are interrupted for a moment"},
		{"a problem that the daemon knows", func(w *world) {
			w.Status.Problems = []api.Problem{{Object: "tunnel gold to dc2", What: "connecting: no answer", Fix: "is pwd running at dc2?"}}
		}, "fault site: tunnel gold to dc2: connecting: no answer", "", "is pwd running at dc2?"},
		{"a note of the daemon", func(w *world) { w.Status.Notes = []string{"no bpffs"} }, "note site: no bpffs", "", ""},
		{"a file that is not in force", func(w *world) { w.Status.FileDiffers = true },
			"warning site: the topology file is not the topology in force", "", "pwctl diff"},
		{"an old kernel", set("proc/sys/kernel/osrelease", "5.15.0-91-generic"), "warning kernel: Linux 5.15.0-91-generic", "nothing older than 6.1", "later kernel"},
		{"a kernel before", set("proc/sys/kernel/osrelease", "6.0.19"), "warning kernel: Linux 6.0.19", "", ""},
		{"a kernel that does not say", set("proc/sys/kernel/osrelease", "custom"), `note kernel: the kernel's release "custom" says nothing`, "", ""},
		{"no compiler for eBPF", set("proc/sys/net/core/bpf_jit_enable", "0"), "warning kernel: eBPF programs are interpreted", "slower", "sysctl -w net.core.bpf_jit_enable=1"},
		{"no eBPF", func(w *world) { w.LoadProgram = func() error { return errors.New("function not implemented") } },
			"warning ebpf: eBPF programs do not load: function not implemented", "storm-control", "CONFIG_BPF_SYSCALL"},
		{"nobody who may load programs", func(w *world) { w.LoadProgram = func() error { return syscall.EPERM } },
			"note ebpf: whether eBPF programs load could not be looked at: operation not permitted", "", "as root"},
		{"no bpffs", set("proc/mounts", "sysfs /sys sysfs rw 0 0\n"),
			"note ebpf: eBPF programs load; there is no bpffs at /sys/fs/bpf", "pins nothing", "mount -t bpf"},
		{"a module is missing", func(w *world) {
			w.Status.Pseudowires[0].Datapath = "kernel"
			set("sys/module/l2tp_core/refcnt", "1")(w)
			set("sys/module/l2tp_netlink/refcnt", "1")(w)
		}, "fault modules: not loaded: l2tp_eth", "", "modprobe -a l2tp_eth"},
		{"a module for IPv6 is missing", func(w *world) {
			w.Status.Pseudowires[0].Datapath, w.Status.Tunnels[0].Encapsulation, w.Status.Tunnels[0].Local = "kernel", "ip", "2001:db8::1"
			for _, m := range []string{"l2tp_core", "l2tp_netlink", "l2tp_eth", "l2tp_ip"} {
				set("sys/module/"+m+"/refcnt", "1")(w)
			}
		}, "fault modules: not loaded: l2tp_ip6", "", "modprobe -a l2tp_ip6"},
		{"modules that are part of the kernel", func(w *world) {
			w.Status.Pseudowires[0].Datapath = "kernel"
			set("lib/modules/6.12.41+deb13-amd64/modules.builtin", "kernel/net/l2tp/l2tp_core.ko\nkernel/net/l2tp/l2tp_netlink.ko\nkernel/net/l2tp/l2tp_eth.ko\n")(w)
		}, "note restart: 1 pseudowire on the kernel's datapath: while the daemon is away they carry nothing (file descriptor store: no; holder: no)", "", ""},
		{"bridges are filtered", set("proc/sys/net/bridge/bridge-nf-call-ip6tables", "1"),
			"warning bridges: net.bridge.bridge-nf-call-ip6tables on", "", "sysctl -w net.bridge.bridge-nf-call-ip6tables=0"},
		{"bridges are filtered, and Docker drops", func(w *world) {
			set("proc/sys/net/bridge/bridge-nf-call-iptables", "1")(w)
			w.said["iptables -S FORWARD"] = "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n"
		}, "fault bridges: iptables drops what is forwarded, and br_netfilter gives it the bridges' frames", "Docker", "sysctl -w net.bridge.bridge-nf-call-iptables=0"},
		{"a firewall that lets nothing in", func(w *world) { w.said["nft list ruleset"] = closedInput },
			"warning firewall: input is dropped unless allowed, and no rule allows UDP port 1701 (tunnel gold to dc2)", "would not arrive", "udp dport 1701 accept"},
		{"a firewall that knows the other way only", func(w *world) {
			w.said["nft list ruleset"] = strings.Replace(closedInput, "tcp dport 22", "udp dport 1701", 1)
			w.Status.Tunnels[0].Encapsulation = "ip"
		}, "warning firewall: input is dropped unless allowed, and no rule allows IP protocol 115 (tunnel gold to dc2)", "", ""},
		{"a firewall that lets it in", func(w *world) {
			w.said["nft list ruleset"] = strings.Replace(closedInput, "tcp dport 22", "udp dport 1701", 1)
		}, "note firewall: there are rules, which see control messages and fragments only", "the eBPF datapath takes data packets before them", ""},
		{"a firewall that drops at its end", func(w *world) {
			w.said["nft list ruleset"] = strings.NewReplacer("policy drop", "policy accept", "tcp dport 22 accept", "tcp dport 22 accept\n\t\treject with icmpx admin-prohibited").Replace(closedInput)
		}, "warning firewall: input is dropped unless allowed, and no rule allows UDP port 1701 (tunnel gold to dc2)", "", ""},
		{"a firewall for IPv4 alone that lets in what comes by IPv6", func(w *world) {
			w.said["nft list ruleset"] = strings.Replace(closedInput, "inet", "ip", 1) + "table ip6 filter {\n\tchain in {\n\t\tudp dport 1701 accept\n\t}\n}\n"
		}, "warning firewall: input is dropped unless allowed, and no rule allows UDP port 1701 (tunnel gold to dc2)", "", ""},
		{"iptables-legacy", func(w *world) {
			set("proc/net/ip_tables_names", "nat\nfilter\n")(w)
			w.Table = func(name string, ipv6 bool) (*Table, error) {
				if name != "filter" || ipv6 {
					return nil, errors.New("was not to be asked for")
				}
				return new(chain).end(drop), nil
			}
		}, "warning firewall: input is dropped unless allowed, and no rule allows UDP port 1701 (tunnel gold to dc2), in the table filter of iptables",
			"would not arrive", "iptables -I INPUT"},
		{"iptables-legacy without nft", func(w *world) {
			set("proc/net/ip_tables_names", "filter\n")(w)
			w.Table = func(string, bool) (*Table, error) { return new(chain).end(accept), nil }
		}, "note firewall: there are rules, which see control messages and fragments only", "", ""},
		{"ip6tables-legacy", func(w *world) {
			set("proc/net/ip6_tables_names", "filter\n")(w)
			w.Table = func(string, bool) (*Table, error) { return (&chain{ipv6: true}).end(drop), nil }
			w.Status.Tunnels[0].Local, w.Status.Tunnels[0].Remote = "[2001:db8::1]:1701", "[2001:db8::2]:1701"
		}, "warning firewall: input is dropped unless allowed, and no rule allows UDP port 1701 (tunnel gold to dc2), in the table filter of ip6tables",
			"", "ip6tables -I INPUT"},
		{"tables that may not be looked at", func(w *world) {
			set("proc/net/ip_tables_names", "filter\n")(w)
			w.Table = func(string, bool) (*Table, error) { return nil, syscall.EPERM }
		}, "note firewall: the tables of iptables-legacy were not looked at: operation not permitted", "", "as root"},
		{"no nft", func(w *world) { delete(w.said, "nft list ruleset") }, "note firewall: the firewall could not be looked at: nft: not found", "", "as root"},
		// 1500 + 20 IP, 8 UDP, 8 L2TP, 8 cookie, 14 Ethernet = 1558.
		{"fragments", func(w *world) { w.Status.Tunnels[0].PathMTU = 1557 },
			"note mtu: pseudowire lan to dc2: packets of more than 1499 octets travel in fragments (its MTU is 1500, the path's 1557)", "", "raise the underlay's MTU to 1558, or set `mtu: 1499`"},
		// 1500 + 40 IPv6, 4 L2TP, 8 cookie, 14 Ethernet = 1566.
		{"fragments over IPv6, protocol 115", func(w *world) {
			x := &w.Status.Tunnels[0]
			x.PathMTU, x.Local, x.Encapsulation = 1500, "2001:db8::1", "ip"
		}, "note mtu: pseudowire lan to dc2: packets of more than 1434 octets travel in fragments (its MTU is 1500, the path's 1500)", "", "raise the underlay's MTU to 1566"},
		{"a black hole", func(w *world) {
			w.Status.Tunnels[0].PathMTU, w.Status.Tunnels[0].BlackHole = 1400, true
			w.Status.Pseudowires[0].MTU = 1300
		},
			"warning mtu: tunnel gold to dc2: packets of more than 1400 octets are lost on the way, and no router says so", "somebody drops ICMP", "ip route change … mtu lock 1400"},
		{"an address on a whole interface", func(w *world) {
			w.Addresses = func(name string) ([]netip.Addr, error) {
				return []netip.Addr{netip.MustParseAddr("fe80::1"), netip.MustParseAddr("10.1.2.3")}, nil
			}
		}, "warning attachments: interface eth1 of pseudowire lan has the address 10.1.2.3", "", "ip addr del"},
		{"segmentation is off", func(w *world) {
			w.said["ethtool -k eth1"] = "Features for eth1:\ntcp-segmentation-offload: off\ngeneric-segmentation-offload: off [requested on]\nlarge-receive-offload: off [fixed]\n"
		}, "note offloads: segmentation is off at eth1 of pseudowire lan", "small packets", "ethtool -K eth1 gso on"},
		{"packets are joined", func(w *world) {
			w.said["ethtool -k eth1"] = "generic-segmentation-offload: on\nlarge-receive-offload: on\n"
		}, "warning offloads: large-receive-offload is on at eth1 of pseudowire lan", "", "ethtool -K eth1 lro off"},
		{"a device of nobody's", func(w *world) {
			set("sys/class/net/pw-old/ifalias", "pwd:pseudowire:old\n")(w)
			set("sys/class/net/pw-lan/ifalias", "pwd:pseudowire:lan\n")(w)
			set("sys/class/net/pwr-0000000a/ifalias", "pwd:pseudowire:lan~0000000a\n")(w)
		}, "warning leftovers: devices of no pseudowire of this site: pw-old (pseudowire old)", "may forward", "systemctl restart pwd"},
		{"a bridge of nobody's", func(w *world) {
			set("sys/class/net/pwb-eth1/ifalias", "pwd:bridge:pwb-eth1 uses=3\n")(w)
			set("sys/class/net/pwb-eth9/ifalias", "pwd:bridge:pwb-eth9 uses=4\n")(w)
		}, "warning leftovers: bridges of no attachment of this site: pwb-eth9", "keep interfaces", "systemctl restart pwd"},
		{"a program of nobody's", func(w *world) {
			set("proc/7/fdinfo/3", "pos:\t0\n")(w)
			set("proc/7/fdinfo/4", "prog_type:\t3\nprog_id:\t41\n")(w)
			w.Attached = func() ([]Attached, error) {
				return []Attached{
					{Interface: "eth0", Kind: "bpf", Hook: "ingress", Name: "pwd_decap", Priority: 28772, Program: 41},
					{Interface: "eth1", Kind: "bpf", Hook: "ingress", Name: "pwd_decap", Priority: 28772, Program: 17},
					{Interface: "eth1", Kind: "bpf", Hook: "egress", Name: "cilium", Priority: 1, Program: 18},
					{Interface: "pw-lan", Kind: "bpf", Hook: "ingress", Name: "pwd_encap", Priority: 28772, Program: 19},
				}, nil
			}
		}, "warning leftovers: programs of an earlier daemon: pwd_decap at the ingress of eth1", "", "tc filter del dev eth1 ingress pref 28772"},
		{"a daemon that may not be looked at", func(w *world) {
			w.Attached = func() ([]Attached, error) {
				return []Attached{{Interface: "eth0", Kind: "bpf", Hook: "ingress", Name: "pwd_decap", Program: 41}}, nil
			}
		}, "note leftovers: whose the programs at interfaces are was not looked at: the daemon's process: open proc/7/fdinfo: file does not exist", "", "as root"},
		{"pins of a network namespace that has gone", func(w *world) {
			namespaces(w.files)
			for _, number := range []string{"1", "2", "3", "4"} {
				set("sys/fs/bpf/pwd/net-"+number+"/maps-3/tunnels", "")(w)
			}
		}, "warning leftovers: pinned maps and programs of network namespaces that have gone: /sys/fs/bpf/pwd/net-4", "memory", "if no other container uses it: rm -r /sys/fs/bpf/pwd/net-4"},
		{"the state of another site", set("var/lib/pwd/generation.json", `{"site": "dc9", "number": 12}`),
			"note leftovers: there is the state of site dc9 in /var/lib/pwd, generation 12, which is not this daemon's", "", "leave it, if a daemon of that site runs"},
		{"a clock that runs free", func(w *world) { w.ClockSynchronised = func() (bool, error) { return false, nil } },
			"warning clock: nothing keeps the clock", "", "chrony"},
		{"the kernel's datapath", func(w *world) {
			w.Status.Pseudowires[0].Datapath = "kernel"
			for _, m := range []string{"l2tp_core", "l2tp_netlink", "l2tp_eth"} {
				set("sys/module/"+m+"/refcnt", "1")(w)
			}
		}, "note restart: 1 pseudowire on the kernel's datapath: while the daemon is away they carry nothing (file descriptor store: no; holder: no)", "", "datapath: ebpf"},
		{"the kernel's datapath under a service manager", func(w *world) {
			w.Status.Pseudowires[0].Datapath = "kernel"
			w.Status.Restart.Store = true
			for _, m := range []string{"l2tp_core", "l2tp_netlink", "l2tp_eth"} {
				set("sys/module/"+m+"/refcnt", "1")(w)
			}
		}, "note restart: 1 pseudowire on the kernel's datapath: frames are forwarded while the daemon is restarted, replaced or killed (file descriptor store: yes), but not after a stop (holder: no)", "", "pwd-hold"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, s, files, said := well()
			tt.spoil(&world{h, s, files, said})
			findings := Examine(t.Context(), *h, *s)
			bad := slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return f.Level == OK })
			i := slices.Index(lines(bad), tt.want)
			if i < 0 {
				t.Fatalf("found %q, want %q", lines(bad), tt.want)
			}
			if f := bad[i]; !strings.Contains(f.Why, tt.why) || !strings.Contains(f.Fix, tt.fix) {
				t.Errorf("%+v, want why %q, fix %q", f, tt.why, tt.fix)
			}
			bad = slices.DeleteFunc(bad, func(f Finding) bool { return f.Check == "restart" })
			all := []string{tt.want}
			if !s.answering() {
				all = append(all, "warning leftovers: no daemon runs, and there is 1 device (pw-lan), 1 bridge (br-lan)")
			}
			if more := slices.DeleteFunc(lines(bad), func(l string) bool { return slices.Contains(all, l) }); len(more) > 0 || len(bad) > len(all) {
				t.Errorf("more than that: %q", lines(bad))
			}
		})
	}
}

func (s *Site) answering() bool { return s.Err == nil }

// namespaces has this process be in namespace 1, another one in 2, and mounts 3.
func namespaces(files fstest.MapFS) {
	for process, number := range map[string]string{"self": "1", "1": "1", "77": "2"} {
		link(files, "proc/"+process+"/ns/net", "net:["+number+"]")
	}
	link(files, "proc/self/ns/pid", initialPIDs)
	files["proc/self/mountinfo"] = &fstest.MapFile{Data: []byte("24 1 0:22 / /sys rw - sysfs sysfs rw\n300 24 0:4 net:[3] /run/netns/blue rw shared:1 - nsfs nsfs rw\n")}
}

// Where no daemon runs all that is ours is told at once, and what removes it.
func TestWhatIsLeft(t *testing.T) {
	h, s, files, _ := well()
	*s = Site{Err: errors.New("pwd is not running")}
	namespaces(files)
	set := func(name, text string) { files[name] = &fstest.MapFile{Data: []byte(text)} }
	find := func() Finding {
		t.Helper()
		for _, f := range Examine(t.Context(), *h, *s) {
			if f.Check == "leftovers" {
				return f
			}
		}
		return Finding{}
	}
	set("sys/class/net/eth1.100/ifalias", "pwd:vlan:eth1.100")
	set("sys/fs/bpf/pwd/net-1/links/3", "")
	set("sys/fs/bpf/pwd/net-2/links/3", "")
	set("var/lib/pwd/generation.json", `{"site": "dc1", "number": 4}`)
	h.Attached = func() ([]Attached, error) {
		return []Attached{
			{Interface: "eth0", Kind: "htb", Handle: 0x70640000},
			{Interface: "eth2", Kind: "htb", Handle: 0x10000},
			{Interface: "eth0", Kind: "bpf", Hook: "egress", Name: "pwd_depart"},
			{Interface: "pw-lan", Kind: "bpf", Hook: "ingress", Name: "pwd_encap"},
		}, nil
	}
	f := find()
	want := "no daemon runs, and there is 1 device (pw-lan), 1 bridge (br-lan), 1 VLAN device (eth1.100), 1 program (pwd_depart at eth0), " +
		"1 qdisc (htb of eth0), what is pinned in /sys/fs/bpf/pwd/net-1, the state of site dc1 in /var/lib/pwd, generation 4"
	if f.Level != Warning || f.What != want || !strings.HasSuffix(f.Fix, ": pwd --site dc1 --cleanup") {
		t.Errorf("%+v, want %s", f, want)
	}

	h.StateDir, h.BPFDir = "/srv/state", "/srv/bpf"
	set("srv/state/generation.json", `{"site": "dc3", "number": 9}`)
	if f := find(); !strings.HasSuffix(f.Fix, "pwd --site dc3 --cleanup --state-dir /srv/state --bpf-dir /srv/bpf") || strings.Contains(f.What, "pinned") {
		t.Errorf("%+v", f)
	}

	set("proc/net/unix", "Num RefCount Protocol Flags Type St Inode Path\n0000: 00000002 00000000 00010000 0005 01 123 @pwd-project.pwd\n")
	if f := find(); f.Level != Note || !strings.HasPrefix(f.What, "a daemon runs in this network namespace, and does not answer here") {
		t.Errorf("with another daemon: %+v", f)
	}

	delete(files, "proc/net/unix")
	for name := range files {
		if strings.HasPrefix(name, "sys/class/net/") {
			delete(files, name)
		}
	}
	h.Attached = func() ([]Attached, error) { return nil, nil }
	if f := find(); f.Level != Note || f.What != "no daemon runs, and there is the state of site dc3 in /srv/state, generation 9" || strings.Contains(f.Fix, "cleanup") {
		t.Errorf("with state alone: %+v", f)
	}
	delete(files, "srv/state/generation.json")
	if f := find(); f.Level != OK {
		t.Errorf("with nothing: %+v", f)
	}
}
