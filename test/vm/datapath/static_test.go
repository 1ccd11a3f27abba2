//go:build vm

package datapath

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/netlab"
	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// static is an end that nobody signals: tunnel and session are made with `ip l2tp`,
// as they are between machines without any control protocol.
const static pseudowire.Kind = "static"

// carryStatic makes tunnel and session of a setup, in place of those that are there.
func (s *site) carryStatic(peer *site, x setup) {
	s.t.Helper()
	s.session = s.sessionOf(x)
	if s.tunnel.Name != "" {
		s.ip("del", "tunnel", "tunnel_id", decimal(s.tunnel.LocalID))
	}
	s.tunnel.Name, s.tunnel.Encapsulation = "t/"+peer.lcce.Name, x.encapsulation
	tunnel := []string{
		"add", "tunnel", "tunnel_id", decimal(s.tunnel.LocalID), "peer_tunnel_id", decimal(s.tunnel.RemoteID),
		"local", s.addr.String(), "remote", peer.addr.String(),
	}
	switch {
	case x.encapsulation == l2tpv3.IP:
		tunnel = append(tunnel, "encap", "ip")
	case s.addr.Is4():
		tunnel = append(tunnel, "encap", "udp", "udp_sport", "1701", "udp_dport", "1701", "udp_csum", onOff(!x.noChecksum))
	default:
		tunnel = append(tunnel, "encap", "udp", "udp_sport", "1701", "udp_dport", "1701",
			"udp6_csum_tx", onOff(!x.noChecksum), "udp6_csum_rx", "off")
	}
	session := []string{
		"add", "session", "name", pwDevice, "tunnel_id", decimal(s.tunnel.LocalID),
		"session_id", decimal(s.session.LocalID), "peer_session_id", decimal(s.session.RemoteID),
		"l2spec_type", s.session.TransmitSublayer.String(),
	}
	if x.cookie > 0 {
		session = append(session, "cookie", hex.EncodeToString(s.session.RemoteCookie), "peer_cookie", hex.EncodeToString(s.session.LocalCookie))
	}
	if x.sequencing != l2tpv3.SequencingNone {
		session = append(session, "seq", "both")
	}
	// What was there goes in the background.
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	for _, args := range [][]string{tunnel, session} {
		if err := netlab.Poll(ctx, "ip l2tp "+strings.Join(args, " "), func() error {
			_, err := s.lcce.Run(ctx, "ip", append([]string{"l2tp"}, args...)...)
			return err
		}); err != nil {
			s.t.Fatal(err)
		}
	}
	s.lcce.Link(pwDevice).MTU(x.pw).Silent().Master(s.bridge).Up()
}

func (s *site) ip(args ...string) {
	s.t.Helper()
	if out, err := s.lcce.Run(s.t.Context(), "ip", append([]string{"l2tp"}, args...)...); err != nil {
		s.t.Fatal(fmt.Errorf("ip l2tp %s: %w: %s", strings.Join(args, " "), err, out))
	}
}

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
