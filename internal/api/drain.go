package api

import (
	"context"
	"net/http"
)

// DrainRequest names what is not to be used for a while, or again.
type DrainRequest struct {
	// Names are of pseudowires, networks, tunnels and sites.
	Names []string `json:"names"`
	// Kind is needed where a name is that of several: site, tunnel or pseudowire.
	Kind   string `json:"kind,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Undo has them used again.
	Undo bool `json:"undo,omitempty"`
	// By is set by the server: who asks.
	By string `json:"-"`
}

// Drained is what became of a pseudowire that this concerns.
type Drained struct {
	Pseudowire string `json:"pseudowire"`
	Peer       string `json:"peer"`
	State      string `json:"state"` // up, down, standby
	// Tunnel is the one that it uses.
	Tunnel string `json:"tunnel"`
	Reason string `json:"reason,omitempty"`
}

// Drain has something not used any more, or used again.
func (c *Client) Drain(ctx context.Context, req DrainRequest) ([]Drained, error) {
	var out List[Drained]
	return out.Items, c.post(ctx, "/v1/drain", req, &out)
}

func (s *Server) drain(w http.ResponseWriter, r *http.Request) error {
	var req DrainRequest
	if err := decodeBody(w, r, &req); err != nil {
		return err
	}
	by, who, err := s.changer(r, "drain")
	if err != nil {
		return err
	}
	if len(req.Names) == 0 {
		return badRequest("names is empty")
	}
	req.By = by
	all, err := s.backend.Drain(context.WithoutCancel(r.Context()), req)
	if err != nil {
		return err
	}
	s.log.Info("drained", who, "names", req.Names, "undo", req.Undo)
	return s.answer(w, List[Drained]{Items: append([]Drained{}, all...)})
}
