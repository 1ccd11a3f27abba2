package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// none is what a table shows for nothing.
const none = "-"

// orNone is s, or none if it is empty.
func orNone(s string) string {
	if s == "" {
		return none
	}
	return s
}

// number is n, or none for 0, which no identifier is.
func number[T uint16 | uint32](n T) string {
	if n == 0 {
		return none
	}
	return strconv.FormatUint(uint64(n), 10)
}

// spoken is a duration as people give one: 2m, not 2m0s.
func spoken(d time.Duration) string {
	s := d.String()
	for _, none := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, none) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// lasted is a number of seconds in its two largest units: "12s", "3m12s",
// "3h12m", "4d3h".
func lasted(seconds int64) string {
	if seconds < 0 {
		seconds = 0
	}
	units := []struct {
		name string
		size int64
	}{{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}}
	for i, u := range units {
		if seconds < u.size {
			continue
		}
		s := strconv.FormatInt(seconds/u.size, 10) + u.name
		if rest := seconds % u.size; u.size > 1 && rest >= units[i+1].size {
			s += strconv.FormatInt(rest/units[i+1].size, 10) + units[i+1].name
		}
		return s
	}
	return "0s"
}

// ago is how long before now t was, or none for no time.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return none
	}
	return lasted(int64(now.Sub(t) / time.Second))
}

// octets is n in binary units: "512 B", "1.2 MiB".
func octets(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	size := float64(n)
	unit := -1
	// 1023.95 would be shown as 1024.0 of the smaller unit.
	for size >= 1023.95 && unit < 5 {
		size /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", size, "KMGTPE"[unit])
}

// counted is "1 error", "2 errors".
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// drops are the counters by reason that are not 0, sorted by reason: "cookie 1,
// mtu 3".
func drops(m map[string]uint64) string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(m)) {
		if m[reason] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", reason, m[reason]))
		}
	}
	return orNone(strings.Join(parts, ", "))
}
