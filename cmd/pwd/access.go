package main

import (
	"errors"
	"fmt"
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

// resolve looks the users and groups of the configuration up. The error is of all that are
// not known: those may not change, and the socket stays the daemon's.
func resolve(c *topology.Access) (*access, error) {
	a := &access{owner: api.KeepOwner}
	if c == nil {
		return a, nil
	}
	var errs []error
	one := func(kind, name string, set func(id int)) {
		if name == "" {
			return
		}
		if id, err := number(kind, name); err != nil {
			errs = append(errs, err)
		} else {
			set(id)
		}
	}
	one("user", c.Owner, func(id int) { a.owner.UID = id })
	one("group", c.Group, func(id int) { a.owner.GID = id })
	for _, name := range c.ChangeUsers {
		one("user", name, func(id int) { a.users = append(a.users, uint32(id)) })
	}
	for _, name := range c.ChangeGroups {
		one("group", name, func(id int) { a.groups = append(a.groups, uint32(id)) })
	}
	var words []string
	if len(c.ChangeUsers) > 0 {
		words = append(words, strings.Join(c.ChangeUsers, ", "))
	}
	if len(c.ChangeGroups) > 0 {
		words = append(words, "members of "+strings.Join(c.ChangeGroups, ", "))
	}
	a.words = strings.Join(words, ", ")
	return a, errors.Join(errs...)
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
	return api.OwnerMayChange(p) || slices.Contains(a.users, p.UID) ||
		slices.Contains(a.groups, p.GID) || slices.ContainsFunc(p.Groups, func(g uint32) bool { return slices.Contains(a.groups, g) })
}
