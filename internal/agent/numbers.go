package agent

import (
	"hash/fnv"
	"maps"

	"github.com/pwd-project/pwd/pkg/qos"
)

// numbers are what stands for names in the kernel: from 1 to qos.MaxNumber.
type numbers map[string]uint16

// of is a name's number. It is made of the name: a daemon that is started anew comes to the
// same. It is 0 if all are taken.
func (n numbers) of(name string) uint16 {
	if number := n[name]; number != 0 {
		return number
	}
	taken := make(map[uint16]bool)
	for _, number := range n {
		taken[number] = true
	}
	h := fnv.New32a()
	h.Write([]byte(name))
	for i := range uint32(qos.MaxNumber) {
		if number := uint16((h.Sum32()%qos.MaxNumber+i)%qos.MaxNumber) + 1; !taken[number] {
			n[name] = number
			return number
		}
	}
	return 0
}

// keep gives back the numbers of all other names.
func (n numbers) keep(used func(name string, number uint16) bool) {
	maps.DeleteFunc(n, func(name string, number uint16) bool { return !used(name, number) })
}
