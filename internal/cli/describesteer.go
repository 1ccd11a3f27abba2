package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pwd-project/pwd/internal/api"
)

// describeRedundancy is a line for each of the tunnels, by preference.
func describeRedundancy(p *page, r *api.Redundancy) {
	if r == nil {
		return
	}
	p.section("Redundancy: decided by " + r.DecidedBy)
	for _, t := range r.Tunnels {
		words := t.State + " for " + lasted(t.SinceSeconds)
		if t.Reason != "" {
			words += ", " + t.Reason
		}
		p.field(t.Tunnel, words)
	}
	p.field("Last choice", r.Why+", "+lasted(r.SinceSeconds)+" ago")
	revertive := "no"
	if r.Revertive {
		revertive = "after " + strconv.FormatFloat(r.HoldSeconds, 'g', -1, 64) + "s"
	}
	p.field("Revertive", revertive)
}

// describeSteering is a line for each of the tunnels, by preference, and for each rule.
func describeSteering(p *page, s *api.Steering) {
	if s == nil {
		return
	}
	p.section("Tunnels")
	for _, t := range s.Tunnels {
		words := fmt.Sprintf("%s, %d frames out, %d in", t.State, t.TransmittedFrames, t.ReceivedFrames)
		if t.Reason != "" {
			words += ": " + t.Reason
		}
		p.field(t.Tunnel, words)
	}
	p.section("Rules")
	for _, r := range s.Rules {
		number, words, _ := strings.Cut(r, ": ")
		p.field(number, words)
	}
}
