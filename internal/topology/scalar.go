package topology

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/pwd-project/pwd/pkg/vlan"
)

// refuse notes an error and is the result of a parse that failed.
func (s *source) refuse(code Code, at spot, message, help string) (any, bool) {
	s.fault(code, at, message, help)
	return nil, false
}

// clear refuses text that YAML readers do not agree on.
func (s *source) clear(at spot, n *node) bool {
	other, ambiguous := n.ambiguous()
	if ambiguous {
		s.fault(CodeAmbiguous, at, fmt.Sprintf("%s without quotes is %s to some YAML readers", printable(n.text), other), fmt.Sprintf("write it in quotes: %q", n.text))
	}
	return !ambiguous
}

// nameOf is a name that the file chooses; what is as "a site".
func nameOf(what string) scalar {
	return scalar{words: "the name of " + what, form: pattern(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`), parse: func(s *source, at spot, n *node) (any, bool) {
		if !s.clear(at, n) {
			return nil, false
		}
		if isName(n.text) {
			return n.text, true
		}
		help := "use 1 to 63 of a-z, 0-9 and -, the first and the last a letter or a digit"
		switch lower := strings.ToLower(strings.ReplaceAll(n.text, "_", "-")); {
		case len(n.text) > 63:
			help = fmt.Sprintf("it has %d characters; 63 is the limit", len(n.text))
		case isName(lower):
			help = "write " + lower + ": " + help
		}
		return s.refuse(CodeName, at, printable(n.text)+" is not a name", help)
	}}
}

// interfaceForm is the form of a netdev's name; the number of octets is the kernel's limit.
var interfaceForm = form{"type": "string", "minLength": 1, "maxLength": maxInterfaceName, "pattern": `^[!-$&-.0-9;-~]+$`, "not": form{"pattern": `^(lo|\.|\.\.|pwo?-.*)$`}}

// interfaceOf is the name of a netdev (the rules of the kernel's dev_valid_name).
func interfaceOf(what string) scalar {
	return scalar{words: "the name of " + what, form: interfaceForm, parse: func(s *source, at spot, n *node) (any, bool) {
		if !s.clear(at, n) {
			return nil, false
		}
		bad := func(message, help string) (any, bool) { return s.refuse(CodeInterface, at, message, help) }
		name := printable(n.text)
		odd := strings.IndexFunc(n.text, func(r rune) bool {
			return r <= ' ' || r > '~' || strings.ContainsRune("/:%", r)
		})
		switch {
		case n.text == "":
			return bad("the name is empty", "write the name of "+what)
		case len(n.text) > maxInterfaceName:
			return bad(fmt.Sprintf("%s has %d octets; Linux allows %d in the name of an interface", name, len(n.text), maxInterfaceName), "choose a shorter name")
		case odd >= 0:
			help := "use letters, digits, ., _ and -"
			if parent, vlan, dotted := strings.Cut(n.text, ":"); dotted && isDecimal(vlan) {
				help = fmt.Sprintf("a VLAN has its own key: {interface: %s, vlan: %s}", parent, vlan)
			}
			return bad(fmt.Sprintf("%s cannot be the name of an interface: it has %q in it", name, []rune(n.text[odd:])[0]), help)
		case n.text == "." || n.text == "..":
			return bad(name+" cannot be the name of an interface", "choose another name")
		case n.text == "lo":
			return bad("lo, the loopback interface, cannot carry Ethernet", "name an Ethernet interface")
		case strings.HasPrefix(n.text, "pw-"), strings.HasPrefix(n.text, "pwo-"):
			return bad(name+" is a name of the daemon's own devices", "names that begin with pw- and pwo- are reserved: choose another")
		}
		return n.text, true
	}}
}

// choice is one of some words.
type choice struct {
	words []string
	// yes and no are what is meant by the booleans of YAML 1.1, empty for nothing.
	yes, no string
}

// wordOf is the scalar of a choice; it reads to a string.
func wordOf(c choice) scalar {
	return scalar{words: strings.Join(c.words, " or "), form: spelled(c.words), usable: c.words, parse: func(s *source, at spot, n *node) (any, bool) {
		word := n.text
		if slices.Contains(c.words, word) {
			return word, true
		}
		help := "write one of these"
		if near, ok := nearest(word, c.words); ok {
			help = "did you mean " + near + "?"
		}
		// The booleans of YAML 1.1, which others may have made of on and off.
		switch other, _ := n.ambiguous(); {
		case other == yamlTrue && c.yes != "":
			help = "write " + c.yes
		case other == yamlFalse && c.no != "":
			help = "write " + c.no
		}
		return s.refuse(CodeNotOneOf, at, fmt.Sprintf("%s is not one of %s", printable(word), listed(c.words)), help)
	}}
}

// boolean is true or false.
func boolean() scalar {
	c := choice{words: []string{"true", "false"}, yes: "true", no: "false"}
	word := wordOf(c)
	return scalar{words: "true or false", form: form{"type": "boolean"}, usable: c.words, parse: func(s *source, at spot, n *node) (any, bool) {
		if n.quoted {
			return s.refuse(CodeNotOneOf, at, fmt.Sprintf("%q in quotes is text, not true or false", n.text), "write it without quotes")
		}
		v, ok := word.parse(s, at, n)
		return v == "true", ok
	}}
}

// integer is a whole number; it reads to an int64. what is as "VLAN".
func integer(what string, least, most int64) scalar {
	words := fmt.Sprintf("a number from %d to %d", least, most)
	return scalar{words: words, form: between(least, most), parse: func(s *source, at spot, n *node) (any, bool) {
		v, fault := decimal(n)
		if fault != "" {
			return s.refuse(CodeNumber, at, fault, "write "+words)
		}
		if v < least || v > most {
			return s.refuse(CodeNumber, at, fmt.Sprintf("%s %s is out of range", what, n.text), "use "+words)
		}
		return v, true
	}}
}

// decimal reads a whole number that every YAML reader reads alike, and says
// what is wrong where it is none.
func decimal(n *node) (v int64, fault string) {
	digits := strings.TrimPrefix(n.text, "-")
	v, err := strconv.ParseInt(n.text, 10, 64)
	switch {
	case n.quoted:
		return 0, fmt.Sprintf("%q in quotes is text, not a number", n.text)
	case isDecimal(digits) && err == nil:
		return v, ""
	case isDecimal(digits):
		return 0, printable(n.text) + " is out of range"
	case len(digits) > 1 && digits[0] == '0' && strings.Trim(digits, "0123456789") == "":
		return 0, n.text + " with a leading zero is octal to some YAML readers and decimal to others"
	case n.number:
		return 0, printable(n.text) + " is not a whole decimal number"
	}
	return 0, printable(n.text) + " is not a number"
}

// among is an integer of a few values.
func among(what string, values ...int64) scalar {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = strconv.FormatInt(v, 10)
	}
	words := strings.Join(texts[:len(texts)-1], ", ") + " or " + texts[len(texts)-1]
	return scalar{words: words, form: form{"enum": values}, parse: func(s *source, at spot, n *node) (any, bool) {
		v, fault := decimal(n)
		if fault != "" {
			return s.refuse(CodeNumber, at, fault, "write "+words)
		}
		if !slices.Contains(values, v) {
			return s.refuse(CodeNumber, at, fmt.Sprintf("%s %d is not one of %s", what, v, strings.Join(texts, ", ")), "use "+words)
		}
		return v, true
	}}
}

// duration is a time with its unit; it reads to a time.Duration.
func duration(least, most time.Duration) scalar {
	words := fmt.Sprintf("a time from %s to %s", short(least), short(most))
	return scalar{words: words, form: pattern(`^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$`), parse: func(s *source, at spot, n *node) (any, bool) {
		if isDecimal(n.text) {
			return s.refuse(CodeDuration, at, n.text+" has no unit", fmt.Sprintf("write %ss for seconds, or use ms, m or h", n.text))
		}
		v, ok := parseDuration(n.text)
		if !ok {
			return s.refuse(CodeDuration, at, printable(n.text)+" is not a time", "write a whole number and its unit: 500ms, 10s, 2m, 1h, or 1m30s")
		}
		if v < least || v > most {
			return s.refuse(CodeDuration, at, n.text+" is out of range", "use "+words)
		}
		return v, true
	}}
}

// short is a duration as people write it.
func short(d time.Duration) string {
	s := strings.TrimSuffix(d.String(), "0s")
	if s == "" || s[len(s)-1] != 'm' {
		return d.String()
	}
	if h := strings.TrimSuffix(s, "0m"); strings.HasSuffix(h, "h") {
		return h
	}
	return s
}

// parseDuration reads whole numbers with units, the larger units first.
func parseDuration(text string) (time.Duration, bool) {
	units := []struct {
		name string
		unit time.Duration
	}{{"h", time.Hour}, {"ms", time.Millisecond}, {"m", time.Minute}, {"s", time.Second}}
	var sum, last time.Duration
	if text == "" {
		return 0, false
	}
	for text != "" {
		end := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' })
		if end <= 0 || end > 9 {
			return 0, false
		}
		number, _ := strconv.ParseInt(text[:end], 10, 64)
		text = text[end:]
		i := slices.IndexFunc(units, func(u struct {
			name string
			unit time.Duration
		}) bool {
			return strings.HasPrefix(text, u.name)
		})
		if i < 0 || (last > 0 && units[i].unit >= last) {
			return 0, false
		}
		last = units[i].unit
		if number > int64((1<<62)/last) {
			return 0, false
		}
		sum += time.Duration(number) * last
		text = text[len(units[i].name):]
		if sum < 0 {
			return 0, false
		}
	}
	return sum, true
}

// rate is a number of bits a second; it reads to a uint64.
var rate = scalar{words: "a rate, as 10mbit", form: pattern(`^[1-9][0-9]*[kmgt]?bit$`), parse: func(s *source, at spot, n *node) (any, bool) {
	units := map[string]uint64{"bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9, "tbit": 1e12}
	const help = "write a whole number and its unit: bit, kbit, mbit, gbit or tbit, as 10mbit"
	end := strings.IndexFunc(n.text, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(n.text)
	}
	number, unit := n.text[:end], n.text[end:]
	switch {
	case isDecimal(n.text):
		return s.refuse(CodeRate, at, n.text+" has no unit", help)
	case !isDecimal(number) || units[unit] == 0:
		return s.refuse(CodeRate, at, printable(n.text)+" is not a rate", help)
	}
	v, err := strconv.ParseUint(number, 10, 64)
	if err != nil || v == 0 || v > 1e15/units[unit] {
		return s.refuse(CodeRate, at, printable(n.text)+" is out of range", "use 1bit to 1000tbit")
	}
	return v * units[unit], true
}}

// frameRate is a number of frames a second; it reads to a uint32.
var frameRate = scalar{words: "a number of frames a second, as 1000pps", form: pattern(`^[1-9][0-9]{0,7}pps$`), parse: func(s *source, at spot, n *node) (any, bool) {
	number, unit := strings.CutSuffix(n.text, "pps")
	switch {
	case isDecimal(n.text):
		return s.refuse(CodeRate, at, n.text+" has no unit", "write a whole number of frames a second, as 1000pps")
	case !unit || !isDecimal(number):
		return s.refuse(CodeRate, at, printable(n.text)+" is not a number of frames a second", "write a whole number and pps, as 1000pps")
	}
	v, err := strconv.ParseUint(number, 10, 32)
	if err != nil || v < 1 || v >= 1e8 {
		return s.refuse(CodeRate, at, printable(n.text)+" is out of range", "use 1pps to 99999999pps")
	}
	return uint32(v), true
}}

// siteAddress is an address or the word dynamic, which reads to the zero netip.Addr.
var siteAddress = scalar{words: "an IPv4 or IPv6 address, or dynamic", form: pattern(`^([0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*|dynamic)$`), parse: func(s *source, at spot, n *node) (any, bool) {
	if n.text == "dynamic" {
		return netip.Addr{}, true
	}
	return address.parse(s, at, n)
}}

// address is where a site's tunnels end; it reads to a netip.Addr.
var address = scalar{words: "an IPv4 or IPv6 address", form: pattern(`^([0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)$`), parse: func(s *source, at spot, n *node) (any, bool) {
	bad := func(message, help string) (any, bool) { return s.refuse(CodeAddress, at, message, help) }
	text := printable(n.text)
	a, err := netip.ParseAddr(n.text)
	if err != nil {
		if p, err := netip.ParsePrefix(n.text); err == nil {
			return bad(text+" is a prefix, not an address", "write "+p.Addr().String())
		}
		if p, err := netip.ParseAddrPort(n.text); err == nil {
			return bad(text+" has a port in it", fmt.Sprintf("write %s; the port is 1701", p.Addr()))
		}
		return bad(text+" is not an IP address", "write one like 192.0.2.1 or 2001:db8::1; host names are not looked up")
	}
	const help = "use the address of an interface of the site that the other sites can reach"
	switch {
	case a.Is4In6():
		return bad(text+" is an IPv4 address in IPv6 form", "write "+a.Unmap().String())
	case a.Zone() != "":
		return bad(text+" has a zone in it", help)
	case a.IsUnspecified():
		return bad(text+" is the unspecified address", help)
	case a.IsLoopback():
		return bad(text+" is a loopback address", help)
	case a.IsMulticast():
		return bad(text+" is a multicast address", help)
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return bad(text+" is the broadcast address", help)
	case a.Is6() && a.IsLinkLocalUnicast():
		return bad(text+" is a link-local address: it holds on one link only", help)
	}
	return a, true
}}

// listenAddress is where the daemon serves on a network; it reads to a netip.AddrPort.
var listenAddress = scalar{words: "an address and a port, as 127.0.0.1:9705", form: pattern(`^([0-9.]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$`), parse: func(s *source, at spot, n *node) (any, bool) {
	a, err := netip.ParseAddrPort(n.text)
	if err != nil || a.Port() == 0 || a.Addr().Zone() != "" {
		return s.refuse(CodeAddress, at, printable(n.text)+" is not an address with a port",
			`write one like 127.0.0.1:9705, 0.0.0.0:9705 for all of the host's IPv4 addresses, or "[::]:9705" for all`)
	}
	return a, true
}}

// routerID is 32 bits as a number or in dotted form; it reads to a uint32.
var routerID = scalar{words: "a router ID, as 192.0.2.1 or a number from 1 to 4294967295", form: anyOf(between(1, 1<<32-1), pattern(`^[0-9]+(\.[0-9]+){3}$`)), parse: func(s *source, at spot, n *node) (any, bool) {
	const help = "write 32 bits as 192.0.2.1 or as a number from 1 to 4294967295"
	var id uint32
	if a, err := netip.ParseAddr(n.text); err == nil && a.Is4() {
		b := a.As4()
		id = uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	} else {
		v, fault := decimal(n)
		if fault != "" || v < 0 || v > 1<<32-1 {
			return s.refuse(CodeRouterID, at, printable(n.text)+" is not a router ID", help)
		}
		id = uint32(v)
	}
	if id == 0 {
		return s.refuse(CodeRouterID, at, "a router ID cannot be 0", help)
	}
	return id, true
}}

// identifier is an end ID (RFC 3931, Section 5.4.4) or the like: a number is 4
// octets in network order, text its characters. It reads to a string of octets. what is
// as "end ID".
func identifier(what string) scalar {
	return scalar{words: "a number (4 octets) or text in quotes (its characters)", form: anyOf(between(0, 1<<32-1), form{"type": "string", "maxLength": 255, "pattern": "^[ -~]+$"}), parse: func(s *source, at spot, n *node) (any, bool) {
		return parseIdentifier(what, s, at, n)
	}}
}

func parseIdentifier(what string, s *source, at spot, n *node) (any, bool) {
	if !n.quoted && (n.number || isDecimal(n.text)) {
		v, fault := decimal(n)
		switch {
		case fault != "":
			return s.refuse(CodeEndID, at, fault, fmt.Sprintf("write a number from 0 to 4294967295, or the characters in quotes: %q", n.text))
		case v < 0 || v > 1<<32-1:
			return s.refuse(CodeEndID, at, fmt.Sprintf("%s does not fit 4 octets", n.text), fmt.Sprintf("write a number from 0 to 4294967295, or the characters in quotes: %q", n.text))
		}
		return string([]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), true
	}
	if !s.clear(at, n) {
		return nil, false
	}
	if n.text == "" || len(n.text) > 255 {
		return s.refuse(CodeEndID, at, fmt.Sprintf("the %s has %s", what, counted(len(n.text), "octet", "octets")), "use 1 to 255")
	}
	if i := strings.IndexFunc(n.text, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
		return s.refuse(CodeEndID, at, fmt.Sprintf("the %s has the character %q in it", what, []rune(n.text[i:])[0]), "use printable ASCII characters")
	}
	return n.text, true
}

// vlanOrRange is one entry of a list of VLANs; it reads to a vlan.Range.
var vlanOrRange = scalar{words: "VLANs, as 100 or 200-210", form: anyOf(between(1, 4094), pattern(`^[0-9]+-[0-9]+$`)), parse: func(s *source, at spot, n *node) (any, bool) {
	low, high, isRange := strings.Cut(n.text, "-")
	if !isRange || low == "" {
		id, ok := vlanID.parse(s, at, n)
		if !ok {
			return nil, false
		}
		return vlan.Range{First: uint16(id.(int64)), Last: uint16(id.(int64))}, true
	}
	from, err1 := strconv.ParseUint(low, 10, 16)
	to, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || from < 1 || to > 4094 || from > to {
		return s.refuse(CodeNumber, at, printable(n.text)+" is not a range of VLANs", "write it as 200-210, within 1 to 4094")
	}
	return vlan.Range{First: uint16(from), Last: uint16(to)}, true
}}

var vlanID = integer("VLAN", 1, 4094)

// keepPCP and dscpPCP are what is not a number among priority bits.
const keepPCP, dscpPCP = -1, -2

// priorityBits is what a tag's PCP is to be; it reads to an int.
var priorityBits = scalar{words: "keep, dscp or a number from 0 to 7", form: anyOf(between(0, 7), spelled([]string{"keep", "dscp"})), parse: func(s *source, at spot, n *node) (any, bool) {
	if word := map[string]int{"keep": keepPCP, "dscp": dscpPCP}[n.text]; word != 0 {
		return word, true
	}
	v, fault := decimal(n)
	switch {
	case fault != "":
		return s.refuse(CodeNumber, at, fault, "write keep, dscp, or a number from 0 to 7")
	case v < 0 || v > 7:
		return s.refuse(CodeNumber, at, fmt.Sprintf("PCP %d is out of range", v), "write keep, dscp, or a number from 0 to 7")
	}
	return int(v), true
}}

// dscp is a code point, by name or number; it reads to a uint8.
var dscp = scalar{words: "a DSCP by name, as ef, or a number from 0 to 63", form: anyOf(between(0, 63), spelled(slices.Sorted(maps.Keys(dscpNames)))), parse: func(s *source, at spot, n *node) (any, bool) {
	if v, named := dscpNames[n.text]; named && !n.quoted {
		return v, true
	}
	if v, fault := decimal(n); fault == "" && v >= 0 && v <= 63 {
		return uint8(v), true
	}
	return s.refuse(CodeNotOneOf, at, printable(n.text)+" is not a DSCP", oneOf(n.text, "write 0 to 63 or one of", slices.Sorted(maps.Keys(dscpNames))))
}}

// copied is the DSCP that a packet has inside.
type copied struct{}

// classDSCP is a class's: dscp, or copy.
var classDSCP = scalar{words: dscp.words + ", or copy", form: anyOf(between(0, 63), spelled(append(slices.Sorted(maps.Keys(dscpNames)), "copy"))), parse: func(s *source, at spot, n *node) (any, bool) {
	if n.text == "copy" && !n.quoted {
		return copied{}, true
	}
	return dscp.parse(s, at, n)
}}

// dscpNames are those of RFC 2474, RFC 2597, RFC 3246, RFC 5865 and RFC 8622.
var dscpNames = map[string]uint8{
	"default": 0, "be": 0, "le": 1, "va": 44, "ef": 46,
	"cs0": 0, "cs1": 8, "cs2": 16, "cs3": 24, "cs4": 32, "cs5": 40, "cs6": 48, "cs7": 56,
	"af11": 10, "af12": 12, "af13": 14, "af21": 18, "af22": 20, "af23": 22,
	"af31": 26, "af32": 28, "af33": 30, "af41": 34, "af42": 36, "af43": 38,
}

// fixed is a phrase that is the only one.
func fixed(text string) scalar {
	k := phrase(text)
	k.form = form{"const": text}
	return k
}

// phrase is text of no particular form.
func phrase(what string) scalar {
	return scalar{words: what, form: form{"type": "string", "minLength": 1}, parse: func(s *source, at spot, n *node) (any, bool) {
		if !s.clear(at, n) {
			return nil, false
		}
		if n.text == "" || strings.IndexFunc(n.text, unicode.IsControl) >= 0 {
			return s.refuse(CodeText, at, printable(n.text)+" is not "+what, "write "+what)
		}
		return n.text, true
	}}
}

// absolutePath is a path from the root, of at most so many octets.
func absolutePath(most int) scalar {
	return scalar{words: "an absolute path", form: pattern("^/"), parse: func(s *source, at spot, n *node) (any, bool) {
		switch {
		case !strings.HasPrefix(n.text, "/") || strings.IndexFunc(n.text, unicode.IsControl) >= 0:
			return s.refuse(CodePath, at, printable(n.text)+" is not an absolute path", "write it from the root: /…")
		case len(n.text) > most:
			return s.refuse(CodePath, at, fmt.Sprintf("the path has %d octets; %d is the limit", len(n.text), most), "choose a shorter one")
		}
		return n.text, true
	}}
}
