package topology

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
	"github.com/pwd-project/pwd/pkg/vlan"
)

// serviceTag is the TPID of service tags (IEEE 802.1ad).
const serviceTag = 0x88a8

// selectors are the keys that say, beside `vlan`, which frames are a pseudowire's and what
// becomes of their tags.
var selectors = []string{"vlans", "untagged", "inner-vlan", "tag-protocol", "pcp", "link-local"}

// Whole says that all frames are the pseudowire's, as far as it is up to the attachment.
func (a *Attachment) Whole() bool {
	return a.VLAN == 0 && a.VLANs == "" && a.InnerVLAN == 0 && !a.Untagged
}

// Frames are those of the attachment circuit in words, empty for all.
func (a *Attachment) Frames() string {
	var words []string
	if a.Untagged {
		words = append(words, "untagged")
	}
	switch {
	case a.VLANs != "":
		words = append(words, "vlans "+string(a.VLANs))
	case a.VLAN != 0:
		words = append(words, fmt.Sprintf("vlan %d", a.VLAN))
	}
	if a.InnerVLAN != 0 {
		words = append(words, fmt.Sprintf("inner vlan %d", a.InnerVLAN))
	}
	if a.TagProtocol != 0 {
		words = append(words, "802.1ad")
	}
	return strings.Join(words, ", ")
}

// String is the limits of frames in words, empty for none.
func (l Limits) String() string {
	var words []string
	for _, kind := range []struct {
		name  string
		limit uint32
	}{{"broadcast", l.Broadcast}, {"multicast", l.Multicast}, {"unknown unicast", l.UnknownUnicast}} {
		if kind.limit > 0 {
			words = append(words, fmt.Sprintf("%s %d/s", kind.name, kind.limit))
		}
	}
	return strings.Join(words, ", ")
}

// outer are the first tags of the pseudowire's frames.
func (a *Attachment) outer() vlan.Set {
	switch {
	case a.VLANs != "":
		return a.VLANs
	case a.VLAN != 0:
		return vlan.Of(vlan.Range{First: a.VLAN, Last: a.VLAN})
	case a.InnerVLAN != 0:
		return vlan.Of(vlan.Range{First: vlan.First, Last: vlan.Last})
	}
	return ""
}

// Overlaps says whether a frame could be of both attachments.
func (a *Attachment) Overlaps(o *Attachment) bool {
	untagged := func(a *Attachment) bool { return a.Untagged || a.Bridge != "" && a.Whole() }
	switch {
	case a.Bridge != o.Bridge || a.Interface != o.Interface:
		return false
	case a.Interface != "" && (a.Whole() || o.Whole()):
		return true
	case untagged(a) && untagged(o):
		return true
	case a.Whole() && o.TagProtocol == serviceTag || o.Whole() && a.TagProtocol == serviceTag:
		return true // see part
	}
	return a.TagProtocol == o.TagProtocol && (a.InnerVLAN == o.InnerVLAN || a.InnerVLAN == 0 || o.InnerVLAN == 0) && a.outer().Overlaps(o.outer())
}

// claim is a part of what an end takes of its bridge or interface, and where that is said.
type claim struct {
	// vlans are first tags, empty for untagged frames.
	vlans vlan.Set
	at    spot
}

// keepsTags says that a pseudowire's frames have a tag on the way whatever its type.
func (e *end) keepsTags() bool {
	return e.attachment.VLANs != "" || e.attachment.InnerVLAN != 0 && e.attachment.VLAN == 0
}

// selection reads which frames of the bridge or interface are the pseudowire's. It is
// false where some of that could not be read, so that it could be anything.
func (b *builder) selection(e *end, rec *record) bool {
	tag, tagAt, tagOK := get[int64](rec, "vlan")
	ranges, rangesAt, rangesOK := get[[]item](rec, "vlans")
	inner, innerAt, innerOK := get[int64](rec, "inner-vlan")
	untagged, untaggedAt, untaggedOK := get[bool](rec, "untagged")
	protocol, protocolAt, protocolOK := get[string](rec, "tag-protocol")
	a := &e.attachment
	a.VLAN, a.InnerVLAN, a.Untagged = uint16(tag), uint16(inner), untagged
	if protocol == "802.1ad" {
		a.TagProtocol = serviceTag
	}
	whole := tagOK == rec.has("vlan") && rangesOK == rec.has("vlans") && innerOK == rec.has("inner-vlan") &&
		untaggedOK == rec.has("untagged") && protocolOK == rec.has("tag-protocol")
	whole = b.vlans(e, ranges) && whole
	b.priorityBits(a, rec)
	if carried, ok := b.groups(rec); ok {
		a.RefusedGroups = ^carried
	}
	switch {
	case tagOK:
		e.vlanAt = tagAt
		e.claims = []claim{{a.outer(), tagAt}}
	case innerOK && !rangesOK:
		e.vlanAt = innerAt
		e.claims = []claim{{a.outer(), innerAt}}
	case rangesOK:
		e.vlanAt = rangesAt
	}
	if untagged {
		e.claims = append(e.claims, claim{at: untaggedAt})
	}
	exclusive := func(key string, at spot, other string, otherAt spot, help string) {
		b.clash(CodeExclusive, at, key+" and "+other+" are both there", otherAt, "the other one is here", help)
		whole = false
	}
	switch {
	case rec.has("vlan") && rec.has("vlans"):
		exclusive("vlans", rec.values["vlans"].key, "vlan", rec.values["vlan"].key, "keep `vlan` for one whose tag comes off, `vlans` for such whose tags stay on")
	case untagged && tagOK:
		exclusive("untagged", untaggedAt, "vlan", rec.values["vlan"].key, "keep one of them; `vlans` goes with untagged")
	case untagged && innerOK:
		exclusive("untagged", untaggedAt, "inner-vlan", rec.values["inner-vlan"].key, "keep one of them")
	case protocolOK && whole && a.outer() == "":
		b.fault(CodeExclusive, protocolAt, "there is no tag that the protocol could be of", "add `vlan:`, `vlans:` or `inner-vlan:`, or remove the key")
		whole = false
	}
	return whole
}

// vlans reads a list of VLANs, none of which is to be there twice.
func (b *builder) vlans(e *end, ranges []item) bool {
	var all []vlan.Range
	for i, it := range ranges {
		r := it.value.(vlan.Range)
		for j, other := range all {
			if r.First <= other.Last && other.First <= r.Last {
				b.clash(CodeDuplicateItem, it.at, fmt.Sprintf("VLAN %d is in the list twice", max(r.First, other.First)), ranges[j].at, "first used here", "remove one of them")
				return false
			}
		}
		all = append(all, r)
		e.claims = append(e.claims, claim{vlan.Of(r), ranges[i].at})
	}
	e.attachment.VLANs = vlan.Of(all...)
	return true
}

// linkLocal are the groups that have names, by their last octet (IEEE 802.1Q, Table 8-1).
var linkLocal = map[string]int{"stp": 0x0, "lacp": 0x2, "802.1x": 0x3, "lldp": 0xe}

// allGroups are those that a bridge can pass on: not MAC pause.
const allGroups = 0xffff &^ (1 << 1)

// groups reads which link-local groups pass: bit x is that of 01-80-C2-00-00-0x.
func (b *builder) groups(rec *record) (mask uint16, ok bool) {
	list, _, ok := get[[]item](rec, "link-local")
	for _, it := range list {
		word := it.value.(string)
		octet, named := linkLocal[word]
		switch {
		case named:
			mask |= 1 << octet
		case len(list) > 1:
			b.fault(CodeExclusive, it.at, word+" does not go with others", "remove it, or the others")
			return 0, false
		case word == "all":
			mask = allGroups
		}
	}
	return mask, ok
}

// priorityBits reads what becomes of priority bits.
func (b *builder) priorityBits(a *Attachment, rec *record) {
	list, at, ok := get[[]item](rec, "pcp")
	if !ok {
		return
	}
	first := list[0].value.(int)
	switch {
	case len(list) == 1 && first == keepPCP:
		return
	case len(list) == 1 && first == dscpPCP:
		a.PCP.DSCP = true
	default:
		a.PCP.Mapped = true
		for i := range a.PCP.Map {
			it := list[min(i, len(list)-1)]
			if it.value.(int) < 0 {
				b.fault(CodeNumber, it.at, "a list of PCPs has eight numbers", "write the new PCP for each old one, from 0 to 7")
				return
			}
			a.PCP.Map[i] = uint8(it.value.(int))
		}
	}
	switch {
	case a.outer() != "" || !a.Untagged && rec.has("interface"):
	case a.Untagged:
		b.fault(CodeExclusive, at, "untagged frames have no priority bits", "remove the key")
	default:
		b.fault(CodeExclusive, at, "without a VLAN it is the bridge's untagged frames, which have no priority bits", "add `vlan:` or `vlans:`, or remove the key")
	}
}

// otherTags finds ends that frames leave without the tag that the other end wants them to
// have.
func (b *builder) otherTags(p *pseudowire) {
	var keeps, takes *end
	for i := range p.ends {
		e := &p.ends[i]
		a := &e.attachment
		if e.broken || e.site.foreign || b.full() {
			continue
		}
		if p.kind == l2tpv3.EthernetVLAN && (a.InnerVLAN != 0 || a.Untagged) {
			b.fault(CodeOtherTags, cmpSpot(e.vlanAt, e.circuitAt), "on an Ethernet VLAN pseudowire frames have one tag that says whose they are", "use `type: ethernet`, or remove `inner-vlan:` and `untagged:`")
			return
		}
		switch {
		case e.keepsTags() && !a.Untagged:
			keeps = e
		case a.VLAN != 0, a.Untagged && a.VLANs == "":
			takes = e
		}
	}
	if keeps != nil && takes != nil {
		at := cmpSpot(takes.vlanAt, takes.circuitAt)
		b.clash(CodeOtherTags, at, fmt.Sprintf("frames of this %s have no tag on the way from %s, and are to have one at %s", p.kindOfService(), takes.site.name, keeps.site.name), keeps.vlanAt, "tags stay on here", "use `vlans:` at both ends, or `vlan:` or `untagged:` at both")
	}
}

// cmpSpot is the first place that is one.
func cmpSpot(a, b spot) spot {
	if a == (spot{}) {
		return b
	}
	return a
}

// circuits is what of a site's interfaces and bridges is taken, and by what.
type circuits struct{ interfaces, bridges map[string]*taken }

// use is who took something, and where.
type use struct {
	by string
	at spot
}

// taken is what of one interface or bridge is.
type taken struct {
	// whole is who has all of it, any who has the first part.
	whole, any use
	// vlans are who has frames with that first tag, 0 for those without.
	vlans map[uint16][]part
}

// part is a use of frames that may need more than their first tag to be told apart. What is
// open is a bridge's untagged traffic as the bridge has it: to one that filters VLANs frames
// with a service tag (802.1ad) are without one.
type part struct {
	use
	protocol, inner uint16
	open            bool
}

func newCircuits() *circuits {
	return &circuits{map[string]*taken{}, map[string]*taken{}}
}

// checkCircuit takes the end's attachment circuit.
func (b *builder) checkCircuit(p *pseudowire, e end, c *circuits) {
	a := &e.attachment
	of, name, all := "interface", a.Interface, c.interfaces
	if a.Bridge != "" {
		of, name, all = "bridge", a.Bridge, c.bridges
	}
	t := all[name]
	if t == nil {
		t = &taken{}
		all[name] = t
	}
	claims := e.claims
	if a.Whole() && a.Bridge != "" {
		claims = []claim{{at: e.circuitAt}}
	}
	switch {
	case t.whole.by != "":
		b.interfaceClash(e.circuitAt, name, t.whole)
		return
	case len(claims) == 0 && t.any.by != "":
		b.clash(CodeInterfaceClash, e.circuitAt, fmt.Sprintf("a VLAN of interface %s is already carried by %s", name, t.any.by), t.any.at, "first used here", "attach VLANs of the interface, or the whole of it")
		return
	case len(claims) == 0:
		t.whole = use{"attached to " + p.title(), e.circuitAt}
		return
	}
	if t.vlans == nil {
		t.vlans = map[uint16][]part{}
	}
	for _, cl := range claims {
		own := part{use{p.title(), cl.at}, a.TagProtocol, a.InnerVLAN, a.Whole()}
		ids := []uint16{0}
		if cl.vlans != "" {
			ids = slices.Collect(cl.vlans.All())
		}
		for _, id := range ids {
			if other, clash := t.clash(id, own); clash {
				help := "use another VLAN or another " + of
				if own.open != other.open {
					help = "say `untagged: true` where the bridge is attached without a VLAN: to a bridge, frames with a service tag are untagged"
				}
				b.clash(CodeVLANClash, cl.at, fmt.Sprintf("%s of %s %s is already carried by %s", vlanWords(id), of, name, other.by), other.at, "first used here", help)
				return
			}
		}
		for _, id := range ids {
			t.vlans[id] = append(t.vlans[id], own)
		}
		if t.any.by == "" {
			t.any = own.use
		}
	}
}

// clash is who has frames of that first tag which would be the part's as well.
func (t *taken) clash(id uint16, p part) (part, bool) {
	for _, other := range t.vlans[id] {
		if id == 0 || p.protocol == other.protocol && (p.inner == other.inner || p.inner == 0 || other.inner == 0) {
			return other, true
		}
	}
	if p.protocol == serviceTag {
		for _, other := range t.vlans[0] {
			if other.open {
				return other, true
			}
		}
	}
	if p.open {
		for _, key := range slices.Sorted(maps.Keys(t.vlans)) {
			for _, other := range t.vlans[key] {
				if other.protocol == serviceTag {
					return other, true
				}
			}
		}
	}
	return part{}, false
}

func vlanWords(id uint16) string {
	if id == 0 {
		return "the untagged traffic"
	}
	return fmt.Sprintf("VLAN %d", id)
}
