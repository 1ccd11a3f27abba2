package topology

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// What the sites of a network make of it: in the full mesh a pseudowire to every other
// site, isolated from each other; with a hub one to that, and there one to each.
func TestNetworks(t *testing.T) {
	office := func(peer, device string) Pseudowire {
		return Pseudowire{Name: "office/" + peer, Peer: peer, Network: "office", Isolated: true, Device: device, Tunnel: "core/" + peer,
			Type: l2tpv3.Ethernet, EndID: []byte("office"), CookieLength: 8, Attachment: Attachment{Bridge: "br-office"}}
	}
	cameras := func(peer, device string) Pseudowire {
		return Pseudowire{Name: "cameras/" + peer, Peer: peer, Network: "cameras", Device: device, Tunnel: "core/" + peer,
			Type: l2tpv3.Ethernet, EndID: []byte("cameras"), CookieLength: 8, Attachment: Attachment{Interface: "eth2"}}
	}
	for site, want := range map[string][]Pseudowire{
		"dc1": {cameras("dc2", "pw-cameras-ngxx"), cameras("dc3", "pw-cameras-2ptx"), office("dc2", "pw-office-s5ke"), office("dc3", "pw-office-r3im")},
		"dc2": {cameras("dc1", "pw-cameras-kwsx"), office("dc1", "pw-office-v4go"), office("dc3", "pw-office-r3im")},
		"dc3": {cameras("dc1", "pw-cameras-kwsx"), office("dc1", "pw-office-v4go"), office("dc2", "pw-office-s5ke")},
	} {
		if diff := cmp.Diff(want, local(t, "../../examples/network.yaml", site).Pseudowires); diff != "" {
			t.Errorf("%s (-want +got):\n%s", site, diff)
		}
	}
}
