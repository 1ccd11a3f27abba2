package transport

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// run gives how much of a packet a filter accepts, by another implementation of
// classic BPF than the kernel's.
func run(t interface{ Fatalf(string, ...any) }, program []unix.SockFilter, packet []byte) int {
	raw := make([]bpf.RawInstruction, len(program))
	for i, s := range program {
		raw[i] = bpf.RawInstruction{Op: s.Code, Jt: s.Jt, Jf: s.Jf, K: s.K}
	}
	instructions, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatalf("no such instructions: %v", instructions)
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatalf("%v", err)
	}
	n, err := vm.Run(packet)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return n
}

// as puts a payload into what a raw socket sees: IPv4 with its header, of any
// length, IPv6 without.
func as(six bool, words int, payload []byte) []byte {
	if six {
		return payload
	}
	header := make([]byte, 4*words)
	header[0] = 0x40 | byte(words)
	return append(header, payload...)
}

// TestFilters: each packet goes to one of the sockets, or to none.
func TestFilters(t *testing.T) {
	for _, six := range []bool{false, true} {
		for _, words := range []int{5, 6, 15} {
			for payload, want := range map[string]struct{ control, data bool }{
				"":                     {true, false}, // too short for a Session ID: counted
				"\x00":                 {true, false},
				"\x00\x00\x00":         {true, false},
				"\x01\x02\x03":         {true, false},
				"\x00\x00\x00\x00":     {true, false},
				"\x00\x00\x00\x00\xc8": {true, false},
				"\x00\x00\x00\x01":     {false, true},
				"\x80\x00\x00\x00x":    {false, true},
				"\xc8\x03\x00\x00":     {false, true},
			} {
				packet := as(six, words, []byte(payload))
				got := [2]bool{run(t, controlFilter(six), packet) >= len(packet)+1, run(t, dataFilter(six), packet) > 0}
				if got != [2]bool{want.control, want.data} {
					t.Errorf("six %v, header of %d words, %q: control %v, data %v", six, words, payload, got[0], got[1])
				}
			}
		}
	}
}

// TestSessionFilter compares the filter with the list.
func TestSessionFilter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		six := rapid.Bool().Draw(t, "six")
		ids := rapid.SliceOfN(rapid.Uint32Min(1), 0, 300).Draw(t, "ids")
		slices.Sort(ids)
		ids = slices.Compact(ids)
		program := sessionFilter(six, ids)
		id := rapid.Uint32().Draw(t, "id")
		if len(ids) > 0 && rapid.Bool().Draw(t, "near") {
			id = ids[rapid.IntRange(0, len(ids)-1).Draw(t, "which")] + uint32(rapid.IntRange(-1, 1).Draw(t, "off"))
		}
		packet := as(six, rapid.IntRange(5, 15).Draw(t, "words"), binary.BigEndian.AppendUint32(nil, id))
		if got := run(t, program, packet) > 0; got != slices.Contains(ids, id) {
			t.Fatalf("session %#x accepted: %v, of %#x", id, got, ids)
		}
		if n := run(t, program, packet[:len(packet)-1]); n != 0 {
			t.Fatalf("a packet without Session ID is accepted")
		}
	})
}

// TestFilterLength: what the kernel's limit allows.
func TestFilterLength(t *testing.T) {
	ids := make([]uint32, 3000)
	for i := range ids {
		ids[i] = uint32(i) + 1
	}
	if n := len(sessionFilter(false, ids)); n > maxFilter {
		t.Errorf("%d instructions for %d sessions", n, len(ids))
	}
}
