package bridge

import (
	"encoding/binary"
	"testing"
)

// The counters are where struct rtnl_link_stats64 of <linux/if_link.h> has them.
func TestParseErrors(t *testing.T) {
	var stats []byte
	for i := range uint64(24) {
		stats = binary.NativeEndian.AppendUint64(stats, 100+i)
	}
	want := CircuitErrors{Length: 110, CRC: 112, Alignment: 113, HardwareOverruns: 114, BufferOverruns: 115}
	if got := parseErrors(stats); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := parseErrors(stats[:8*12]); got != (CircuitErrors{Length: 110, HardwareOverruns: 111}) {
		t.Errorf("of a short one %+v", got)
	}
	if got := parseErrors(nil); got != (CircuitErrors{}) {
		t.Errorf("of nothing %+v", got)
	}
}
