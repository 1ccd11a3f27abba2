// Package doctor looks for what keeps pseudowires from working on a host, and
// says what to do about it.
//
// It only looks: at /proc and /sys, at what the daemon tells, and at what a few of
// the host's programs say. Each examination is a function in a table; all of them
// are run, also where no daemon answers.
package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"github.com/pwd-project/pwd/internal/api"
)

// Level is how bad a finding is.
type Level string

const (
	// OK is what is as it should be.
	OK Level = "ok"
	// Note is worth knowing and no reason to do anything.
	Note Level = "note"
	// Warning may hurt, now or later.
	Warning Level = "warning"
	// Fault keeps something from working.
	Fault Level = "fault"
)

// Finding is what one examination found.
type Finding struct {
	// Check is which examination, as "clock".
	Check string `json:"check"`
	Level Level  `json:"level"`
	// What was found, Why it matters, and what to do (Fix), the last two if there is anything.
	What string `json:"what"`
	Why  string `json:"why,omitempty"`
	Fix  string `json:"fix,omitempty"`
}

// Host is where the daemon runs.
type Host struct {
	// Files is the host's file system from its root: "proc/sys/kernel/osrelease".
	Files fs.FS
	// Run runs a program and returns what it printed.
	Run func(ctx context.Context, args ...string) ([]byte, error)
	// LoadProgram has the kernel load the shortest eBPF program of the kind that the datapaths are made of.
	LoadProgram func() error
	// ClockSynchronised says whether something keeps the clock.
	ClockSynchronised func() (bool, error)
	// Addresses of an interface.
	Addresses func(name string) ([]netip.Addr, error)
	// Table is one of iptables-legacy's, or of ip6tables-legacy's, that is in use.
	Table func(name string, ipv6 bool) (*Table, error)
	// Attached is what shapes and looks at packets, by whomever.
	Attached func() ([]Attached, error)
	// Aliases of the interfaces that have one, by name, in this process's network namespace.
	Aliases func() (map[string]string, error)
	// StateDir and BPFDir are the daemon's folders. Without a StateDir nobody's state is looked at.
	StateDir, BPFDir string
}

// Attached is a root qdisc of an interface, or a program in its clsact qdisc.
type Attached struct {
	Interface string
	// Kind is that of the qdisc, as "htb", or "bpf".
	Kind   string
	Handle uint32
	// Of a program: Hook is "ingress" or "egress", Program its number.
	Hook, Name string
	Priority   uint16
	Program    uint32
}

// Site is what the daemon told; Err is why it told nothing.
type Site struct {
	Status      *api.Status
	Sessions    []api.Session
	Attachments []api.Attachment
	Err         error
	// Pwctl is the version of who asks.
	Pwctl string
	// PID is the daemon's process, 0 where it cannot be seen.
	PID int
}

// Examine makes all examinations, in the order in which they are to be read.
func Examine(ctx context.Context, h Host, s Site) []Finding {
	x := &examination{Host: h, site: s}
	if x.site.Status == nil {
		x.site.Status = &api.Status{}
	}
	var err error
	x.aliases, err = h.Aliases()
	x.look("the aliases of interfaces", err)
	for _, check := range checks {
		x.check = check.name
		check.make(ctx, x)
	}
	return x.findings
}

// Worst is the worst level of some findings.
func Worst(findings []Finding) Level {
	order := []Level{OK, Note, Warning, Fault}
	worst := 0
	for _, f := range findings {
		worst = max(worst, slices.Index(order, f.Level))
	}
	return order[worst]
}

var checks = []struct {
	name string
	make func(context.Context, *examination)
}{
	{"daemon", daemon},
	{"site", problems},
	{"kernel", kernel},
	{"ebpf", programs},
	{"modules", modules},
	{"bridges", bridgeFilter},
	{"firewall", firewall},
	{"mtu", mtu},
	{"attachments", attachments},
	{"offloads", offloads},
	{"leftovers", leftovers},
	{"clock", clock},
	{"restart", restart},
}

// examination is one run of all checks.
type examination struct {
	Host
	site     Site
	check    string
	findings []Finding
	// aliases are what Host.Aliases told, unseen what could not be looked at, and why.
	aliases map[string]string
	unseen  []string
}

func (x *examination) find(level Level, what, why, fix string) {
	x.findings = append(x.findings, Finding{Check: x.check, Level: level, What: what, Why: why, Fix: fix})
}

func (x *examination) ok(what string, args ...any) { x.find(OK, fmt.Sprintf(what, args...), "", "") }

// setting is the first line of a file below /proc or /sys, "" if there is none.
func (x *examination) setting(name string) string {
	b, err := fs.ReadFile(x.Files, name)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}

func (x *examination) exists(name string) bool {
	_, err := fs.Stat(x.Files, name)
	return err == nil
}

// answers says whether the daemon does.
func (x *examination) answers() bool { return x.site.Err == nil }

// on gives the pseudowires that a datapath carries.
func (x *examination) on(datapath string) (names []string) {
	for _, p := range x.site.Status.Pseudowires {
		if p.Datapath == datapath {
			names = append(names, p.Name)
		}
	}
	return names
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
