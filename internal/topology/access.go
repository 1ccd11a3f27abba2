package topology

import "regexp"

// Access says who may look at the site and who may change it.
type Access struct {
	// Owner and Group are those of the API's socket, by name or number; empty is the
	// daemon's.
	Owner, Group string
	// ChangeUsers and ChangeGroups are who may change the site besides root and the
	// daemon's user.
	ChangeUsers, ChangeGroups []string
}

var accountName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?$`)

// account is the name or the number of a user or a group; it reads to a string.
func account(what string) scalar {
	words := "the name or the number of " + what
	return scalar{words: words, form: anyOf(between(0, 1<<32-2), pattern(accountName.String())), parse: func(s *source, at spot, n *node) (any, bool) {
		if !n.quoted && isDecimal(n.text) {
			v, fault := decimal(n)
			if fault != "" || v < 0 || v > 1<<32-2 {
				return s.refuse(CodeNumber, at, printable(n.text)+" is not "+words, "use a number from 0 to 4294967294, or a name")
			}
			return n.text, true
		}
		if !s.clear(at, n) {
			return nil, false
		}
		if !accountName.MatchString(n.text) {
			return s.refuse(CodeText, at, printable(n.text)+" is not "+words, "see `getent passwd` and `getent group`")
		}
		return n.text, true
	}}
}

var accessObject = &object{
	name: "access", where: "access",
	fields: []field{
		{key: "owner", shape: account("a user"), standard: "the daemon's", about: "Whose the API's socket is. Another user's than the daemon's takes CAP_CHOWN."},
		{key: "group", shape: account("a group"), standard: "the daemon's", about: "The group of the API's socket: its members may look at everything but secrets. The daemon's user has to be a member of it, or have CAP_CHOWN."},
		{key: "change", shape: changeObject, about: "Who may change the site besides root and the daemon's user. They have to be able to open the socket, too."},
	},
}

var changeObject = &object{
	name: "change", where: "access.change",
	fields: []field{
		{key: "users", shape: list{of: account("a user"), orOne: true, unique: true}, standard: "none", about: "Users."},
		{key: "groups", shape: list{of: account("a group"), orOne: true, unique: true}, standard: "none", about: "Groups: all who are in one of them, be it their first or another."},
	},
}

// accessOf reads who may do what, nil if nothing is said of that.
func accessOf(rec *record) *Access {
	in, _, ok := get[*record](rec, "access")
	if !ok {
		return nil
	}
	a := &Access{}
	a.Owner, _, _ = get[string](in, "owner")
	a.Group, _, _ = get[string](in, "group")
	change, _, _ := get[*record](in, "change")
	for key, into := range map[string]*[]string{"users": &a.ChangeUsers, "groups": &a.ChangeGroups} {
		items, _, _ := get[[]item](change, key)
		for _, it := range items {
			*into = append(*into, it.value.(string))
		}
	}
	return a
}
