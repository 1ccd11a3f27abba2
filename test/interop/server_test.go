package interop

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
)

// vpnserver is SoftEther's server as Debian's package softether-vpnserver installs it.
const vpnserver = "/usr/libexec/softether/vpnserver/vpnserver"

// softEther is a SoftEther VPN server in a namespace. It answers L2TPv3 over UDP and IPv4, one
// control connection at a time.
type softEther struct {
	t      *testing.T
	ns     *netlab.Namespace
	server *netlab.Process
}

// newSoftEther gives the namespace folders of its own for what the server keeps, so that
// nothing of that is left.
func newSoftEther(t *testing.T, ns *netlab.Namespace) *softEther {
	t.Helper()
	for _, program := range []string{vpnserver, "vpncmd"} {
		if _, err := exec.LookPath(program); err != nil {
			netlab.Missing(t, "softether", err)
		}
	}
	s := &softEther{t: t, ns: ns}
	s.run("sh", "-ec", `
		for d in /var/lib /var/log /run; do mount -t tmpfs pwd-test $d; mkdir $d/softether; done`)
	return s
}

func (s *softEther) run(name string, args ...string) {
	s.t.Helper()
	if _, err := s.ns.Run(within(s.t), name, args...); err != nil {
		s.t.Fatal(err)
	}
}

// start starts the server and waits until it answers L2TPv3. It makes a second
// process that does the work: in a PID namespace, so that both end together.
func (s *softEther) start() {
	s.t.Helper()
	var err error
	s.server, err = s.ns.Start("SoftEther", exec.Command("unshare", "--pid", "--fork", "--kill-child", vpnserver, "execsvc"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.answer("yes")
}

// stop kills the server, with all that it knows of its connection.
func (s *softEther) stop() { s.server.Kill() }

// answer turns L2TPv3 on ("yes") or off ("no"): then it falls silent.
func (s *softEther) answer(yes string) {
	s.t.Helper()
	ctx := within(s.t)
	err := netlab.Poll(ctx, "SoftEther takes commands", func() error {
		// A server that is only half awake does not answer some connections ever.
		one, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, err := s.ns.Run(one, "vpncmd", "localhost:5555", "/SERVER", "/CMD", "IPsecEnable",
			"/L2TP:no", "/L2TPRAW:"+yes, "/ETHERIP:yes", "/PSK:vpn", "/DEFAULTHUB:DEFAULT")
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}
