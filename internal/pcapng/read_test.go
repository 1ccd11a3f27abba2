package pcapng

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Two frames, in each of the formats.
func TestFrames(t *testing.T) {
	const one, two = "02005e000002 02005e000001 0806 0001", "ffffffffffff 02005e000001 88cc 02"
	for name, file := range map[string]string{
		"pcap, little endian": `d4c3b2a1 0200 0400 00000000 00000000 00000400 01000000
			00000000 00000000 10000000 10000000 ` + one + `
			00000000 00000000 0f000000 0f000000 ` + two,
		"pcap, big endian, nanoseconds": `a1b23c4d 0002 0004 00000000 00000000 00040000 00000001
			00000000 00000000 00000010 00000010 ` + one + `
			00000000 00000000 0000000f 0000000f ` + two,
		"pcap, cut off": `d4c3b2a1 0200 0400 00000000 00000000 00000400 01000000
			00000000 00000000 10000000 10000000 ` + one + `
			00000000 00000000 0f000000 0f000000 ` + two + `
			00000000 00000000 10000000 10000000 0200`,
		"pcapng, one interface of another kind": `0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000
			01000000 14000000 6500 0000 00000400 14000000
			01000000 14000000 0100 0000 00000400 14000000
			06000000 30000000 01000000 00000000 00000000 10000000 10000000 ` + one + ` 30000000
			06000000 24000000 00000000 00000000 00000000 04000000 04000000 45000000 24000000
			06000000 30000000 01000000 00000000 00000000 0f000000 0f000000 ` + two + ` 00 30000000`,
	} {
		frames, err := Frames(bytes.NewReader(unhex(t, file)), 10)
		if err != nil || len(frames) != 2 || !bytes.Equal(frames[0], unhex(t, one)) || !bytes.Equal(frames[1], unhex(t, two)) {
			t.Errorf("%s: %x, %v", name, frames, err)
		}
		if frames, err := Frames(bytes.NewReader(unhex(t, file)), 1); err != nil || len(frames) != 1 {
			t.Errorf("%s: %d frames of at most one, %v", name, len(frames), err)
		}
	}
	for name, file := range map[string]string{
		"nothing": "", "text": hex.EncodeToString([]byte("a file of something else altogether")),
		"pcap of IP packets": "d4c3b2a1 0200 0400 00000000 00000000 00000400 65000000",
		"an empty pcap":      "d4c3b2a1 0200 0400 00000000 00000000 00000400 01000000",
	} {
		if frames, err := Frames(bytes.NewReader(unhex(t, file)), 10); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %x, %v", name, frames, err)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(unhex(f, "d4c3b2a1 0200 0400 00000000 00000000 00000400 01000000 00000000 00000000 02000000 02000000 0203"))
	f.Add(unhex(f, `0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000 01000000 14000000 0100 0000 00000400 14000000
		06000000 24000000 00000000 00000000 00000000 04000000 04000000 45000000 24000000`))
	f.Fuzz(func(t *testing.T, data []byte) {
		frames, err := Frames(bytes.NewReader(data), 5)
		if len(frames) > 5 || (err == nil) != (len(frames) > 0) {
			t.Errorf("%d frames, %v", len(frames), err)
		}
	})
}
