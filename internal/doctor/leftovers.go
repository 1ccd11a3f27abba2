package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/pwd-project/pwd/internal/api"
)

// Where a daemon keeps its state and pins what is eBPF's, unless it is told otherwise.
const (
	DefaultStateDir = "/var/lib/pwd"
	DefaultBPFDir   = "/sys/fs/bpf/pwd"
)

// lock is the abstract socket that the daemon of a network namespace has.
const lock = "@pwd-project.pwd"

// initialPIDs is the PID namespace whose /proc shows every process of the host (linux/proc_ns.h).
const initialPIDs = "pid:[4026531836]"

// look notes what could not be looked at, and the first reason. What is not there was looked at.
func (x *examination) look(what string, err error) {
	told := slices.ContainsFunc(x.unseen, func(u string) bool { return strings.HasPrefix(u, what+": ") })
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !told {
		x.unseen = append(x.unseen, what+": "+err.Error())
	}
}

// left are the devices of ours in this network namespace: those whose alias has one of the prefixes.
func (x *examination) left(prefixes ...string) (devices []string) {
	for device, alias := range x.aliases {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(alias, p) }) {
			devices = append(devices, device)
		}
	}
	slices.Sort(devices)
	return devices
}

// ours is how the aliases of devices of ours begin, of bridges ofBridge and of VLAN devices ofVLAN.
const ours, ofPseudowire, ofLane, ofBridge, ofVLAN = "pwd:", "pwd:pseudowire:", "pwd:lane", "pwd:bridge:", "pwd:vlan:"

// leftovers are objects of ours that no daemon owns. One that starts removes by itself what its site does
// not have, and tries again where it could not.
func leftovers(_ context.Context, x *examination) {
	x.parted()
	switch locked := x.locked(); {
	case x.answers():
		x.beside()
	case locked:
		x.find(Note, "a daemon runs in this network namespace, and does not answer here: what is its own and what is left over cannot be told apart",
			"", "--socket names another daemon's socket")
	default:
		x.abandoned()
	}
	if len(x.unseen) > 0 {
		x.find(Note, "what is left over was not looked at in full: "+strings.Join(x.unseen, "; "), "", "run pwctl doctor as root to see it")
	}
}

// beside looks at what is not the daemon's that answers, if this is its network namespace: in another one all that
// is there is another daemon's, and is not to be removed for this one's sake.
func (x *examination) beside() {
	here, err := x.namespace("proc/self/ns/net")
	its := ""
	if err == nil && x.site.PID > 0 {
		its, err = x.namespace(fmt.Sprintf("proc/%d/ns/net", x.site.PID))
	}
	const unknown, enter = "what is left over was not looked at: ", "run it in the daemon's network namespace: nsenter -t %s -n pwctl doctor, with the same flags"
	switch {
	case x.site.PID <= 0:
		x.find(Note, unknown+"the daemon's process cannot be seen from here, nor its network namespace", "", fmt.Sprintf(enter, "PID"))
	case err != nil:
		x.find(Note, unknown+"the daemon's network namespace: "+err.Error(), "", "run it as root, in the daemon's network namespace")
	case its != here:
		x.find(Note, unknown+"the daemon is in another network namespace", "", fmt.Sprintf(enter, strconv.Itoa(x.site.PID)))
	default:
		x.strange()
	}
}

// locked says that a daemon runs in this network namespace.
func (x *examination) locked() bool {
	sockets, err := fs.ReadFile(x.Files, "proc/net/unix")
	x.look("whether a daemon runs", err)
	for line := range strings.Lines(string(sockets)) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == lock {
			return true
		}
	}
	return false
}

// abandoned is everything of ours where no daemon runs.
func (x *examination) abandoned() {
	objects := x.objects()
	site, kept := x.state()
	all := objects
	if kept != "" {
		all = append(slices.Clone(objects), kept)
	}
	switch {
	case len(all) == 0 && len(x.unseen) == 0:
		x.ok("nothing of an earlier daemon is here")
	case len(all) == 0:
	case len(objects) == 0:
		// The site may be in another network namespace, and forward there.
		x.find(Note, "no daemon runs, and there is "+kept, "a daemon that starts goes on with it", "start it")
	case site == "" || len(x.unseen) > 0:
		x.find(Warning, "no daemon runs, and there is "+strings.Join(all, ", "), stillForwarded,
			"start it; or run this as root with its --state-dir, to be told what removes all of that")
	default:
		x.find(Warning, "no daemon runs, and there is "+strings.Join(all, ", "), stillForwarded,
			"start it; or, if that is its own, have all of it removed, in view of the peers: "+x.cleanup(site))
	}
}

const stillForwarded = "frames may still be forwarded; a daemon that starts takes over what its site has, and removes the rest"

// objects are those of ours in this network namespace.
func (x *examination) objects() (all []string) {
	list := func(what string, names []string) {
		if len(names) > 0 {
			all = append(all, fmt.Sprintf("%s (%s)", counted(len(names), what), some(names)))
		}
	}
	list("device", x.left(ofPseudowire, ofLane))
	list("bridge", x.left(ofBridge))
	list("VLAN device", x.left(ofVLAN))
	attached, err := x.Attached()
	x.look("what is attached to interfaces", err)
	var programs, qdiscs []string
	for _, a := range attached {
		switch {
		case a.isProgram() && !strings.HasPrefix(x.aliases[a.Interface], ours):
			programs = append(programs, a.Name+" at "+a.Interface)
		case a.isShaper():
			qdiscs = append(qdiscs, a.Kind+" of "+a.Interface)
		}
	}
	list("program", programs)
	list("qdisc", qdiscs)
	if dir := x.pins(); dir != "" {
		all = append(all, "what is pinned in /"+dir)
	}
	return all
}

// cleanup is the command that removes what is a site's.
func (x *examination) cleanup(site string) string {
	command := "pwd --site " + site + " --cleanup"
	if x.StateDir != DefaultStateDir {
		command += " --state-dir " + x.StateDir
	}
	if x.BPFDir != "" && x.BPFDir != DefaultBPFDir {
		command += " --bpf-dir " + x.BPFDir
	}
	return command
}

// some are the first of names.
func some(names []string) string {
	const most = 4
	if more := len(names) - most; more > 1 {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(names, ", ")
}

// The handles of root qdiscs of ours, by kind (package qos).
var shapers = map[string]uint32{"htb": 0x7064 << 16, "fq": 0x7065 << 16}

func (a *Attached) isShaper() bool {
	return a.Hook == "" && shapers[a.Kind] == a.Handle && a.Handle != 0
}

func (a *Attached) isProgram() bool { return a.Hook != "" && strings.HasPrefix(a.Name, "pwd_") }

// pins is the folder of what this namespace's daemons have pinned, empty if there is nothing.
func (x *examination) pins() string {
	number, err := x.namespace("proc/self/ns/net")
	x.look("this network namespace", err)
	if number == "" {
		return ""
	}
	dir := path.Join(x.bpfDir(), "net-"+number)
	if x.filesBelow(dir) == 0 {
		return ""
	}
	return dir
}

func (x *examination) bpfDir() string { return strings.Trim(cmp.Or(x.BPFDir, DefaultBPFDir), "/") }

// namespace is the number of one, by its link: net:[4026531840].
func (x *examination) namespace(link string) (string, error) {
	to, err := fs.ReadLink(x.Files, link)
	if err != nil {
		return "", err
	}
	return numberOf(to), nil
}

func numberOf(namespace string) string {
	number, is := strings.CutPrefix(namespace, "net:[")
	if !is {
		return ""
	}
	return strings.TrimSuffix(number, "]")
}

// filesBelow counts what is in a folder and those in it.
func (x *examination) filesBelow(dir string) (n int) {
	_ = fs.WalkDir(x.Files, dir, func(_ string, e fs.DirEntry, err error) error {
		x.look("what is pinned", err)
		if err == nil && !e.IsDir() {
			n++
		}
		return nil
	})
	return n
}

// state is whose state is in the folder of that, and says it.
func (x *examination) state() (site, what string) {
	dir := x.StateDir
	if dir == "" {
		return "", ""
	}
	b, err := fs.ReadFile(x.Files, path.Join(strings.Trim(dir, "/"), "generation.json"))
	x.look("the state in "+dir, err)
	if err != nil {
		return "", ""
	}
	var g struct {
		Site   string `json:"site"`
		Number int    `json:"number"`
	}
	if json.Unmarshal(b, &g) != nil || g.Site == "" {
		return "", "state that cannot be read in " + dir
	}
	return g.Site, fmt.Sprintf("the state of site %s in %s, generation %d", g.Site, dir, g.Number)
}

// parted are pins of network namespaces that are no more: nobody can take them over.
func (x *examination) parted() {
	entries, err := fs.ReadDir(x.Files, x.bpfDir())
	x.look("what is pinned", err)
	living := x.namespaces()
	if living == nil {
		return
	}
	var gone []string
	for _, e := range entries {
		number, is := strings.CutPrefix(e.Name(), "net-")
		if _, err := strconv.ParseUint(number, 10, 64); !is || err != nil || living[number] {
			continue
		}
		gone = append(gone, "/"+path.Join(x.bpfDir(), e.Name()))
	}
	if len(gone) > 0 {
		x.find(Warning, "pinned maps and programs of network namespaces that have gone: "+some(gone), "they take memory, and nothing uses them",
			"if no other container uses it: rm -r "+strings.Join(gone, " "))
	}
}

// namespaces are those that a process is in, or that are mounted; nil where not all can be seen: a container shows
// its own, and /proc may show a user's own.
func (x *examination) namespaces() map[string]bool {
	if of, err := fs.ReadLink(x.Files, "proc/self/ns/pid"); err != nil || of != initialPIDs {
		return nil
	}
	if _, err := x.namespace("proc/1/ns/net"); err != nil {
		return nil
	}
	living := map[string]bool{}
	entries, err := fs.ReadDir(x.Files, "proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		number, err := x.namespace("proc/" + e.Name() + "/ns/net")
		if errors.Is(err, fs.ErrPermission) {
			return nil
		}
		if err == nil {
			living[number] = true
		}
	}
	mounts, err := fs.ReadFile(x.Files, "proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 3 {
			living[numberOf(f[3])] = true
		}
	}
	return living
}

// strange is what the daemon that answers does not have.
func (x *examination) strange() {
	if x.aliases == nil {
		return // what is whose cannot be told
	}
	const restart = "systemctl restart pwd, which removes what is not its own; "
	if devices := x.strangeDevices(); len(devices) > 0 {
		x.find(Warning, "devices of no pseudowire of this site: "+strings.Join(devices, ", "), "they may forward frames into the bridges that they are in",
			restart+"ip link del removes one")
	}
	bridges := slices.DeleteFunc(x.left(ofBridge+"pwb-"), func(b string) bool {
		return slices.ContainsFunc(x.site.Attachments, func(a api.Attachment) bool {
			return a.PrivateBridge == b || a.Interface != "" && a.PrivateBridge == "" // an earlier version does not tell
		})
	})
	if len(bridges) > 0 {
		x.find(Warning, "bridges of no attachment of this site: "+strings.Join(bridges, ", "), "they keep interfaces from other uses",
			restart+"ip link del removes one, and sets its ports free")
	}
	x.strangePrograms(restart)
	if site, what := x.state(); site != "" && site != x.site.Status.Site {
		x.find(Note, "there is "+what+", which is not this daemon's", "",
			"leave it, if a daemon of that site runs or is to go on with it in another network namespace")
	}
}

// strangeDevices are those of pseudowires that the daemon does not have.
func (x *examination) strangeDevices() (strange []string) {
	for _, device := range x.left(ofPseudowire) {
		name := strings.TrimPrefix(x.aliases[device], ofPseudowire)
		own, _, _ := strings.Cut(name, "~") // a session that took another one's place has a device, too
		if !slices.ContainsFunc(x.site.Status.Pseudowires, func(p api.Pseudowire) bool {
			// Of a pseudowire of several tunnels each has a device, named after both.
			below := strings.ReplaceAll(p.Name, "/", "+")
			return own == p.Name || own == below || strings.HasPrefix(own, below+"+")
		}) {
			strange = append(strange, fmt.Sprintf("%s (pseudowire %s)", device, name))
		}
	}
	return strange
}

// strangePrograms are those at others' interfaces that the daemon does not hold: it puts its own in the place of
// an earlier one's.
func (x *examination) strangePrograms(restart string) {
	attached, err := x.Attached()
	if err != nil {
		x.find(Note, "what is attached to interfaces was not looked at: "+err.Error(), "", "run pwctl doctor as root")
		return
	}
	var programs, fixes []string
	var held map[uint32]bool
	for _, a := range attached {
		if !a.isProgram() || a.Program == 0 || strings.HasPrefix(x.aliases[a.Interface], ours) {
			continue
		}
		if held == nil {
			if held, err = x.programsOf(x.site.PID); err != nil {
				x.find(Note, "whose the programs at interfaces are was not looked at: "+err.Error(), "", "run pwctl doctor as root")
				return
			}
		}
		if !held[a.Program] {
			programs = append(programs, a.Name+" at the "+a.Hook+" of "+a.Interface)
			fixes = append(fixes, fmt.Sprintf("tc filter del dev %s %s pref %d", a.Interface, a.Hook, a.Priority))
		}
	}
	if len(programs) > 0 {
		x.find(Warning, "programs of an earlier daemon: "+strings.Join(programs, ", "), "they take frames for what it had set",
			restart+strings.Join(fixes, "; "))
	}
}

// programsOf are the eBPF programs that a process holds.
func (x *examination) programsOf(pid int) (map[uint32]bool, error) {
	dir := fmt.Sprintf("proc/%d/fdinfo", pid)
	entries, err := fs.ReadDir(x.Files, dir)
	if err != nil {
		return nil, fmt.Errorf("the daemon's process: %w", err)
	}
	held := map[uint32]bool{}
	for _, e := range entries {
		b, err := fs.ReadFile(x.Files, dir+"/"+e.Name())
		if err != nil {
			continue // closed in between
		}
		for line := range strings.Lines(string(b)) {
			if number, is := strings.CutPrefix(line, "prog_id:"); is {
				if id, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32); err == nil {
					held[uint32(id)] = true
				}
			}
		}
	}
	return held, nil
}
