package l2tpv3

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// octets reads hexadecimal digits; blanks and line ends are only for the reader.
func octets(rows ...string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(strings.Join(rows, " ")), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// message puts a Version 3 header with the right Length before AVPs.
func message(avps ...string) []byte {
	body := octets(avps...)
	b := octets("c803 0000  1111 1111  0002 0003")
	be.PutUint16(b[2:], uint16(headerLength+len(body)))
	return append(b, body...)
}

// The secret, the nonces and the random vector of the test vectors.
var (
	testSecret = []byte("l2tp-secret")
	nonceA     = octets("1011 1213 1415 1617 1819 1a1b 1c1d 1e1f")
	nonceB     = octets("a0a1 a2a3 a4a5 a6a7 a8a9 aaab acad aeaf")
	testVector = octets("3031 3233 3435 3637 3839 3a3b 3c3d 3e3f")
)

// needs skips a test that lacks something of its surroundings. In CI nothing may lack.
func needs(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("needs "+format, args...)
	}
	t.Skipf("needs "+format, args...)
}

// captured are messages of cable modem termination systems, from the T bit on:
// one line of testdata/captured.hex each.
func captured(t testing.TB) [][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/captured.hex")
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for line := range strings.Lines(string(text)) {
		all = append(all, octets(line))
	}
	return all
}
