package qos

import "github.com/pwd-project/pwd/bpf"

// HoldBy has another kind of qdisc be where fq is, which need not keep times.
func HoldBy(kind string) (undo func()) {
	before := holder
	holder = kind
	return func() { holder = before }
}

// Limits are how many packets wait in fq, and in a flow of it, where classes have those ceilings.
func Limits(queue uint32, ceilings ...uint64) (all, flow uint32) {
	classes := make(map[uint16]bpf.Pace)
	for n, c := range ceilings {
		classes[uint16(n+1)] = paceOf(c, queue)
	}
	l := limitsOf(classes)
	return l.all, l.flow
}
