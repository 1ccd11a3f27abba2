package doctor

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// chain is rules one behind the other, as the kernel gives them.
type chain struct {
	ipv6  bool
	rules []byte
}

// rule adds one: what it is for, and the verdict or the name of a target.
func (c *chain) rule(set func(head []byte), target any, matches ...[]byte) *chain {
	size, at := 112, 88
	if c.ipv6 {
		size, at = 168, 140
	}
	head := make([]byte, size)
	if set != nil {
		set(head)
	}
	b := head
	for _, m := range matches {
		b = append(b, m...)
	}
	binary.NativeEndian.PutUint16(b[at:], uint16(len(b)))
	switch x := target.(type) {
	case string:
		b = append(b, match(x, 0, make([]byte, 8))...)
	case int:
		verdict := make([]byte, 8)
		binary.NativeEndian.PutUint32(verdict, uint32(int32(x)))
		b = append(b, match("", 0, verdict)...)
	}
	binary.NativeEndian.PutUint16(b[at+2:], uint16(len(b)))
	c.rules = append(c.rules, b...)
	return c
}

// end is the chain's policy; what is added behind is other chains'.
func (c *chain) end(policy int) *Table {
	at := uint32(len(c.rules))
	c.rule(nil, policy)
	return &Table{IPv6: c.ipv6, Hooks: 1 << input, Policy: [5]uint32{input: at}, Rules: c.rules}
}

func match(name string, revision byte, data []byte) []byte {
	b := make([]byte, extension, extension+len(data))
	binary.NativeEndian.PutUint16(b, uint16(extension+len(data)))
	copy(b[2:], name)
	b[31] = revision
	return append(b, data...)
}

func udpTo(first, last uint16) []byte {
	d := make([]byte, 16)
	for i, p := range []uint16{0, 0xffff, first, last} {
		binary.NativeEndian.PutUint16(d[2*i:], p)
	}
	return match("udp", 0, d)
}

func ports(list ...uint16) []byte {
	d := make([]byte, 48)
	d[0], d[1] = 1, byte(len(list))
	for i, p := range list {
		binary.NativeEndian.PutUint16(d[2+2*i:], p)
	}
	return match("multiport", 1, d)
}

// inState is -m conntrack --ctstate of those bits.
func inState(bits uint16) []byte {
	d := make([]byte, 160)
	binary.NativeEndian.PutUint16(d[146:], 1)
	binary.NativeEndian.PutUint16(d[150:], bits)
	return match("conntrack", 3, d)
}

func only(protocol uint16) func([]byte) {
	return func(h []byte) { binary.NativeEndian.PutUint16(h[80:], protocol) }
}

func via(name string) func([]byte) {
	return func(h []byte) {
		copy(h[16:], name)
		for i := range len(name) + 1 {
			h[48+i] = 0xff
		}
	}
}

func from(prefix string) func([]byte) {
	return func(h []byte) {
		p := netip.MustParsePrefix(prefix)
		copy(h, p.Addr().AsSlice())
		binary.BigEndian.PutUint32(h[8:], ^uint32(0)<<(32-p.Bits()))
	}
}

// What rules do to the first packet of a peer that calls. What is not understood lets it in.
func TestTableRefuses(t *testing.T) {
	const established = 1<<1 | 1<<2
	caller := &newPacket{17, 1701, netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1")}
	begin := func() *chain { return new(chain) }
	usual := func() *chain { return begin().rule(nil, accept, inState(established)).rule(via("lo"), accept) }
	jump := func(policy int) *Table {
		c := begin()
		c.rule(nil, 0)
		chainAt := len(c.rules) + 112 + extension + 8 // behind the policy
		binary.NativeEndian.PutUint32(c.rules[112+extension:], uint32(chainAt))
		t := c.end(policy)
		t.Rules = c.rule(only(6), drop).rule(only(17), accept, udpTo(1700, 1702)).rule(nil, returns).rules
		return t
	}
	for name, tt := range map[string]struct {
		table *Table
		want  bool
	}{
		"no rule":                             {begin().end(accept), false},
		"a policy":                            {begin().end(drop), true},
		"what answers is let in":              {usual().end(drop), true},
		"all is refused at the end":           {usual().rule(nil, "REJECT").end(accept), true},
		"another port":                        {usual().rule(only(17), accept, udpTo(53, 53)).end(drop), true},
		"the port":                            {usual().rule(only(17), accept, udpTo(1701, 1701)).end(drop), false},
		"the port, of what is new":            {usual().rule(only(17), accept, inState(1<<3), udpTo(1701, 1701)).end(drop), false},
		"one of several ports":                {usual().rule(only(17), accept, ports(53, 1701)).end(drop), false},
		"none of several ports":               {usual().rule(only(17), accept, ports(53, 123)).end(drop), true},
		"the peer's network":                  {usual().rule(from("192.0.2.0/24"), accept).end(drop), false},
		"another network":                     {usual().rule(from("198.51.100.0/24"), accept).end(drop), true},
		"some interface":                      {usual().rule(via("eth0"), accept).end(drop), false},
		"dropped at some interface":           {begin().rule(via("eth0"), drop).end(accept), false},
		"dropped by what is not understood":   {begin().rule(nil, drop, match("recent", 0, make([]byte, 8))).end(accept), false},
		"logged":                              {begin().rule(nil, "LOG").end(drop), true},
		"the other way":                       {usual().rule(only(115), accept).end(drop), true},
		"the port is dropped":                 {begin().rule(only(17), drop, udpTo(1701, 1701)).end(accept), true},
		"let in by a chain of the user's":     {jump(drop), false},
		"rules that make no sense":            {&Table{Hooks: 1 << input, Rules: make([]byte, 500)}, false},
		"a hook at which there are no chains": {&Table{Rules: begin().end(drop).Rules}, false},
	} {
		if got := tt.table.refuses(caller); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}

	six := &newPacket{17, 1701, netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8::1")}
	for name, set := range map[string]func([]byte){
		"one host": func(h []byte) {
			copy(h, netip.MustParseAddr("2001:db8::2").AsSlice())
			for i := range 16 {
				h[32+i] = 0xff
			}
		},
		"UDP": func(h []byte) { h[128], h[131] = 17, 1 },
	} {
		if table := (&chain{ipv6: true}).rule(set, accept).end(drop); table.refuses(six) {
			t.Errorf("IPv6, allowed %s: refused", name)
		}
	}
	if table := (&chain{ipv6: true}).rule(func(h []byte) { h[128], h[131] = 6, 1 }, accept).end(drop); !table.refuses(six) {
		t.Error("IPv6, allowed TCP: not refused")
	}
}

// Whatever octets rules are, a walk ends.
func FuzzTable(f *testing.F) {
	f.Add(new(chain).rule(only(17), accept, udpTo(1, 2), ports(1, 2), inState(2)).end(drop).Rules, uint32(0), uint32(0), false)
	f.Add((&chain{ipv6: true}).rule(nil, 0).end(accept).Rules, uint32(0), uint32(1), true)
	f.Fuzz(func(_ *testing.T, rules []byte, entry, policy uint32, ipv6 bool) {
		t := &Table{IPv6: ipv6, Hooks: 3, Entry: [5]uint32{entry, entry}, Policy: [5]uint32{policy, policy}, Rules: rules}
		t.refuses(&newPacket{17, 1701, netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1")})
	})
}
