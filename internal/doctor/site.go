package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// daemon says whether one answers; what one left behind forwards on without it.
func daemon(_ context.Context, x *examination) {
	if !x.answers() {
		why := ""
		if left := x.left(ours); len(left) > 0 {
			why = "frames may still be forwarded: " + strings.Join(left, ", ") + " are there"
		}
		x.find(Fault, "no daemon answers: "+x.site.Err.Error(), why,
			"systemctl status pwd, journalctl -u pwd; a daemon with another --run-dir needs --socket")
		return
	}
	s := x.site.Status
	if x.site.Pwctl != s.Version {
		x.find(Warning, fmt.Sprintf("the daemon is %s, pwctl %s", s.Version, x.site.Pwctl), "another build was installed since it started",
			"systemctl restart pwd; "+afterwards(x))
		return
	}
	x.ok("pwd %s serves site %s, generation %d", s.Version, s.Site, s.Generation)
}

// afterwards says what a restart means for traffic.
func afterwards(x *examination) string {
	if kept := x.site.Status.Restart; len(x.on("kernel")) > 0 && !kept.Store && !kept.Holder {
		return "pseudowires of the kernel's datapath are interrupted for a moment"
	}
	return "traffic is not interrupted"
}

// problems are those that the daemon knows of.
func problems(_ context.Context, x *examination) {
	if !x.answers() {
		return
	}
	s := x.site.Status
	for _, p := range s.Problems {
		x.find(Fault, p.Object+": "+p.What, "", p.Fix)
	}
	for _, n := range s.Notes {
		x.find(Note, n, "", "")
	}
	if s.FileDiffers {
		x.find(Warning, "the topology file is not the topology in force", "a restart of the daemon would put the file in force if it changed since it was last read",
			"pwctl diff -f FILE shows the difference, pwctl apply -f FILE puts it in force")
	}
	if len(s.Problems) == 0 {
		x.ok("%s and %s, no problems", counted(len(s.Tunnels), "tunnel"), counted(len(s.Pseudowires), "pseudowire"))
	}
}

// attachments are for frames alone: an address on one answers nobody at the other site.
func attachments(_ context.Context, x *examination) {
	var seen []string
	for _, a := range x.site.Attachments {
		if a.Interface == "" || slices.Contains(seen, a.Interface) {
			continue
		}
		seen = append(seen, a.Interface)
		addresses, err := x.Addresses(a.Interface)
		if err != nil {
			continue // one that is not there is a problem of the site
		}
		var usable []string
		for _, at := range addresses {
			if !at.IsLinkLocalUnicast() {
				usable = append(usable, at.String())
			}
		}
		if len(usable) > 0 {
			x.find(Warning, fmt.Sprintf("interface %s of pseudowire %s has the address %s", a.Interface, a.Pseudowire, strings.Join(usable, ", ")),
				"frames that arrive there go to the other site, so this host cannot be reached by it, and may lose its way out",
				"ip addr del it, or attach a bridge and give that the address")
		}
	}
}

// restart says what becomes of traffic without the daemon.
func restart(_ context.Context, x *examination) {
	ebpf, kernel := x.on("ebpf"), x.on("kernel")
	if len(ebpf) > 0 {
		x.ok("%s on the eBPF datapath: frames are forwarded while the daemon is restarted, replaced or killed", counted(len(ebpf), "pseudowire"))
	}
	if len(kernel) == 0 {
		return
	}
	const why = "the kernel ties its tunnels to sockets of the daemon"
	what, kept := counted(len(kernel), "pseudowire")+" on the kernel's datapath: ", x.site.Status.Restart
	switch {
	case kept.Holder && kept.Store:
		x.ok("%sframes are forwarded while the daemon is restarted, replaced or killed (file descriptor store: yes), and stopped and started (holder: yes)", what)
	case kept.Holder:
		x.ok("%sframes are forwarded while the daemon is restarted, replaced or killed, and stopped and started (file descriptor store: no; holder: yes)", what)
	case kept.Store:
		x.find(Note, what+"frames are forwarded while the daemon is restarted, replaced or killed (file descriptor store: yes), but not after a stop (holder: no)",
			why+", and the service manager may close those it keeps when the service stops", "systemctl start pwd-hold")
	default:
		x.find(Note, what+"while the daemon is away they carry nothing (file descriptor store: no; holder: no)",
			why, "run it as the service pwd, with pwd-hold beside it; or use `datapath: ebpf`")
	}
}
