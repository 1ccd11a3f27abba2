//go:build vm

package datapath

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
	"github.com/pwd-project/pwd/pkg/pseudowire/bundle"
	"github.com/pwd-project/pwd/pkg/pseudowire/l2tpeth"
	"github.com/pwd-project/pwd/pkg/pseudowire/mssclamp"
	"github.com/pwd-project/pwd/pkg/pseudowire/nsp"
	"github.com/pwd-project/pwd/pkg/pseudowire/suppress"
	"github.com/pwd-project/pwd/pkg/pseudowire/tcbpf"
	"github.com/pwd-project/pwd/pkg/qos"
)

// daemonCapabilities are all that the daemon runs with.
var daemonCapabilities = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_BPF}

// childKind names the datapath that a child process of this test tries out.
const childKind = "PWD_DATAPATH_CHILD"

func TestMain(m *testing.M) {
	if kind := os.Getenv(childKind); kind != "" {
		if err := tryDatapath(pseudowire.Kind(kind)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// Every program loads, a session is made and removed, and an interface is shaped, by a process
// that is not root and has the daemon's capabilities and no others.
func TestCapabilities(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	for _, kind := range []pseudowire.Kind{kernel, ebpf} {
		t.Run(string(kind), func(t *testing.T) {
			lab := netlab.New(t)
			a, b := lab.Namespace("a"), lab.Namespace("b")
			near, far := lab.Veth(a, "wan0", b, "wan0")
			near.Addr(families[0].a.String() + families[0].prefix).Up()
			far.Addr(families[0].b.String() + families[0].prefix).Up()
			if err := os.Chown(a.Root()+"/sys/fs/bpf", nobody, nobody); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), childKind+"="+string(kind))
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
				AmbientCaps: daemonCapabilities,
			}
			p, err := a.Start(string(kind), cmd)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			links, err := a.Links()
			if err != nil || len(links) != 1 {
				t.Errorf("left: %q, %v", links, err)
			}
		})
	}
}

// tryDatapath runs in the child.
func tryDatapath(kind pseudowire.Kind) (err error) {
	if err := onlyDaemonCapabilities(); err != nil {
		return err
	}
	var dp pseudowire.Datapath
	if kind == pseudowire.Kernel {
		if dp, err = l2tpeth.Open(l2tpeth.Options{}); err == nil {
			dp, err = mssclamp.Wrap(dp, mssclamp.Options{})
		}
		if err == nil {
			dp, err = bundle.Wrap(dp, bundle.Options{})
		}
	} else {
		dp, err = tcbpf.Open(tcbpf.Options{BPFDir: "/sys/fs/bpf/pwd"})
	}
	if err == nil {
		dp, err = nsp.Wrap(dp, nsp.Options{BPFDir: "/sys/fs/bpf/pwd"})
	}
	if err == nil {
		dp, err = suppress.Wrap(dp, suppress.Options{})
	}
	if err != nil {
		return err
	}
	local, remote := netip.AddrPortFrom(families[0].a, 1701), netip.AddrPortFrom(families[0].b, 1701)
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(local), net.UDPAddrFromAddrPort(remote))
	if err != nil {
		return err
	}
	defer conn.Close()
	file, err := conn.File()
	if err != nil {
		return err
	}
	defer file.Close()
	for _, set := range []func() error{
		func() error {
			limits := pseudowire.Limits{UnknownUnicast: 1000}
			return dp.SetPseudowire(pseudowire.Pseudowire{Name: pwName, Device: pwDevice, Several: true, Suppress: "office", Service: pseudowire.Service{Limits: limits}})
		},
		func() error {
			return dp.SetTunnel(pseudowire.Tunnel{
				Name: "t/b", LocalID: 1, RemoteID: 2, Encapsulation: l2tpv3.UDP,
				Local: local, Remote: remote, Socket: int(file.Fd()),
			})
		},
		func() error {
			return dp.SetSession(pseudowire.Session{
				Tunnel: "t/b", Pseudowire: pwName, LocalID: 3, RemoteID: 4,
				LocalCookie: cookie(1, 8), RemoteCookie: cookie(2, 8), Transmit: true,
			})
		},
		dp.Refresh,
		func() error { _, err := dp.Counters(); return err },
		dp.Prune,
		dp.Cleanup,
	} {
		if err := set(); err != nil {
			return err
		}
	}
	return tryShaping()
}

// tryShaping has wan0 shaped by HTB and by departure times.
func tryShaping() error {
	underlay, err := net.InterfaceByName("wan0")
	if err != nil {
		return err
	}
	shaper, err := qos.Open(nil, "/sys/fs/bpf/pwd")
	if err != nil {
		return err
	}
	defer shaper.Close()
	for _, edt := range []bool{false, true} {
		shaped := qos.Interface{Index: underlay.Index, EDT: edt, Classes: []qos.Class{{Number: 1, Ceiling: 1e6}}}
		if err := shaper.Set([]qos.Interface{shaped}); err != nil {
			return err
		}
	}
	return shaper.Cleanup()
}

// onlyDaemonCapabilities makes sure that the test is about what it says.
func onlyDaemonCapabilities() error {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	var want uint64
	for _, c := range daemonCapabilities {
		want |= 1 << c
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "CapPrm:\t"); ok {
			if got := strings.TrimSpace(value); got != fmt.Sprintf("%016x", want) {
				return fmt.Errorf("permitted capabilities %s, want %016x", got, want)
			}
			return nil
		}
	}
	return fmt.Errorf("no capabilities in /proc/self/status")
}
