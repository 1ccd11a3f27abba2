package agent

import (
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	nl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// aliased is what the kernel says of a link with an alias.
func aliased(kind nl.HeaderType, index uint32, name, alias string) nl.Message {
	m := linkMessage(kind, 0, name, 0)
	binary.NativeEndian.PutUint32(m.Data[4:], index)
	b, err := nl.MarshalAttributes([]nl.Attribute{{Type: unix.IFLA_IFALIAS, Data: []byte(alias)}})
	if err != nil {
		panic(err)
	}
	m.Data = append(m.Data, b...)
	return m
}

// filtered is what the kernel says of a filter at a link.
func filtered(kind nl.HeaderType, index uint32) nl.Message {
	data := make([]byte, 20)
	binary.NativeEndian.PutUint32(data[4:], index)
	return nl.Message{Header: nl.Header{Type: kind}, Data: data}
}

// What happens to the device of one pseudowire has that one looked at, and not all.
func TestNewsOfOneDeviceConcernOnePseudowire(t *testing.T) {
	const index = 7
	w := &watcher{}
	for _, tt := range []struct {
		name     string
		message  nl.Message
		wires    []string
		attached bool
	}{
		{"a filter at a link that is not known", filtered(unix.RTM_NEWTFILTER, index), nil, true},
		{"a device", aliased(unix.RTM_NEWLINK, index, "pw-a", "pwd:pseudowire:a"), []string{"a"}, false},
		{"a filter goes from it", filtered(unix.RTM_DELTFILTER, index), []string{"a"}, false},
		{"a qdisc goes from it", filtered(unix.RTM_DELQDISC, index), []string{"a"}, false},
		{"a filter at another link", filtered(unix.RTM_DELTFILTER, index+1), nil, true},
		{"it goes", aliased(unix.RTM_DELLINK, index, "pw-a", "pwd:pseudowire:a"), []string{"a"}, true},
		{"a filter at what has its number then", filtered(unix.RTM_NEWTFILTER, index), nil, true},
		{"a device of a network's", aliased(unix.RTM_NEWLINK, index, "pw-b", "pwd:pseudowire:b/dc2"), []string{"b/dc2"}, false},
		{"one of several sessions", aliased(unix.RTM_NEWLINK, 8, "pwl-a", "pwd:pseudowire:a+gold"), []string{"a+gold"}, true},
		{"a filter at that", filtered(unix.RTM_DELTFILTER, 8), nil, true},
		{"a successor", aliased(unix.RTM_NEWLINK, 9, "pwr-a", "pwd:pseudowire:a~00000001"), []string{"a~00000001"}, true},
		{"a pair of several sessions", aliased(unix.RTM_NEWLINK, 10, "pw-c", "pwd:bundle:c"), nil, true},
		{"somebody's link", aliased(unix.RTM_NEWLINK, 11, "tap0", "vm"), nil, false},
	} {
		w.news.add(tt.message)
		got := w.take()
		if wires := slices.Sorted(maps.Keys(got.wires)); !slices.Equal(wires, tt.wires) || got.attached != tt.attached || !got.underlay {
			t.Errorf("%s: pseudowires %q, all %v", tt.name, wires, got.attached)
		}
	}
}

// Where events were lost numbers may be those of other links now.
func TestNumbersOfLostNews(t *testing.T) {
	var n news
	n.add(aliased(unix.RTM_NEWLINK, 7, "pw-a", "pwd:pseudowire:a"))
	n.lose()
	if n.add(filtered(unix.RTM_NEWTFILTER, 7)); !n.lost || !n.attached {
		t.Errorf("lost %v, all %v", n.lost, n.attached)
	}
}

// A link that gets another name is missed under the one before.
func TestNewsOfARenamedLink(t *testing.T) {
	w := &watcher{}
	for _, name := range []string{"eth1", "lan0"} {
		w.take()
		w.news.add(aliased(unix.RTM_NEWLINK, 7, name, ""))
	}
	if got := slices.Sorted(maps.Keys(w.take().links)); !slices.Equal(got, []string{"eth1", "lan0"}) {
		t.Errorf("something happened to %q", got)
	}
}
