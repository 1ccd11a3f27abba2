package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// The oldest kernel that the datapaths are tested on.
const oldestMajor, oldestMinor = 6, 1

func kernel(_ context.Context, x *examination) {
	release := x.setting("proc/sys/kernel/osrelease")
	major, rest, _ := strings.Cut(release, ".")
	minor := rest
	if end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		minor = rest[:end]
	}
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	switch {
	case err1 != nil || err2 != nil:
		x.find(Note, fmt.Sprintf("the kernel's release %q says nothing", release), "", "")
	case a < oldestMajor || a == oldestMajor && b < oldestMinor:
		x.find(Warning, "Linux "+release, fmt.Sprintf("nothing older than %d.%d is tested", oldestMajor, oldestMinor), "use a later kernel")
	default:
		x.ok("Linux %s", release)
	}
	if x.setting("proc/sys/net/core/bpf_jit_enable") == "0" {
		x.find(Warning, "eBPF programs are interpreted", "the eBPF datapath is several times slower without the compiler", "sysctl -w net.core.bpf_jit_enable=1")
	}
}

// programs are what the eBPF datapath is made of, and with the kernel's what tells several
// tags apart, limits storms, steers and suppresses.
func programs(_ context.Context, x *examination) {
	const why = "the eBPF datapath is made of them, and with the kernel's `vlans`, `storm-control`, `steer`, `redundancy` and `suppress`"
	switch err := x.LoadProgram(); {
	case errors.Is(err, fs.ErrPermission):
		x.find(Note, "whether eBPF programs load could not be looked at: "+err.Error(), "", "run pwctl doctor as root")
		return
	case err != nil:
		x.find(Warning, "eBPF programs do not load: "+err.Error(), why, "use a kernel with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF, as those of the distributions are")
		return
	}
	mounts, _ := fs.ReadFile(x.Files, "proc/mounts")
	if !strings.Contains(string(mounts), " /sys/fs/bpf bpf ") {
		x.find(Note, "eBPF programs load; there is no bpffs at /sys/fs/bpf", "a daemon with no other --bpf-dir pins nothing: frames are forwarded without it all the same, "+
			"but what `storm-control` remembers goes with it", "mount -t bpf bpf /sys/fs/bpf")
		return
	}
	x.ok("programs load, and there is a bpffs to pin them in")
}

// modules are needed by the kernel's datapath alone.
func modules(_ context.Context, x *examination) {
	if len(x.on("kernel")) == 0 {
		if x.answers() && len(x.on("ebpf")) > 0 {
			x.ok("none of the kernel's L2TP modules is needed")
		}
		return
	}
	needed := []string{"l2tp_core", "l2tp_netlink", "l2tp_eth"}
	for _, t := range x.site.Status.Tunnels {
		if t.Encapsulation == "ip" {
			needed = append(needed, "l2tp_ip")
			if strings.Contains(t.Local, ":") {
				needed = append(needed, "l2tp_ip6")
			}
		}
	}
	slices.Sort(needed)
	needed = slices.Compact(needed)
	builtIn, _ := fs.ReadFile(x.Files, "lib/modules/"+x.setting("proc/sys/kernel/osrelease")+"/modules.builtin")
	lacking := slices.DeleteFunc(slices.Clone(needed), func(m string) bool {
		return x.exists("sys/module/"+m) || bytes.Contains(builtIn, []byte("/"+m+".ko"))
	})
	if len(lacking) > 0 {
		x.find(Fault, "not loaded: "+strings.Join(lacking, ", "), "the kernel's datapath is made of these modules",
			"modprobe -a "+strings.Join(lacking, " ")+"; they may be in a package of extra modules, or kept from loading in /etc/modprobe.d")
		return
	}
	x.ok("%s loaded", strings.Join(needed, ", "))
}

// bridgeFilter: with br_netfilter, frames that cross a bridge go through the
// firewall's rules for routed packets, and Docker drops those.
func bridgeFilter(ctx context.Context, x *examination) {
	const dir = "proc/sys/net/bridge/"
	var on []string
	for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"} {
		if x.setting(dir+name) == "1" {
			on = append(on, "net.bridge."+name)
		}
	}
	if len(on) == 0 {
		x.ok("frames on bridges do not go through the firewall's rules for packets")
		return
	}
	fix := "sysctl -w " + strings.Join(on, "=0 ") + "=0, and in /etc/sysctl.d; or allow what the bridges carry in FORWARD"
	why := "frames on bridges go through the FORWARD rules for packets"
	for _, program := range []string{"iptables", "ip6tables"} {
		if out, err := x.Run(ctx, program, "-S", "FORWARD"); err == nil && strings.Contains(string(out), "-P FORWARD DROP") {
			x.find(Fault, program+" drops what is forwarded, and br_netfilter gives it the bridges' frames", why+"; Docker sets such a policy", fix)
			return
		}
	}
	x.find(Warning, strings.Join(on, ", ")+" on", why, fix)
}

// mtu tells what the path to each peer carries, and of pseudowires whose longest frames travel in fragments.
func mtu(_ context.Context, x *examination) {
	fits := 0
	for _, t := range x.site.Status.Tunnels {
		if t.State != "established" || t.PathMTU == 0 {
			continue
		}
		if !t.BlackHole {
			x.ok("tunnel %s to %s: the path carries packets of %d octets", t.Name, t.Peer, t.PathMTU)
		} else {
			x.find(Warning, fmt.Sprintf("tunnel %s to %s: packets of more than %d octets are lost on the way, and no router says so", t.Name, t.Peer, t.PathMTU),
				"somebody drops ICMP, which would tell; what is longer leaves in fragments of that length",
				fmt.Sprintf("let ICMP through (IPv4: type 3, code 4; IPv6: type 2), or say what the path carries: ip route change … mtu lock %d", t.PathMTU))
		}
		for _, s := range x.site.Sessions {
			if s.Tunnel != t.Name || s.Peer != t.Peer {
				continue
			}
			for _, p := range x.site.Status.Pseudowires {
				if p.Name != s.Pseudowire || p.Peer != s.Peer {
					continue
				}
				over := overhead(t.Local, t.Encapsulation, s.CookieOctets)
				if p.MTU+over <= t.PathMTU {
					fits++
					continue
				}
				x.find(Note, fmt.Sprintf("pseudowire %s to %s: packets of more than %d octets travel in fragments (its MTU is %d, the path's %d)", p.Name, p.Peer, t.PathMTU-over, p.MTU, t.PathMTU),
					"TCP is told to use smaller segments; all else is cut in two, which costs both ends and is lost where fragments are dropped",
					fmt.Sprintf("raise the underlay's MTU to %d, or set `mtu: %d` at the pseudowire and in the LANs", p.MTU+over, t.PathMTU-over))
			}
		}
	}
	if fits > 0 {
		x.ok("%s whose longest frames fit the path", counted(fits, "pseudowire"))
	}
}

// overhead is what a packet of the inner MTU grows by: outer IP, UDP, L2TP with its
// cookie (RFC 3931, Sections 4.1.1 and 4.1.2.1), and the
// frame's Ethernet header.
func overhead(local, encapsulation string, cookie int) int {
	n := 20 + 14 + 4 + cookie
	if strings.HasPrefix(local, "[") || strings.Count(local, ":") > 1 {
		n += 20
	}
	if encapsulation != "ip" {
		n += 8 + 4
	}
	return n
}

func clock(_ context.Context, x *examination) {
	kept, err := x.ClockSynchronised()
	switch {
	case err != nil:
		x.find(Note, "the clock could not be looked at: "+err.Error(), "", "")
	case !kept:
		x.find(Warning, "nothing keeps the clock", "events of two sites cannot be compared, and --confirm counts by it across a reboot", "run chrony or systemd-timesyncd")
	default:
		x.ok("the clock is kept")
	}
}

// offloads are those of attached interfaces that cost much where they are off, or harm where they are on.
// ethtool shows them; without it nothing is said.
func offloads(ctx context.Context, x *examination) {
	var seen []string
	for _, a := range x.site.Attachments {
		if a.Interface == "" || slices.Contains(seen, a.Interface) {
			continue
		}
		seen = append(seen, a.Interface)
		out, err := x.Run(ctx, "ethtool", "-k", a.Interface)
		if err != nil {
			continue
		}
		on := make(map[string]bool)
		for line := range strings.Lines(string(out)) {
			if name, state, is := strings.Cut(strings.TrimSpace(line), ": "); is {
				on[name] = strings.HasPrefix(state, "on")
			}
		}
		if segments, shown := on["generic-segmentation-offload"]; shown && !segments {
			x.find(Note, fmt.Sprintf("segmentation is off at %s of pseudowire %s", a.Interface, a.Pseudowire),
				"TCP goes through in many small packets, which costs several times as much", fmt.Sprintf("ethtool -K %s gso on", a.Interface))
		}
		if on["large-receive-offload"] {
			x.find(Warning, fmt.Sprintf("large-receive-offload is on at %s of pseudowire %s", a.Interface, a.Pseudowire),
				"it joins packets in a way that cannot be undone: frames leave too long for the other site", fmt.Sprintf("ethtool -K %s lro off", a.Interface))
		}
	}
}
