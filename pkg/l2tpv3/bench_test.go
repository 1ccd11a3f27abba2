package l2tpv3

import "testing"

// What a busy control connection does most: HELLO and ACK come and go. None of it
// leaves anything for the garbage collector.
func TestAllocations(t *testing.T) {
	hello := message("8008 0000 0000 0006")
	ack := message("8008 0000 0000 0014")
	zlb := message()
	signed := octets(signedMessages[3].wire)
	data := octets("0003 0000 0102 0304 a1a2 a3a4 a5a6 a7a8 4000 0001 ffff")
	secret := NewSecret(testSecret)
	out := make([]byte, 0, 1500)
	reply := NewMessage(ACK)
	sli := NewMessage(SLI, LocalSessionID(1), RemoteSessionID(0x01020304), CircuitActive)
	header := DataHeader{SessionID: 1, Cookie: octets("a1a2a3a4"), Sublayer: SublayerDefault}
	var p Parser
	parse := func(b []byte) func() error { return func() error { _, err := p.Parse(b); return err } }
	for _, c := range []struct {
		name string
		most float64
		do   func() error
	}{
		{"parse HELLO", 0, parse(hello)},
		{"parse ACK", 0, parse(ack)},
		{"parse ZLB", 0, parse(zlb)},
		{"parse signed ACK", 0, parse(signed)},
		{"parse SLI", 0, parse(octets("c803 0030 0000 0000 0000 0000 8008 0000 0000 0010 800a 0000 003f 0a0b 0c0d 800a 0000 0040 0102 0304 8008 0000 0047 0001"))},
		{"verify ACK", 0, func() error { return Verify(signed, nonceB, nonceA, secret) }},
		{"sign ACK", 0, func() error { return Sign(signed, nonceB, nonceA, secret) }},
		{"append ACK", 0, func() (err error) { out, err = reply.Append(out[:0]); return }},
		{"append SLI", 0, func() (err error) { out, err = sli.Append(out[:0]); return }},
		{"judge SLI", 0, func() error { UnknownMandatory(sli); return Validate(sli) }},
		{"find in SLI", 0, func() error { Find[CircuitStatus](sli); return nil }},
		{"parse data header", 0, func() error { _, _, err := ParseData(data, UDP, 8, SublayerDefault); return err }},
		{"append data header", 0, func() (err error) { out, err = header.Append(out[:0], UDP); return }},
	} {
		if err := c.do(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := testing.AllocsPerRun(100, func() { _ = c.do() }); got > c.most {
			t.Errorf("%s: %v allocations, want at most %v", c.name, got, c.most)
		}
	}
}

func BenchmarkParseHello(b *testing.B) {
	hello := message("8008 0000 0000 0006")
	var p Parser
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Parse(hello); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseICRQ(b *testing.B) {
	icrq := captured(b)[4]
	var p Parser
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Parse(icrq); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendICRQ(b *testing.B) {
	m, err := Parse(captured(b)[4])
	if err != nil {
		b.Fatal(err)
	}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		if out, err = m.Append(out[:0]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	signed := octets(signedMessages[3].wire)
	secret := NewSecret(testSecret)
	b.ReportAllocs()
	for b.Loop() {
		if err := Verify(signed, nonceB, nonceA, secret); err != nil {
			b.Fatal(err)
		}
	}
}
