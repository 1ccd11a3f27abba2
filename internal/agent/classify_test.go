package agent

import (
	"bytes"
	"slices"
	"testing"

	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// A frame that is asked about is looked at as it comes to the device: with the attachment's own
// tag where a datapath or a service takes that off, without it where something before has.
func TestFrameAtDevice(t *testing.T) {
	plain := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}, make([]byte, 46)...)
	tagged := func(tags ...byte) []byte { return slices.Concat(plain[:12], tags, plain[12:]) }
	five := []byte{0x81, 0, 0xa0, 100}
	for _, tt := range []struct {
		name     string
		vid      uint16
		device   pseudowire.Pseudowire
		in, want []byte
	}{
		{"a whole port", 0, pseudowire.Pseudowire{}, tagged(five...), tagged(five...)},
		{"the datapath takes it off", 100, pseudowire.Pseudowire{VLAN: 100}, tagged(five...), tagged(five...)},
		{"and the host did not say it", 100, pseudowire.Pseudowire{VLAN: 100}, plain, tagged(0x81, 0, 0, 100)},
		{"and the host said a priority", 100, pseudowire.Pseudowire{VLAN: 100}, tagged(0x81, 0, 0xa0, 0), tagged(five...)},
		{"a service takes it off", 100, pseudowire.Pseudowire{Service: pseudowire.Service{Push: true}}, plain, tagged(0x81, 0, 0, 100)},
		{"it stays on", 100, pseudowire.Pseudowire{Service: pseudowire.Service{Rewrite: true}}, tagged(five...), tagged(five...)},
		{"a VLAN device has taken it off", 100, pseudowire.Pseudowire{}, tagged(five...), plain},
		{"and left another one", 100, pseudowire.Pseudowire{}, tagged(append(five, 0x81, 0, 0, 7)...), tagged(0x81, 0, 0, 7)},
		{"and the host did not say it", 100, pseudowire.Pseudowire{}, plain, plain},
		{"tags of another protocol", 100, pseudowire.Pseudowire{Service: pseudowire.Service{Push: true, Protocol: 0x88a8}}, plain, plain},
	} {
		in := bytes.Clone(tt.in)
		if got := atDevice(in, tt.vid, &tt.device); !bytes.Equal(got, tt.want) || !bytes.Equal(in, tt.in) {
			t.Errorf("%s: %x, not %x", tt.name, got, tt.want)
		}
	}
}
