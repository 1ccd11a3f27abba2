package control

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// rule is one of the forty that test/conformance checks of the daemon, as an exchange
// with the control machine alone: there is no socket, and time is what the exchange says.
type rule struct {
	number  int
	section string // of RFC 3931 unless it says which
	// exchange is what is done, and all that comes of it. Lines:
	//
	//	tunnel, session, remove, < MESSAGE, heard, advance   as in TestTranscripts
	//	> [+TIME] MESSAGE    the next message that is sent, with these fields among others
	//	+ install …          what the data plane is told, likewise; and uninstall
	//	? STATE              the tunnel's state
	//
	// What is sent and not expected is an error: "no change" is a line with nothing below it.
	exchange string
	// test is what a script does not say, over one encapsulation.
	test func(*testing.T, l2tpv3.Encapsulation)
	// udp says why the rule is about UDP alone, absent why it is not about this machine at all.
	udp, absent string
}

// The peer, whose connection is 77, opens ours, which is 11. Values that are drawn count up from 11.
const (
	call   = "< SCCRQ host=gold.dc2 router=200 assigned=77 caps=5"
	opened = "tunnel gold/dc2\n" + call + `
		> SCCRP ccid=77 ns=0 nr=1 assigned=11
		< SCCCN ccid=11 ns=1 nr=1
		> ACK ccid=77 ns=1 nr=2
		? established
		`
	calling = "tunnel gold/dc2\nsession gold/dc2 a\n" + call + `
		> SCCRP ccid=77 ns=0 nr=1
		< SCCCN ccid=11 ns=1 nr=1
		> ICRQ ccid=77 ns=1 nr=2 local=12 remote=0 end=a tie=0d
		`
	inSession = calling + `< ICRP ccid=11 ns=2 nr=2 local=900 remote=12 circuit=A
		+ install a session=12/900 transmit=true
		> ICCN ccid=77 ns=2 nr=3 local=12 remote=900
		< ACK ccid=11 ns=3 nr=3
		`
	// lives follows what was not to change anything of opened.
	lives = `< HELLO ccid=11 ns=2 nr=1
		> ACK ccid=77 ns=1 nr=3
		? established
		`
	unknownOptional = " avp=-:0:31420:00 avp=-:65534:1:01"
)

var conformance = []rule{
	{number: 1, section: "3.2.1", exchange: inSession + `< CDN ccid=11 ns=3 nr=3 result=3 local=900 remote=12
		+ uninstall a session=12
		> ACK ccid=77 ns=3 nr=4
		remove gold/dc2 6
		> StopCCN ccid=77 ns=3 nr=4 result=6/0/tunnel_removed assigned=11
		? none`},
	{number: 2, section: "3.2.1", exchange: "tunnel gold/dc2\n" + call + ` xbits
		> SCCRP ccid=77 ns=0 nr=1
		< SCCCN ccid=11 ns=1 nr=1
		> ACK ccid=77 ns=1 nr=2
		< HELLO ccid=11 ns=2 nr=1 xbits
		> ACK ccid=77 ns=1 nr=3
		? established`},
	{number: 3, section: "4.1.1.2", absent: "the four zeros are the transport's: no message has them here"},
	{number: 4, section: "7.1", exchange: opened + `< c803000b0000000b00020001
		< c80300640000000b00020001
		< c8030000
		` + lives},
	{number: 5, section: "4.1.2.2", udp: "there are no ports", exchange: "tunnel gold/dc2\n" + call + ` from=192.0.2.2:4567
		> SCCRP to=192.0.2.2:4567
		< SCCCN ccid=11 ns=1 nr=1 from=192.0.2.2:4567
		> ACK to=192.0.2.2:4567
		< HELLO ccid=11 ns=2 nr=1 from=192.0.2.2:4568
		< HELLO ccid=11 ns=2 nr=1 from=192.0.2.2:4567
		> ACK nr=3 to=192.0.2.2:4567`},
	{number: 6, section: "4.1.2.2", udp: "there are no ports", exchange: `tunnel gold/dc2
		advance 1ms
		> SCCRQ to=192.0.2.2:1701
		< SCCRP ccid=11 ns=0 nr=1 host=gold.dc2 router=200 assigned=77 caps=5 from=192.0.2.2:4567
		> SCCCN to=192.0.2.2:4567
		< HELLO ccid=11 ns=1 nr=2 from=192.0.2.2:4567
		> ACK nr=2 to=192.0.2.2:4567`},
	{number: 7, section: "4.1.2.3", absent: "the checksum is the socket's"},
	{number: 8, section: "5.4.3", exchange: `tunnel gold/dc2
		advance 1ms
		> SCCRQ ccid=0 assigned=11
		< SCCRP ccid=11 ns=0 nr=1 host=gold.dc2 router=200 assigned=4294967295 caps=5
		> SCCCN ccid=4294967295 ns=1 nr=1`},
	{number: 9, section: "5.4.1", exchange: inSession},
	{number: 10, section: "6.1, 6.2", exchange: "tunnel gold/dc2\n" + call + "\n> SCCRP host=gold.dc1 router=100 assigned=11 caps=5"},
	{number: 10, section: "6.1, 6.2", exchange: "tunnel gold/dc2\nadvance 1ms\n> SCCRQ host=gold.dc1 router=100 assigned=11 caps=5"},
	{number: 11, section: "5.2", exchange: "tunnel gold/dc2\nsession gold/dc2 a\n" + call + unknownOptional + `
		> SCCRP
		< SCCCN ccid=11 ns=1 nr=1
		> ICRQ tie=0d
		< ICRQ ccid=11 ns=2 nr=2 local=900 remote=0 serial=1 type=5 end=a circuit=A tie=1` + unknownOptional + `
		+ install a session=14/900 transmit=false
		> ICRP ns=2 nr=3 local=14 remote=900
		< ICCN ccid=11 ns=3 nr=3 local=900 remote=14
		+ install a transmit=true
		> ACK nr=4
		< SLI ccid=11 ns=4 nr=3 local=900 remote=14 circuit=-` + unknownOptional + `
		+ install a transmit=false
		> ACK nr=5`},
	{number: 12, section: "5.2", exchange: "tunnel gold/dc2\n" + call + ` avp=M:0:31420:00
		> StopCCN ccid=77 ns=0 nr=1 result=2/8/`},
	{number: 12, section: "5.2", exchange: "tunnel gold/dc2\n" + call + `
		> SCCRP
		< SCCCN ccid=11 ns=1 nr=1 avp=M:65534:1:00
		> StopCCN ccid=77 ns=1 nr=2 result=2/8/
		? idle`},
	{number: 12, section: "5.2", exchange: inSession + `< HELLO ccid=11 ns=3 nr=3 avp=M:0:31420:00
		+ uninstall a session=12
		> StopCCN ccid=77 ns=3 nr=4 result=2/8/
		? idle`},
	{number: 13, section: "5.2", exchange: inSession + `session gold/dc2 b
		> ICRQ ns=3 local=14 end=b
		< ICRQ ccid=11 ns=3 nr=4 local=901 remote=0 serial=1 type=5 end=b circuit=A tie=1 avp=M:0:31420:00
		> CDN ns=4 nr=4 result=2/8/ remote=901
		< SLI ccid=11 ns=4 nr=5 local=900 remote=12 circuit=-
		+ install a session=12/900 transmit=false
		> ACK nr=5
		? established`},
	{number: 13, section: "5.2", exchange: inSession + `< SLI ccid=11 ns=3 nr=3 local=900 remote=12 circuit=- avp=M:65534:1:00
		+ uninstall a session=12
		> CDN ns=3 nr=4 result=2/8/ local=12 remote=900
		< HELLO ccid=11 ns=4 nr=4
		> ACK ns=4 nr=5
		? established`},
	{number: 14, section: "5.2", exchange: "tunnel gold/dc2\nsession gold/dc2 a\n" + call + ` invert
		> SCCRP ccid=77 ns=0 nr=1
		< SCCCN ccid=11 ns=1 nr=1 invert
		> ICRQ local=12
		< ICRP ccid=11 ns=2 nr=2 local=900 remote=12 circuit=A cookie=01020304 invert
		+ install a session=12/900 cookie=/01020304 transmit=true
		> ICCN
		< SLI ccid=11 ns=3 nr=3 local=900 remote=12 circuit=- invert
		+ install a transmit=false
		> ACK nr=4
		< CDN ccid=11 ns=4 nr=3 result=3 local=900 remote=12 invert
		+ uninstall a
		> ACK nr=5
		< StopCCN ccid=11 ns=5 nr=3 result=6 assigned=77 invert
		> ACK nr=6
		? idle`},
	{number: 15, section: "5.4.1", exchange: opened + "< 31420 ccid=11 ns=2 nr=1\n> StopCCN ccid=77 ns=1 nr=3\n? idle"},
	{number: 16, section: "4.2, 5.4.1", exchange: opened + `< 31420- ccid=11 ns=2 nr=1
		> ACK ccid=77 ns=1 nr=3
		< HELLO ccid=11 ns=3 nr=1
		> ACK ccid=77 ns=1 nr=4
		? established`},
	{number: 17, section: "4.2", exchange: opened + `< SCCCN ccid=11 ns=1 nr=1
		> ACK ns=1 nr=2
		` + lives + `< HELLO ccid=11 ns=2 nr=1
		> ACK ns=1 nr=3
		? established`},
	{number: 17, section: "4.2", exchange: calling + `< ICRQ ccid=11 ns=2 nr=2 local=900 remote=0 serial=1 type=5 end=a circuit=A tie=1
		+ install a session=14/900
		> ICRP ns=2 nr=3
		< ICRQ ccid=11 ns=2 nr=2 local=900 remote=0 serial=1 type=5 end=a circuit=A tie=1
		> ACK ns=3 nr=3`},
	{number: 18, section: "4.2", exchange: opened + "< StopCCN ccid=11 ns=65437 nr=1 result=6 assigned=77\n> ACK ns=1 nr=2\n" + lives},
	{number: 19, section: "4.2", exchange: inSession + `< CDN ccid=11 ns=4 nr=3 result=3 local=900 remote=12
		< SLI ccid=11 ns=3 nr=3 local=900 remote=12 circuit=-
		+ install a transmit=false
		+ uninstall a
		> ACK nr=5`},
	{number: 20, section: "4.2", exchange: inSession + `session gold/dc2 a circuit=-
		> SLI ns=3
		advance 70s
		> +1.00s SLI ns=3
		> +3.00s SLI ns=3
		> +7.00s SLI ns=3
		> +15.00s SLI ns=3
		> +23.00s SLI ns=3
		> +31.00s SLI ns=3
		> +39.00s SLI ns=3
		> +47.00s SLI ns=3
		> +55.00s SLI ns=3
		> +63.00s SLI ns=3
		? established
		advance 1s
		+ uninstall a session=12
		? idle`},
	{number: 21, section: "4.2", exchange: calling + `< HELLO ccid=11 ns=2 nr=1
		> ACK ns=2 nr=3
		advance 1s
		> +1.00s ICRQ ns=1 nr=3`},
	{number: 22, section: "4.2", exchange: opened + `< ACK ccid=11 ns=2 nr=1
		< ACK ccid=11 ns=2 nr=1
		< ACK ccid=11 ns=2 nr=1
		` + lives + `< HELLO ccid=11 ns=3 nr=1
		> ACK ns=1 nr=4`},
	{number: 23, section: "4.2, 5.4.3", test: receiveWindow},
	{number: 24, section: "3.3.2", exchange: inSession + `< StopCCN ccid=11 ns=3 nr=3 result=6 assigned=77
		+ uninstall a session=12
		> ACK ccid=77 ns=3 nr=4
		remove gold/dc2 6
		advance 5s
		< StopCCN ccid=11 ns=3 nr=3 result=6 assigned=77
		> ACK ccid=77 ns=3 nr=4
		advance 10s
		< StopCCN ccid=11 ns=3 nr=3 result=6 assigned=77
		> ACK ccid=77 ns=3 nr=4
		advance 15s
		< StopCCN ccid=11 ns=3 nr=3 result=6 assigned=77
		> ACK ccid=77 ns=3 nr=4`},
	{number: 25, section: "4.2", exchange: inSession + `remove gold/dc2 6
		+ uninstall a session=12
		> StopCCN ccid=77 ns=3 nr=3 result=6
		advance 80s
		> +1.00s StopCCN ccid=77 ns=3
		> +3.00s StopCCN ccid=77 ns=3
		> +7.00s StopCCN ccid=77 ns=3
		> +15.00s StopCCN ccid=77 ns=3
		> +23.00s StopCCN ccid=77 ns=3
		> +31.00s StopCCN ccid=77 ns=3
		> +39.00s StopCCN ccid=77 ns=3
		> +47.00s StopCCN ccid=77 ns=3
		> +55.00s StopCCN ccid=77 ns=3
		> +63.00s StopCCN ccid=77 ns=3`},
	{number: 25, section: "4.2", exchange: opened + `remove gold/dc2 6
		> StopCCN ccid=77 ns=1 nr=2
		advance 1s
		> +1.00s StopCCN ccid=77 ns=1
		< ACK ccid=11 ns=2 nr=2
		advance 80s`},
	{number: 26, section: "5.4.3, 6.4", exchange: `tunnel gold/dc2
		advance 1ms
		> +0.00s SCCRQ ccid=0 ns=0 assigned=11
		remove gold/dc2 6
		> StopCCN ccid=0 ns=1 nr=0 assigned=11`},
	{number: 27, section: "4.4", exchange: "tunnel gold/dc2 hello=10s\n" + call + `
		> SCCRP
		< SCCCN ccid=11 ns=1 nr=1
		> ACK
		advance 9s
		heard 11
		advance 9s
		advance 1s
		> +1.00s HELLO ccid=77 ns=1 nr=2
		advance 70s
		> +1.00s HELLO
		> +3.00s HELLO
		> +7.00s HELLO
		> +15.00s HELLO
		> +23.00s HELLO
		> +31.00s HELLO
		> +39.00s HELLO
		> +47.00s HELLO
		> +55.00s HELLO
		> +63.00s HELLO
		advance 1s
		? idle`},
	{number: 28, section: "4.3, 5.4.1", test: everyMessageHasADigest},
	{number: 29, section: "5.4.1", test: wrongDigestOrNone},
	{number: 30, section: "5.4.1", test: twoDigests},
	{number: 31, section: "6.15", exchange: inSession + `session gold/dc2 a circuit=-
		> SLI ns=3
		< ZLB ccid=11 ns=3 nr=4
		advance 20s
		? established`},
	{number: 31, section: "6.15", exchange: opened + lives + `< ZLB ccid=11 ns=3 nr=1
		< HELLO ccid=11 ns=3 nr=1
		> ZLB ccid=77 ns=1 nr=4
		< HELLO ccid=11 ns=3 nr=1
		> ZLB ccid=77 ns=1 nr=4`},
	{number: 31, section: "6.15", test: zlbWithAuthentication},
	{number: 32, section: "5.3", test: hiddenAVPs},
	{number: 33, section: "5.4.3", test: connectionTie},
	{number: 34, section: "5.4.4", test: sessionTie},
	{number: 35, section: "5.4.4", exchange: calling + `< ICRQ ccid=11 ns=2 nr=2 local=901 remote=0 serial=1 type=4 end=a circuit=A
		> CDN result=14/ remote=901
		< ICRQ ccid=11 ns=3 nr=3 local=902 remote=0 serial=1 type=5 end=a circuit=A sequencing=1 tie=1
		> CDN result=15/ remote=902
		< ICRQ ccid=11 ns=4 nr=4 local=903 remote=0 serial=1 type=5 end=a circuit=A sequencing=2 tie=1
		> CDN result=15/ remote=903
		? established`},
	{number: 36, section: "4.5", test: sessionIDsAndCookies},
	{number: 37, section: "4.6, 5.4.4", test: sequencing},
	{number: 38, section: "5.4.5, 4719 2.3.2, 5641", exchange: inSession + `< SLI ccid=11 ns=3 nr=3 local=900 remote=12 circuit=-
		+ install a transmit=false
		> ACK nr=4
		< SLI ccid=11 ns=4 nr=3 local=900 remote=12 circuit=A
		+ install a transmit=true
		> ACK nr=5
		session gold/dc2 a circuit=-
		> SLI circuit=-
		< ACK ccid=11 ns=5 nr=4
		session gold/dc2 a circuit=AR
		> SLI circuit=R`},
	{number: 39, section: "5.4.4", exchange: inSession + `< SLI ccid=11 ns=3 nr=3 local=900 remote=0 circuit=-
		+ install a transmit=false
		> ACK nr=4
		< CDN ccid=11 ns=4 nr=3 result=3 local=900 remote=0
		+ uninstall a session=12
		> ACK nr=5`},
	{number: 40, section: "4.7.3", udp: "L2TPv2 is over UDP only", exchange: `tunnel gold/dc2
		< SCCRQ ver=2 avp=M:0:2:0100 avp=M:0:3:00000003 host=gold.dc2 avp=M:0:9:0001 router=200 assigned=77 caps=5 invert
		> SCCRP ccid=77 ns=0 nr=1`},
	{number: 40, section: "7.3.2", exchange: inSession + `< ICRQ ccid=11 ns=3 nr=3 local=900 remote=0 serial=2 type=5 end=a circuit=A
		+ uninstall a session=12
		> CDN ns=3 nr=4 remote=900
		? established`},
}

// The exchanges of the forty rules, with the control machine alone.
func TestRules(t *testing.T) {
	for i, r := range conformance {
		for _, e := range []l2tpv3.Encapsulation{l2tpv3.UDP, l2tpv3.IP} {
			if r.absent != "" || r.udp != "" && e != l2tpv3.UDP {
				continue
			}
			t.Run(fmt.Sprintf("%d %s/%d %v", r.number, r.section, i, e), func(t *testing.T) {
				t.Parallel()
				if r.test != nil {
					r.test(t, e)
					return
				}
				play(t, e, r.exchange)
			})
		}
	}
}

// Every rule is there, once with an exchange or with a reason.
func TestRulesAreComplete(t *testing.T) {
	for n := 1; n <= 40; n++ {
		if !slices.ContainsFunc(conformance, func(r rule) bool { return r.number == n }) {
			t.Errorf("rule %d is missing", n)
		}
	}
	for _, r := range conformance {
		if r.section == "" || (r.exchange != "") == (r.test != nil || r.absent != "") || r.test != nil && r.absent != "" {
			t.Errorf("rule %d: it is to have a section, and one of an exchange, a test and a reason", r.number)
		}
	}
}

// performance is an exchange under way.
type performance struct {
	t             *testing.T
	encapsulation l2tpv3.Encapsulation
	s             *stage
	// got is what has come of the last line and was not expected yet.
	got []string
}

func perform(t *testing.T, e l2tpv3.Encapsulation) *performance {
	p := &performance{t: t, encapsulation: e, s: &stage{now: epoch, random: 9}}
	p.s.reset()
	return p
}

func play(t *testing.T, e l2tpv3.Encapsulation, script string) *performance {
	t.Helper()
	p := perform(t, e)
	p.play(script)
	return p
}

// play does what a script says, and expects what it says and no more.
func (p *performance) play(script string) {
	p.t.Helper()
	for line := range strings.Lines(script) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case ">", "+":
			p.expect(words)
			continue
		case "?":
			if got := p.state(); got != words[1] {
				p.t.Fatalf("the tunnel is %s, not %s", got, words[1])
			}
			continue
		}
		p.nothing()
		if err := p.do(words); err != nil {
			p.t.Fatalf("%s: %v", strings.TrimSpace(line), err)
		}
		p.take("")
	}
	p.nothing()
}

// do does one line.
func (p *performance) do(words []string) error {
	switch s := p.s; words[0] {
	case "tunnel":
		if p.encapsulation == l2tpv3.IP {
			words = append(words, "encapsulation=ip")
		}
		return s.tunnel(words[1], words[2:])
	case "session":
		return s.session(words[1], words[2], words[3:])
	case "<":
		words = words[1:]
		if p.encapsulation == l2tpv3.IP {
			words = append(words, "over=ip")
		} else if !slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "from=") }) {
			words = append(words, "from="+fromPeer.Remote.String())
		}
		return s.receive(words)
	case "remove":
		n, err := strconv.Atoi(words[2])
		s.e.RemoveTunnel(s.now, words[1], l2tpv3.ResultCode{Result: uint16(n)})
		return err
	case "heard":
		n, err := strconv.ParseUint(words[1], 10, 32)
		s.e.Heard(s.now, uint32(n))
		return err
	case "advance":
		return p.advance(words[1])
	}
	return fmt.Errorf("no such line")
}

func (p *performance) advance(by string) error {
	d, err := time.ParseDuration(by)
	s := p.s
	start, end := s.now, s.now.Add(d)
	for at, ok := s.e.Deadline(); ok && !at.After(end); at, ok = s.e.Deadline() {
		if at.After(s.now) {
			s.now = at
		}
		s.e.Advance(s.now)
		p.take(fmt.Sprintf("+%.2fs ", s.now.Sub(start).Seconds()))
	}
	s.now = end
	return err
}

// take notes what is sent, and what the data plane is told.
func (p *performance) take(at string) {
	for _, o := range p.s.outputs() {
		switch o := o.(type) {
		case *Transmit:
			p.judge(o)
			p.got = append(p.got, "> "+at+strings.TrimPrefix(outputText(o), "> "))
		case *InstallSession, *RemoveSession:
			p.got = append(p.got, "+ "+outputText(o))
		}
	}
}

// expect compares what came next with the words that it is to have.
func (p *performance) expect(want []string) {
	p.t.Helper()
	// The data plane is told in its own time, before what is sent.
	i := slices.IndexFunc(p.got, func(s string) bool { return strings.HasPrefix(s, want[0]) })
	if i < 0 {
		p.t.Fatalf("%s: not so", strings.Join(want, " "))
	}
	got := strings.Fields(p.got[i])
	for _, w := range want {
		// A result's text is for people.
		fits := func(g string) bool { return g == w || strings.HasSuffix(w, "/") && strings.HasPrefix(g, w) }
		if w == "result=6" {
			fits = func(g string) bool { return strings.HasPrefix(g, "result=6/") }
		}
		if !slices.ContainsFunc(got, fits) {
			p.t.Fatalf("%s: no %s in %s", strings.Join(want, " "), w, p.got[i])
		}
	}
	p.got = slices.Delete(p.got, i, i+1)
}

func (p *performance) nothing() {
	p.t.Helper()
	if len(p.got) > 0 {
		p.t.Fatalf("not expected: %q", p.got)
	}
}

func (p *performance) state() string {
	all := p.s.e.Connections()
	if len(all) == 0 {
		return "none"
	}
	return all[0].State.String()
}

// judge looks at the octets of every message that is sent: rules 1 (Section 3.2.1), 8
// (5.4.3), 9 (5.4.1), 10 (6.1 and 6.2) and 38 (RFC 5641, Section 3).
func (p *performance) judge(o *Transmit) {
	p.t.Helper()
	b := o.Payload
	if len(b) < 12 || b[0] != 0xc8 || b[1] != 3 || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
		p.t.Fatalf("rule 1: the header of %x", b)
	}
	if len(b) == 12 {
		return // a ZLB
	}
	if string(b[12:18]) != "\x80\x08\x00\x00\x00\x00" {
		p.t.Errorf("rule 9: the first AVP of %x", b)
	}
	values := map[uint16][]byte{}
	for at := 12; at < len(b); {
		n := int(binary.BigEndian.Uint16(b[at:]) & 0x3ff)
		if n < 6 || at+n > len(b) {
			p.t.Fatalf("rule 1: the AVPs of %x", b)
		}
		if binary.BigEndian.Uint16(b[at+2:]) == 0 {
			values[binary.BigEndian.Uint16(b[at+4:])] = b[at+6 : at+n]
		}
		at += n
	}
	kind := l2tpv3.MessageType(binary.BigEndian.Uint16(b[18:]))
	if ccid := binary.BigEndian.Uint32(b[4:]); kind == l2tpv3.SCCRQ && ccid != 0 || kind != l2tpv3.SCCRQ && kind != l2tpv3.StopCCN && ccid == 0 {
		p.t.Errorf("rule 8: %v has the ID %d", kind, ccid)
	}
	if id, ok := values[61]; ok && binary.BigEndian.Uint32(id) == 0 {
		p.t.Errorf("rule 8: %v assigns the ID 0", kind)
	}
	if kind == l2tpv3.SCCRQ || kind == l2tpv3.SCCRP {
		for _, n := range []uint16{7, 60, 61, 62} {
			if values[n] == nil {
				p.t.Errorf("rule 10: %v without AVP %d", kind, n)
			}
		}
	}
	status, ok := values[71]
	if (kind == l2tpv3.ICRQ || kind == l2tpv3.ICRP) && !ok {
		p.t.Errorf("rule 38: %v without Circuit Status", kind)
	}
	if ok && status[1]&1 != 0 && status[1]&0x3c != 0 {
		p.t.Errorf("rule 38: %v is active and has a fault: %x", kind, status)
	}
}

// receiveWindow is rule 23: never more unacknowledged messages than the peer's Receive
// Window Size, 4 if it does not say, nor than we can hold.
func receiveWindow(t *testing.T, e l2tpv3.Encapsulation) {
	for _, row := range []struct {
		window string
		most   int
	}{{" window=1", 1}, {"", defaultWindow}, {" window=65535", maxInFlight}} {
		p := perform(t, e)
		const sessions = 2 * maxInFlight
		script := "tunnel gold/dc2\n"
		for i := range sessions {
			script += fmt.Sprintf("session gold/dc2 s%d\n", i)
		}
		p.play(script + call + row.window + "\n> SCCRP")
		if err := p.do(strings.Fields("< SCCCN ccid=11 ns=1 nr=1")); err != nil {
			t.Fatal(err)
		}
		most := 0
		for sent := 0; sent < sessions; {
			p.take("")
			if len(p.got) == 0 {
				t.Fatalf("window %q: %d ICRQs of %d came", row.window, sent, sessions)
			}
			sent += len(p.got)
			p.got = nil
			n := p.s.e.Connections()[0].Unacknowledged
			if most = max(most, n); n > row.most {
				t.Fatalf("window %q: %d messages are unacknowledged", row.window, n)
			}
			// One at a time, so that the congestion window opens as far as it goes.
			if err := p.do(strings.Fields(fmt.Sprintf("< ACK ccid=11 ns=2 nr=%d", 2+sent-n))); err != nil {
				t.Fatal(err)
			}
		}
		if row.most <= defaultWindow && most != row.most {
			t.Errorf("window %q: it is never used, at most %d messages are unacknowledged", row.window, most)
		}
	}
}

// connectionTie is rule 33. Ours is 12 (0x0c); we always send one.
func connectionTie(t *testing.T, e l2tpv3.Encapsulation) {
	for _, row := range []struct{ tie, then string }{
		{" tie=0", "> SCCRP ccid=77 ns=0 nr=1"},
		{" tie=b", "> SCCRP ccid=77 ns=0 nr=1"},
		{" tie=d", "> SCCRQ assigned=11 tie=0c\n> StopCCN ccid=77 result=3/\n? wait-ctl-reply"},
		{" tie=ffffffffffffffff", "> SCCRQ assigned=11 tie=0c\n> StopCCN ccid=77 result=3/\n? wait-ctl-reply"},
		{"", "> SCCRQ assigned=11 tie=0c\n> StopCCN ccid=77 result=3/\n? wait-ctl-reply"},
		{" tie=c", "> StopCCN ccid=77 result=3/\n? idle"},
	} {
		p := play(t, e, "tunnel gold/dc2\nadvance 1ms\n> SCCRQ assigned=11 tie=0c\n"+call+row.tie+"\n"+row.then)
		if row.tie != " tie=c" {
			continue
		}
		// "restart [...] with a new, random tie breaker value"
		if err := p.advance("2s"); err != nil {
			t.Fatal(err)
		}
		again := slices.IndexFunc(p.got, func(s string) bool { return strings.Contains(s, " SCCRQ ") })
		if again < 0 || strings.Contains(p.got[again], "tie=0c") {
			t.Errorf("after equal tie breakers: %q", p.got)
		}
	}
}

// sessionTie is rule 34. Ours is 13 (0x0d); we always send one.
func sessionTie(t *testing.T, e l2tpv3.Encapsulation) {
	for _, row := range []struct{ tie, then string }{
		{" tie=0", "+ install a session=14/900 transmit=false\n> ICRP remote=900"},
		{" tie=c", "+ install a session=14/900 transmit=false\n> ICRP remote=900"},
		{" tie=e", "> CDN result=13/ remote=900"},
		{" tie=ffffffffffffffff", "> CDN result=13/ remote=900"},
		{"", "> CDN result=13/ remote=900"},
	} {
		play(t, e, calling+"< ICRQ ccid=11 ns=2 nr=2 local=900 remote=0 serial=1 type=5 end=a circuit=A"+row.tie+"\n"+row.then+"\n? established")
	}
	// Equal: neither is answered with an ICRP, and ours comes again with another value.
	p := perform(t, e)
	p.play(calling)
	if err := p.do(strings.Fields("< ICRQ ccid=11 ns=2 nr=2 local=900 remote=0 serial=1 type=5 end=a circuit=A tie=d")); err != nil {
		t.Fatal(err)
	}
	p.take("")
	if err := p.do(strings.Fields("< ACK ccid=11 ns=3 nr=4")); err != nil {
		t.Fatal(err)
	}
	if err := p.advance("10s"); err != nil {
		t.Fatal(err)
	}
	again := false
	for _, s := range p.got {
		again = again || strings.Contains(s, " ICRQ ") && !strings.Contains(s, "tie=0d")
		if strings.Contains(s, " ICRP ") || strings.HasPrefix(s, "+ install") {
			t.Errorf("equal tie breakers: %s", s)
		}
	}
	if !again {
		t.Errorf("equal tie breakers, and no new ICRQ: %q", p.got)
	}
}

// sessionIDsAndCookies is rule 36 as far as it is said here: the data plane is told what both
// ends have assigned, whatever the length, before the peer may use it.
func sessionIDsAndCookies(t *testing.T, e l2tpv3.Encapsulation) {
	for _, ours := range []struct{ length, cookie string }{{"0", ""}, {"4", "0000000d"}, {"8", "000000000000000d"}} {
		for _, theirs := range []string{"", "a1a2a3a4", "a1a2a3a4a5a6a7a8"} {
			told := ""
			if theirs != "" {
				told = " cookie=" + theirs
			}
			sent := ""
			if ours.cookie != "" {
				sent = " cookie=" + ours.cookie
			}
			play(t, e, "tunnel gold/dc2\nsession gold/dc2 a cookie="+ours.length+"\n"+call+`
				> SCCRP
				< SCCCN ccid=11 ns=1 nr=1
				> ICRQ local=12`+sent+`
				< ICRP ccid=11 ns=2 nr=2 local=900 remote=12 circuit=A`+told+`
				+ install a connection=11/77 session=12/900 transmit=true cookie=`+ours.cookie+"/"+theirs+`
				> ICCN local=12 remote=900`)
		}
	}
}

// sequencing is rule 37 as far as it is said here: the data plane numbers what the peer wants
// numbered, and the other direction is as it was.
func sequencing(t *testing.T, e l2tpv3.Encapsulation) {
	for _, level := range []string{"1", "2"} {
		play(t, e, "tunnel gold/dc2\nsession gold/dc2 a sequence per-direction\n"+call+`
			> SCCRP
			< SCCCN ccid=11 ns=1 nr=1
			> ICRQ local=12
			< ICRP ccid=11 ns=2 nr=2 local=900 remote=12 circuit=A sublayer=1 sequencing=`+level+`
			+ install a session=12/900 transmit=true sublayer=0/1 sequencing=0/`+level+`
			> ICCN local=12 remote=900`)
	}
}
