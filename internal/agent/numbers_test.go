package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/pwd-project/pwd/internal/topology"
	"github.com/pwd-project/pwd/pkg/drift"
	"github.com/pwd-project/pwd/pkg/qos"
)

// keptShaper is a kernel that keeps what it was told last, if it took that.
type keptShaper struct {
	kept    []qos.Interface
	refuses error
}

func (s *keptShaper) Egress(netip.Addr, netip.Addr) (int, error)    { return 1, nil }
func (s *keptShaper) Counters(int) (map[uint16]qos.Counters, error) { return nil, nil }
func (s *keptShaper) Repairs() []drift.Repair                       { return nil }
func (s *keptShaper) Cleanup() error                                { return s.Set(nil) }
func (s *keptShaper) Close()                                        {}
func (s *keptShaper) Heed(func(string) bool)                        {}
func (s *keptShaper) Set(i []qos.Interface) error {
	if s.refuses == nil {
		s.kept = i
	}
	return s.refuses
}

// More names than there are numbers come and go. None gets a number under which the kernel
// still has another, whether it takes what it is told or not.
func TestNumbersAreGivenBack(t *testing.T) {
	kernel := &keptShaper{}
	a := newAgent(Options{})
	a.shaper = kernel
	join := func(n int) (key string) {
		peer := fmt.Sprintf("dc%d", n)
		key = "gold/" + peer
		a.tunnels[key] = &tunnel{Tunnel: topology.Tunnel{Key: key, Name: "gold", Peer: peer, Shape: topology.Shape{Rate: 1e6}}}
		a.classNumber(key)
		return key
	}
	leave := func(n int) { delete(a.tunnels, fmt.Sprintf("gold/dc%d", n)) }
	// held are the names under whose numbers the kernel has something.
	classes, groups := map[uint16]string{}, map[uint16]string{}
	hold := func(held map[uint16]string, n numbers, there func(uint16) bool) {
		t.Helper()
		for number := range held {
			if !there(number) {
				delete(held, number)
			}
		}
		for name, number := range n {
			if number == 0 || number > qos.MaxNumber {
				t.Fatalf("the number of %s is %d", name, number)
			}
			if was := held[number]; was != "" && was != name {
				t.Fatalf("%s gets number %d, which the kernel has for %s", name, number, was)
			}
			if there(number) {
				held[number] = name
			}
		}
	}
	refused := errors.New("not now")
	for n := range 3 * qos.MaxNumber {
		join(n)
		leave(n - 3)
		kernel.refuses = nil
		if n%5 == 0 || n%5 == 1 {
			kernel.refuses = refused
		}
		if err := a.shape(); !errors.Is(err, kernel.refuses) {
			t.Fatal(err)
		}
		hold(classes, a.numbers, func(number uint16) bool {
			for _, i := range kernel.kept {
				for _, c := range i.Classes {
					if c.Number == number {
						return true
					}
				}
			}
			return false
		})
		hold(groups, a.groups, func(number uint16) bool {
			for _, i := range kernel.kept {
				for _, g := range i.Groups {
					if g.Number == number {
						return true
					}
				}
			}
			return false
		})
	}
	if len(a.numbers) > 6 || len(a.groups) > 7 {
		t.Errorf("%d tunnels and %d groups have numbers", len(a.numbers), len(a.groups))
	}
	// With the last tunnel all are free.
	kernel.refuses = nil
	clear(a.tunnels)
	for range 2 {
		if err := a.shape(); err != nil || len(a.numbers)+len(a.groups) > 0 {
			t.Errorf("%v, %v: %v", a.numbers, a.groups, err)
		}
	}
}

// Two names that come to the same number do not get it one after the other while the kernel
// still has it.
func TestNumberIsHeld(t *testing.T) {
	natural := func(key string) uint16 { return numbers{}.of(key) }
	key := func(n int) string { return fmt.Sprintf("gold/dc%d", n) }
	first, second := map[uint16]int{}, 0
	for natural(key(second)) == 0 || first[natural(key(second))] == 0 {
		first[natural(key(second))] = second
		second++
	}
	kernel := &keptShaper{}
	a := newAgent(Options{})
	a.shaper = kernel
	set := func(n int, refuses error) {
		t.Helper()
		clear(a.tunnels)
		a.tunnels[key(n)] = &tunnel{Tunnel: topology.Tunnel{Key: key(n), Name: "gold", Peer: fmt.Sprint("dc", n), Shape: topology.Shape{Rate: 1e6}}}
		kernel.refuses = refuses
		if err := a.shape(); !errors.Is(err, refuses) {
			t.Fatal(err)
		}
	}
	other := first[natural(key(second))]
	set(other, nil)
	number := a.numbers[key(other)]
	refused := errors.New("not now")
	for range 2 {
		set(second, refused)
		if got := a.numbers[key(second)]; got == number || got == 0 || a.numbers[key(other)] != number {
			t.Errorf("%s has number %d, and the kernel has %d for %s", key(second), got, number, key(other))
		}
	}
	set(second, nil)
	if a.numbers[key(other)] != 0 {
		t.Errorf("%s, which has gone, has a number", key(other))
	}
	set(other, nil)
	if got := a.numbers[key(other)]; got != number {
		t.Errorf("%s gets %d, and %d is free again", key(other), got, number)
	}
}

// Where all numbers are taken a name goes without.
func TestNumbersRunOut(t *testing.T) {
	n := numbers{}
	seen := map[uint16]bool{}
	for i := range qos.MaxNumber {
		number := n.of(fmt.Sprint("tunnel ", i))
		if number == 0 || seen[number] {
			t.Fatalf("the %dth is %d", i, number)
		}
		seen[number] = true
	}
	if got := n.of("one more"); got != 0 {
		t.Errorf("one more gets %d", got)
	}
	n.keep(func(name string, _ uint16) bool { return name != "tunnel 7" })
	if got := n.of("one more"); got == 0 {
		t.Error("what was given back is not given again")
	}
}
