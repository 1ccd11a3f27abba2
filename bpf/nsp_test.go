package bpf

import "testing"

func TestNSPLoads(t *testing.T) {
	load(t).Close()
	n, err := LoadNSP()
	if err != nil {
		t.Fatalf("%+v", err)
	}
	n.Close()
}
