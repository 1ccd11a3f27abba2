package api

import (
	"context"
	"fmt"
	"net/http"
)

// ClassifyRequest asks what would become of frames, each from its destination address on, as
// they come from the attachment circuit of a pseudowire. The circuit's own tag can be left out.
type ClassifyRequest struct {
	Pseudowire string   `json:"pseudowire"`
	Frames     [][]byte `json:"frames"`
}

// Classification is what would become of a frame.
type Classification struct {
	// Rule is the number of the rule that matches, from 1 on, and RuleWords what it says; 0 and
	// empty are for no rule.
	Rule      int    `json:"rule"`
	RuleWords string `json:"ruleWords,omitempty"`
	Tunnel    string `json:"tunnel"`
	SessionID uint32 `json:"localSessionID"`
	// Class is the tunnel's, empty for none; DSCP that of the outer packet.
	Class string `json:"class,omitempty"`
	DSCP  uint8  `json:"dscp"`
	// Queue is the handle of the qdisc's class that the packet waits in, as "1:2"; empty where
	// nothing is shaped.
	Queue string `json:"queue,omitempty"`
	// Dropped says by which reason the frame would be dropped instead; Error why nothing can be
	// said.
	Dropped string `json:"dropped,omitempty"`
	Error   string `json:"error,omitempty"`
}

// The limits of a ClassifyRequest.
const (
	MaxClassified     = 4096
	maxClassifiedSize = 10000
)

// classify only reads: whoever may read may ask.
func (s *Server) classify(w http.ResponseWriter, r *http.Request) error {
	var req ClassifyRequest
	if err := decodeBody(w, r, &req); err != nil {
		return err
	}
	if len(req.Frames) == 0 || len(req.Frames) > MaxClassified {
		return badRequest(fmt.Sprintf("%d frames: between 1 and %d can be asked for", len(req.Frames), MaxClassified))
	}
	for i, f := range req.Frames {
		if len(f) < 14 || len(f) > maxClassifiedSize {
			return badRequest(fmt.Sprintf("frame %d has %d octets: a frame has from 14 to %d", i+1, len(f), maxClassifiedSize))
		}
	}
	all, err := s.backend.Classify(r.Context(), req)
	if err != nil {
		return err
	}
	return s.answer(w, List[Classification]{Items: append([]Classification{}, all...)})
}

// Classify asks what would become of frames; there is an answer for each.
func (c *Client) Classify(ctx context.Context, req ClassifyRequest) ([]Classification, error) {
	var out List[Classification]
	return out.Items, c.post(ctx, "/v1/classify", req, &out)
}
