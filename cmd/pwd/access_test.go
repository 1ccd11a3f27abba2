package main

import (
	"os"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/topology"
)

func TestAccess(t *testing.T) {
	a, err := resolve(&topology.Access{Group: "4001", ChangeUsers: []string{"1001"}, ChangeGroups: []string{"2001"}})
	if err != nil {
		t.Fatal(err)
	}
	if a.owner != (api.Owner{UID: -1, GID: 4001}) || a.words != "1001, members of 2001" {
		t.Errorf("%+v", a)
	}
	for _, tt := range []struct {
		who  string
		peer api.Peer
		may  bool
	}{
		{"root", api.Peer{}, true},
		{"the daemon's user", api.Peer{UID: uint32(os.Geteuid()), GID: 9}, true},
		{"somebody", api.Peer{UID: 5, GID: 5, Groups: []uint32{4001, 1001}}, false},
		{"a user named", api.Peer{UID: 1001, GID: 5}, true},
		{"one whose first group is named", api.Peer{UID: 5, GID: 2001}, true},
		{"one whose other group is named", api.Peer{UID: 5, GID: 5, Groups: []uint32{7, 2001}}, true},
		{"one whose user has the number of the group", api.Peer{UID: 2001, GID: 5}, false},
	} {
		if a.mayChange(tt.peer) != tt.may {
			t.Errorf("%s may: %v", tt.who, !tt.may)
		}
	}
	for _, c := range []topology.Access{{Owner: "no-such-user-here"}, {Group: "no-such-group-here"}, {ChangeUsers: []string{"no-such-user-here"}}, {ChangeGroups: []string{"no-such-group-here"}}} {
		if _, err := resolve(&c); err == nil || !strings.Contains(err.Error(), "on this host") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
