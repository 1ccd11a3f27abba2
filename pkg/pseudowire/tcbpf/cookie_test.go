package tcbpf

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// Cookies change many times, at either end's own moment, while datagrams pass both
// ways: not one is lost (RFC 8159, Section 5).
func TestChangingCookiesLosesNothing(t *testing.T) {
	for _, set := range []setting{{cookie: 8}, {cookie: 4, v6: true}, {cookie: 8, ip: true}} {
		a, b := up(t, set)
		there := startStream(t, a.host, b.host, "10.0.0.2:9000")
		back := startStream(t, b.host, a.host, "10.0.0.1:9000")
		rng := rand.New(rand.NewPCG(5, 6))
		for range 25 {
			for _, ends := range [][2]*site{{a, b}, {b, a}} {
				changeCookie(ends[0], ends[1], binary.BigEndian.AppendUint64(nil, rng.Uint64())[:set.cookie])
			}
		}
		there.end()
		back.end()
		for _, s := range []*site{a, b} {
			if n := s.counters().Drops["wrong-cookie"]; n != 0 {
				t.Errorf("%s: %d wrong cookies", s.name, n)
			}
		}
	}
}

// changeCookie changes that of packets to one site: it accepts both, the other goes
// over to the new one, and when packets with it have come, the old one is not accepted
// any more.
func changeCookie(to, from *site, cookie []byte) {
	to.t.Helper()
	to.session.PreviousCookie, to.session.LocalCookie = to.session.LocalCookie, cookie
	to.do(func() { must(to.t, to.dp.SetSession(to.session)) })
	before := to.counters().ReceivedFrames
	to.eventually("nothing comes with the previous cookie", func() bool { return to.received() > before })
	from.session.RemoteCookie = cookie
	from.do(func() { must(from.t, from.dp.SetSession(from.session)) })
	before = to.counters().ReceivedFrames
	to.eventually("nothing comes with the new cookie", func() bool { return to.received() > before+20 })
	to.session.PreviousCookie = nil
	to.do(func() { must(to.t, to.dp.SetSession(to.session)) })
}

// received is for use in the site's own thread.
func (s *site) received() uint64 {
	all, err := s.dp.Counters()
	must(s.t, err)
	return all[s.session.LocalID].ReceivedFrames
}

// Which cookies are accepted, while one is replaced and afterwards.
func TestPreviousCookie(t *testing.T) {
	a, far := upAgainstTap(t, setting{cookie: 8}, nil)
	out := openPort(t, a.host, "eth0")
	old := a.session.LocalCookie
	next := []byte{8, 7, 6, 5, 4, 3, 2, 1}
	accepts := func(cookie []byte, want bool) {
		t.Helper()
		before := a.counters()
		frame := shapes[0].frame(newRand(), 100)
		packet := far.inbound(a, false, frame, func(m *message) { m.cookie = cookie })
		far.send(packet)
		a.do(func() { a.dp.Deliver(a.tunnel.Remote, packet[14+20+8:]) })
		if !want {
			a.counted(before, map[string]uint64{"wrong-cookie": 2})
			return
		}
		for range 2 {
			if got := out.receive(); !bytes.Equal(got, frame) {
				t.Errorf("cookie % x: %s", cookie, firstDifference(got, frame))
			}
		}
		a.counted(before, map[string]uint64{"reassembled": 1})
	}
	change := func(cookie, previous []byte) {
		a.session.LocalCookie, a.session.PreviousCookie = cookie, previous
		a.do(func() { must(t, a.dp.SetSession(a.session)) })
	}
	accepts(old, true)
	accepts(next, false)
	change(next, old)
	accepts(old, true)
	accepts(next, true)
	accepts(append(bytes.Clone(old[:4]), next[4:]...), false)
	change(next, nil)
	accepts(old, false)
	accepts(next, true)
}

// Off-path blind insertion: every packet that does not have both, session ID and
// cookie, is counted, and those that do are carried as if there were no others.
func TestBlindInsertion(t *testing.T) {
	for _, set := range []setting{{cookie: 8}, {cookie: 8, v6: true}, {cookie: 8, ip: true}, {cookie: 8, v6: true, ip: true}} {
		a, far := upAgainstTap(t, set, nil)
		out := openPort(t, a.host, "eth0")
		rng := rand.New(rand.NewPCG(7, 8))
		before, globalBefore := a.counters(), a.global()
		var cookies, unknown uint64
		for n := range 2000 {
			frame := shapes[0].frame(rng, 60)
			far.send(far.inbound(a, set.v6, frame, func(m *message) {
				if rng.IntN(2) == 0 {
					m.session = rng.Uint32() | 1<<31
				}
				binary.BigEndian.PutUint64(m.cookie, rng.Uint64())
				if m.session == a.session.LocalID {
					cookies++
				} else {
					unknown++
				}
			}))
			if n%20 != 0 {
				continue
			}
			good := shapes[0].frame(rng, 100)
			far.send(far.inbound(a, set.v6, good, nil))
			if got := out.receive(); !bytes.Equal(got, good) {
				t.Fatalf("%s", firstDifference(got, good))
			}
		}
		a.counted(before, map[string]uint64{"wrong-cookie": cookies})
		after := a.counters()
		if n := after.ReceivedFrames - before.ReceivedFrames; n != 100 {
			t.Errorf("counted %d frames received, not 100", n)
		}
		if got := difference(globalBefore, a.global()); got["unknown-session"] != unknown || len(got) != 1 {
			t.Errorf("counted %v, of %d packets of unknown sessions", got, unknown)
		}
	}
}
