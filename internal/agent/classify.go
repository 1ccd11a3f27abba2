package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// Classify says what would become of frames that come from a pseudowire's attachment circuit,
// by the programs and maps that carry it. It implements api.Backend.
func (a *Agent) Classify(ctx context.Context, r api.ClassifyRequest) ([]api.Classification, error) {
	var all []api.Classification
	var err error
	if derr := a.do(ctx, func() { all, err = a.classify(&r) }); derr != nil || err != nil {
		return nil, errors.Join(derr, err)
	}
	return all, nil
}

func (a *Agent) classify(r *api.ClassifyRequest) ([]api.Classification, error) {
	w := a.wires[r.Pseudowire]
	if w == nil {
		return nil, &api.Error{Code: api.CodeNotFound, Title: "not found", Detail: "this site has no pseudowire " + r.Pseudowire}
	}
	oneSession := &api.Error{Code: api.CodeBadRequest, Title: "not on this datapath",
		Detail: fmt.Sprintf("%s is carried by the %s datapath, which sends all its frames over one session: `pwctl describe pseudowire %s` names it", w.Name, w.kind, w.Name)}
	dp, ok := a.datapaths[w.kind].(pseudowire.Classifier)
	if !ok {
		return nil, oneSession
	}
	device := a.deviceOf(w, a.datapaths[w.kind])
	var all []api.Classification
	for _, frame := range r.Frames {
		c, err := dp.Classify(w.Name, pseudowire.Frame{Octets: atDevice(frame, w.Attachment.VLAN, &device)})
		if errors.Is(err, errors.ErrUnsupported) {
			return nil, oneSession
		}
		if err != nil {
			all = append(all, api.Classification{Error: err.Error()})
			continue
		}
		all = append(all, a.classified(w, &c))
	}
	return all, nil
}

func (a *Agent) classified(w *wire, c *pseudowire.Classified) api.Classification {
	v := api.Classification{Rule: c.Rule + 1, Tunnel: tunnelName(c.Tunnel), SessionID: c.Session, DSCP: c.DSCP, Dropped: c.Dropped}
	if c.Rule >= 0 && c.Rule < len(w.Steer) {
		v.RuleWords = ruleWords(w.Steer[c.Rule].Match.String(), w.Steer[c.Rule].Tunnels)
	}
	t := a.tunnels[c.Tunnel]
	if t != nil {
		v.Class = t.Class
	}
	if t != nil && t.Shapes() && c.Priority != 0 {
		v.Queue = fmt.Sprintf("%x:%x", c.Priority>>16, c.Priority&0xffff)
	}
	return v
}

// atDevice is a frame from an attachment circuit of a VLAN, if vid is not 0, as it comes to the
// device.
func atDevice(frame []byte, vid uint16, device *pseudowire.Pseudowire) []byte {
	switch s := &device.Service; {
	case vid == 0 || s.Protocol != 0:
		return frame
	case device.VLAN != 0 || s.Push || s.Rewrite:
		return withTag(frame, vid)
	}
	return withoutTag(frame, vid)
}

// withoutTag is a frame whose tag a VLAN device or the bridge has taken off.
func withoutTag(frame []byte, vid uint16) []byte {
	if len(frame) < 18 || binary.BigEndian.Uint16(frame[12:]) != 0x8100 || binary.BigEndian.Uint16(frame[14:])&0x0fff != vid {
		return frame
	}
	return slices.Concat(frame[:12], frame[16:])
}

// withTag is a frame as it comes to a device that carries the attachment circuit's own tag: one
// that a host has sent without it gets it, and a priority tag becomes it (IEEE 802.1Q, Section
// 9.6).
func withTag(frame []byte, vid uint16) []byte {
	out := append([]byte{}, frame...)
	if binary.BigEndian.Uint16(out[12:]) == 0x8100 && len(out) >= 16 {
		switch tci := binary.BigEndian.Uint16(out[14:]); tci & 0x0fff {
		case vid:
			return out
		case 0:
			binary.BigEndian.PutUint16(out[14:], tci|vid)
			return out
		}
	}
	tagged := append(out[:12:12], 0x81, 0x00, byte(vid>>8), byte(vid))
	return append(tagged, frame[12:]...)
}
