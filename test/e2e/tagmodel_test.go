package e2e

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// circuit is an attachment circuit as the reference has it, to say what is to become of
// frames: written apart from what is tested.
type circuit struct {
	vlan, inner int
	vlans       []int
	untagged    bool
	tpid        uint16
	pcp         func(old int, frame []byte) int
}

func (c *circuit) whole() bool { return c.vlan+c.inner+len(c.vlans) == 0 && !c.untagged }

var keyPattern = regexp.MustCompile(`([a-z-]+): (\[[^]]*\]|[^,]+)`)

// circuitOf reads the keys of an attachment.
func circuitOf(at string) circuit {
	c := circuit{tpid: 0x8100, pcp: func(old int, _ []byte) int { return old }}
	for _, m := range keyPattern.FindAllStringSubmatch(at, -1) {
		list := strings.Split(strings.Trim(m[2], "[]"), ", ")
		number, _ := strconv.Atoi(m[2])
		switch m[1] {
		case "vlan":
			c.vlan = number
		case "inner-vlan":
			c.inner = number
		case "untagged":
			c.untagged = true
		case "tag-protocol":
			if m[2] == "802.1ad" {
				c.tpid = 0x88a8
			}
		case "vlans":
			for _, word := range list {
				var low, high int
				if n, _ := fmt.Sscanf(word, "%d-%d", &low, &high); n == 1 {
					high = low
				}
				for ; low <= high; low++ {
					c.vlans = append(c.vlans, low)
				}
			}
		case "pcp":
			switch {
			case m[2] == "dscp":
				c.pcp = func(_ int, frame []byte) int { return classOf(frame) }
			case len(list) == 8:
				c.pcp = func(old int, _ []byte) int { new, _ := strconv.Atoi(list[old]); return new }
			default:
				c.pcp = func(int, []byte) int { return number }
			}
		}
	}
	return c
}

// split takes the tags off a frame: each its TPID and TCI.
func split(f []byte) (addresses []byte, tags [][2]uint16, rest []byte) {
	addresses, rest = f[:12], f[12:]
	for tpid := binary.BigEndian.Uint16(rest); tpid == 0x8100 || tpid == 0x88a8; tpid = binary.BigEndian.Uint16(rest) {
		tags, rest = append(tags, [2]uint16{tpid, binary.BigEndian.Uint16(rest[2:])}), rest[4:]
	}
	return addresses, tags, rest
}

func join(addresses []byte, tags [][2]uint16, rest []byte) []byte {
	f := slices.Clone(addresses)
	for _, t := range tags {
		f = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(f, t[0]), t[1])
	}
	return append(f, rest...)
}

// classOf are the first three bits of the DSCP.
func classOf(rest []byte) int {
	if binary.BigEndian.Uint16(rest) != 0x0800 {
		return 0
	}
	return int(rest[3] >> 5)
}

// admits says whether a frame with these tags is of the circuit.
func (c *circuit) admits(tags [][2]uint16) bool {
	id := func(i int) int { return int(tags[i][1] & 0xfff) }
	switch {
	case c.whole():
		return true
	case len(tags) == 0 || id(0) == 0:
		return c.untagged
	case tags[0][0] != c.tpid || c.inner != 0 && (len(tags) < 2 || tags[1][0] != 0x8100 || id(1) != c.inner):
		return false
	case c.vlan != 0:
		return id(0) == c.vlan
	case len(c.vlans) > 0:
		return slices.Contains(c.vlans, id(0))
	}
	return c.inner != 0
}

// into is the frame as it is in the pseudowire, nil if it does not get there.
func (c *circuit) into(keep bool, f []byte) []byte {
	addresses, tags, rest := split(f)
	if !c.admits(tags) {
		return nil
	}
	if c.vlan != 0 && !keep {
		tags = tags[1:]
		if c.inner != 0 {
			tags = tags[1:]
		}
	}
	return join(addresses, tags, rest)
}

// out is the frame as it comes out of the pseudowire, nil if it does not.
func (c *circuit) out(keep bool, f []byte) []byte {
	addresses, tags, rest := split(f)
	tci := func(old uint16, id int) uint16 {
		return uint16(c.pcp(int(old>>13), rest))<<13 | old&0x1000 | uint16(id)
	}
	switch {
	case c.vlan != 0 && keep && len(tags) > 0:
		tags = append([][2]uint16{{c.tpid, tci(tags[0][1], c.vlan)}}, tags[1:]...)
	case c.vlan != 0:
		if c.inner != 0 {
			tags = append([][2]uint16{{0x8100, tci(0, c.inner)}}, tags...)
		}
		tags = append([][2]uint16{{c.tpid, tci(0, c.vlan)}}, tags...)
	case !c.admits(tags):
		return nil
	case len(tags) > 0:
		tags = append([][2]uint16{{tags[0][0], tci(tags[0][1], int(tags[0][1]&0xfff))}}, tags[1:]...)
	}
	return join(addresses, tags, rest)
}

// expectedTags is what is to come out of a case one way.
func expectedTags(k, from int) map[int]string {
	c := &tagCases[k]
	want := map[int]string{}
	for i := range tagFrames {
		if !c.sends(i) {
			continue
		}
		for _, at := range [][2]string{c.at, c.also} {
			if at[0] == "" {
				continue
			}
			here, there := circuitOf(at[from]), circuitOf(at[1-from])
			keep := c.kind == "ethernet-vlan"
			if f := here.into(keep, tagFrame(i)); f != nil {
				if f = there.out(keep, f); f != nil {
					want[i] = layout(f)
				}
			}
		}
	}
	return want
}

// tagsDocument is docs/tags.md; rows gives what came out of a case one way, groups which
// link-local groups did.
func tagsDocument(rows func(k, from int) map[int]string, groups func(k int) []int) string {
	var b strings.Builder
	b.WriteString(`# What becomes of tags

What went in at one end of a pseudowire and came out at the other, octet for octet. The test
` + "`test/e2e/tags_test.go`" + ` sends the frames through two daemons and writes this page; it is the same on both datapaths.

A frame is in hexadecimal, its parts apart: destination, source, tags, EtherType, payload. Into every end go, where they
come out, the frames below; those that are not in a table, or have a dash there, are not carried that way; those that reach
the pseudowire's device are counted as ` + "`wrong-vlan`" + `. Frames with a priority tag and with service tags are not sent into bridges, which have their own ways
with them: one that filters VLANs takes a priority tag off, and takes a service tag for no tag.

How it is to be read: [the keys of an attachment](topology.md#pseudowirespseudowireattachsite).
`)
	for k := range tagCases {
		c := &tagCases[k]
		fmt.Fprintf(&b, "\n## %s\n\n", c.title)
		kind := c.kind
		if kind == "" {
			kind = "ethernet"
		}
		place := strings.NewReplacer("PORT", "eth1", "BRIDGE", "br-lan")
		fmt.Fprintf(&b, "```yaml\ntype: %s\nattach:\n  a: {%s}\n  b: {%s}\n", kind, place.Replace(c.at[0]), place.Replace(c.at[1]))
		if c.also[0] != "" {
			fmt.Fprintf(&b, "# and of another pseudowire\n  a: {%s}\n  b: {%s}\n", place.Replace(c.also[0]), place.Replace(c.also[1]))
		}
		b.WriteString("```\n\n| went in | | out at b, from a | out at a, from b |\n|---|---|---|---|\n")
		to, back := rows(k, 0), rows(k, 1)
		for i, f := range tagFrames {
			if to[i] == "" && back[i] == "" {
				continue
			}
			code := func(s string) string {
				if s == "" {
					return "-"
				}
				return "`" + s + "`"
			}
			fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", f.words, layout(tagFrame(i)), code(to[i]), code(back[i]))
		}
	}
	b.WriteString(`
## Link-local groups

The groups 01-80-C2-00-00-0x are those of STP (-00), MAC pause (-01), LACP (-02), 802.1X (-03), LLDP (-0E) and others. A
bridge keeps their frames to itself, but for MAC pause, which it drops, and STP: as no spanning tree runs in a bridge of
the daemon's, the kernel passes BPDUs on, whatever the bridge's mask says. Only the attachment's ` + "`link-local`" + ` keeps them
out of a pseudowire. It is of both ways, and so one end is enough.

| a | b | bridges | carried |
|---|---|---|---|
`)
	place := strings.NewReplacer("PORT", "eth1", "BRIDGE", "br-lan")
	for k, c := range groupCases {
		carried := "none"
		if got := groups(k); len(got) > 0 {
			words := make([]string, len(got))
			for i, octet := range got {
				words[i] = fmt.Sprintf("%X", octet)
			}
			carried = "-0" + strings.Join(words, ", -0")
		}
		fmt.Fprintf(&b, "| `{%s}` | `{%s}` | %s | %s |\n", place.Replace(c.at[0]), place.Replace(c.at[1]), orDash(c.bridge), carried)
	}
	return b.String()
}

func orDash(keys string) string {
	if keys == "" {
		return "-"
	}
	return "`" + keys + "`"
}
