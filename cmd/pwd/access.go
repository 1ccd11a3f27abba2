package main

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/topology"
)

// access is who may do what, as numbers.
type access struct {
	owner api.Owner
	// users and groups may change the site besides root and the daemon's user.
	users, groups []uint32
	// words say who may.
	words string
}

// resolve looks the users and groups of the configuration up.
func resolve(c *topology.Access) (*access, error) {
	a := &access{owner: api.KeepOwner}
	if c == nil {
		return a, nil
	}
	var err error
	if c.Owner != "" {
		if a.owner.UID, err = number("user", c.Owner); err != nil {
			return nil, err
		}
	}
	if c.Group != "" {
		if a.owner.GID, err = number("group", c.Group); err != nil {
			return nil, err
		}
	}
	for _, name := range c.ChangeUsers {
		id, err := number("user", name)
		if err != nil {
			return nil, err
		}
		a.users = append(a.users, uint32(id))
	}
	for _, name := range c.ChangeGroups {
		id, err := number("group", name)
		if err != nil {
			return nil, err
		}
		a.groups = append(a.groups, uint32(id))
	}
	var words []string
	if len(c.ChangeUsers) > 0 {
		words = append(words, strings.Join(c.ChangeUsers, ", "))
	}
	if len(c.ChangeGroups) > 0 {
		words = append(words, "members of "+strings.Join(c.ChangeGroups, ", "))
	}
	a.words = strings.Join(words, ", ")
	return a, nil
}

// number is the ID of a user or a group of this host.
func number(kind, name string) (int, error) {
	if id, err := strconv.ParseUint(name, 10, 32); err == nil {
		return int(id), nil
	}
	var text string
	if kind == "user" {
		u, err := user.Lookup(name)
		if err != nil {
			return 0, fmt.Errorf("access: there is no user %s on this host: make it, or correct the configuration", name)
		}
		text = u.Uid
	} else {
		g, err := user.LookupGroup(name)
		if err != nil {
			return 0, fmt.Errorf("access: there is no group %s on this host: make it, or correct the configuration", name)
		}
		text = g.Gid
	}
	id, err := strconv.Atoi(text)
	return id, err
}

// mayChange decides by what the kernel says of who is at the other end.
func (a *access) mayChange(p api.Peer) bool {
	return p.UID == 0 || p.UID == uint32(os.Geteuid()) || slices.Contains(a.users, p.UID) ||
		slices.Contains(a.groups, p.GID) || slices.ContainsFunc(p.Groups, func(g uint32) bool { return slices.Contains(a.groups, g) })
}
