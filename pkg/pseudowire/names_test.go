package pseudowire_test

import (
	"slices"
	"testing"

	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// What is told of a part is told of the pseudowire that it is part of, whatever is between.
func TestPartsAreOfPseudowires(t *testing.T) {
	mesh := pseudowire.PartOf("office/dc2", "+", "gold/dc2")
	for object, want := range map[string]string{
		"pseudowire tenant-a": "pseudowire tenant-a",
		"pseudowire " + pseudowire.PartOf("tenant-a", "~", "0000002a"): "pseudowire tenant-a",
		"pseudowire " + mesh: "pseudowire office/dc2",
		"pseudowire " + pseudowire.PartOf(mesh, "~", "0000002a"): "pseudowire office/dc2",
		"pseudowire other~0000002a":                              "pseudowire other~0000002a",
		"interface eth0":                                         "interface eth0",
	} {
		if got := pseudowire.ObjectOf(object, slices.Values([]string{"office", "tenant-a", "office/dc2"})); got != want {
			t.Errorf("%s is of %s, want %s", object, got, want)
		}
	}
}
