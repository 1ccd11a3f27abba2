package agent

import (
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/bridge"
)

// A storm moves every address of a LAN to and fro thousands of times a second. It is one loop for each
// place where it shows, so that what is done about it does not grow with it.
func TestStormIsOneLoop(t *testing.T) {
	m := &macWatch{since: make(map[macKey]sighting), behind: make(map[int]int)}
	now := time.Unix(0, 0)
	storm := func(vlan uint16, port, another int) (moves []bridge.Move) {
		for turn := range 100 {
			for host := range byte(100) {
				at := port
				if (turn+int(host))%2 == 1 { // half of them are found the other way round
					at = another
				}
				moves = append(moves, bridge.Move{Address: bridge.Address{2, 0, 0, 0, 0, host}, VLAN: vlan, Bridge: 1, Port: at})
			}
		}
		return moves
	}
	m.take(now, storm(0, 2, 3))
	m.take(now, storm(0, 2, 3))
	if len(m.found) != 1 {
		t.Fatalf("a storm between two ports is %d loops", len(m.found))
	}
	m.take(now, storm(7, 2, 3))
	m.take(now, storm(0, 2, 4))
	if len(m.found) != 3 {
		t.Fatalf("storms at three places are %d loops", len(m.found))
	}
}
