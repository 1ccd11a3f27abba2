package conformance

import (
	"bytes"
	"encoding/hex"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The client is of use only as long as it does not share the mistakes of the stack.
func TestClientIsOutsideTheStack(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			if path, _ := strconv.Unquote(i.Path.Value); strings.Contains(path, "/pkg/l2tpv3") {
				t.Errorf("%s imports %s", file, path)
			}
		}
	}
}

// Messages that another implementation's decoder agrees with: an SCCRQ, and an
// ACK, with nonces and digests that stay as they are.
func TestClientEncodesAndDecodes(t *testing.T) {
	for _, c := range []struct {
		octets string
		want   string
		avps   []uint16
	}{
		{"c803006a0000000000000000800800000000000180170000003b00f8b757ab44812e8ed26f0a2b84cbe866801600000049101112131415161718191a1b1c1d1e1f800b000000076c63636541800a0000003cc0000201800a0000003d11111111800a0000003e00040005",
			"SCCRQ to 00000000 Ns 0 Nr 0", []uint16{avpMessageType, 59, 73, avpHostName, avpRouterID, avpAssignedCCID, avpCapabilities}},
		{"c803002b1111111100010002800800000000001480170000003b004bf7825babb9a2e76322c83359bc685c",
			"ACK to 11111111 Ns 1 Nr 2", []uint16{avpMessageType, 59}},
		{"c803000c0000000700010002", "ZLB to 00000007 Ns 1 Nr 2", nil},
	} {
		b, err := hex.DecodeString(c.octets)
		if err != nil {
			t.Fatal(err)
		}
		m, err := decode(b)
		if err != nil {
			t.Errorf("%s: %v", c.octets, err)
		}
		if m.String() != c.want {
			t.Errorf("%s is %v, want %s", c.octets, m, c.want)
		}
		var kinds []uint16
		for _, a := range m.avps {
			kinds = append(kinds, a.kind)
		}
		if !slices.Equal(kinds, c.avps) {
			t.Errorf("%s has the AVPs %d, want %d", c.octets, kinds, c.avps)
		}
		if !bytes.Equal(m.encode(), b) {
			t.Errorf("%x is encoded as %x", b, m.encode())
		}
		if faults := judge(b); len(faults) > 0 {
			t.Errorf("%s: %v", c.octets, faults)
		}
		for n := range b {
			if _, err := decode(b[:n]); err == nil {
				t.Errorf("the first %d octets of %s are a message", n, c.octets)
			}
		}
	}
}
