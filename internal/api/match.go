package api

import (
	"cmp"
	"net/url"
)

func compareTunnels(a, b Tunnel) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Peer, b.Peer))
}

func compareSessions(a, b Session) int {
	return cmp.Or(cmp.Compare(a.Pseudowire, b.Pseudowire), cmp.Compare(a.Tunnel, b.Tunnel),
		cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.LocalSessionID, b.LocalSessionID))
}

func comparePseudowires(a, b Pseudowire) int { return cmp.Compare(a.Name, b.Name) }

func compareAttachments(a, b Attachment) int { return cmp.Compare(a.Pseudowire, b.Pseudowire) }

func compareClasses(a, b Class) int { return cmp.Compare(a.Name, b.Name) }

func compareMACs(a, b MAC) int {
	return cmp.Or(cmp.Compare(a.Bridge, b.Bridge), cmp.Compare(a.VLAN, b.VLAN), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Port, b.Port))
}

// matches says whether value is what the query asks for under key, if it does.
func matches(q url.Values, key, value string) bool { return !q.Has(key) || q.Get(key) == value }

func matchTunnel(t Tunnel, q url.Values) bool { return matches(q, "peer", t.Peer) }

func matchSession(s Session, q url.Values) bool {
	return matches(q, "tunnel", s.Tunnel) && matches(q, "pseudowire", s.Pseudowire) && matches(q, "peer", s.Peer)
}

func matchPseudowire(p Pseudowire, q url.Values) bool { return matches(q, "peer", p.Peer) }

func matchAttachment(a Attachment, q url.Values) bool { return matches(q, "pseudowire", a.Pseudowire) }
