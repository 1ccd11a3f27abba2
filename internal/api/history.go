package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Generation is one topology that was applied.
type Generation struct {
	Number int `json:"number"`
	// InForce marks the last of them.
	InForce bool      `json:"inForce"`
	Applied time.Time `json:"applied"`
	// File is what it was read from, Hash the SHA-256 of its text.
	File string `json:"file"`
	Hash string `json:"hash"`
	// By is who had it applied, as "uid 0"; Cause is what made it so, as "applied",
	// "topology file", "rolled back to 3".
	By    string `json:"by,omitempty"`
	Cause string `json:"cause,omitempty"`
	// ConfirmBy is when Before is put back into force unless this one is confirmed.
	ConfirmBy *time.Time `json:"confirmBy,omitempty"`
	Before    int        `json:"before,omitempty"`
}

// RollbackRequest names the generation to return to; 0 is the one before.
type RollbackRequest struct {
	Generation int `json:"generation,omitempty"`
	// By is set by the server: who asks.
	By string `json:"-"`
}

// Keeper is the part of a Backend that keeps earlier topologies.
type Keeper interface {
	// History lists the generations that are kept, the newest first.
	History(context.Context) ([]Generation, error)
	// Confirm makes the generation in force stay.
	Confirm(ctx context.Context, by string) (*Generation, error)
	// Rollback puts an earlier generation's topology back into force, as a new generation.
	Rollback(context.Context, RollbackRequest) (*ApplyResult, error)
}

func (s *Server) history(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	all, err := s.backend.History(ctx)
	if err != nil {
		return err
	}
	return s.answer(w, List[Generation]{Items: append([]Generation{}, all...)})
}

func (s *Server) confirm(w http.ResponseWriter, r *http.Request) error {
	var none struct{}
	if err := decodeBody(w, r, &none); err != nil {
		return err
	}
	by, who, err := s.changer(r, "confirm")
	if err != nil {
		return err
	}
	g, err := s.backend.Confirm(r.Context(), by)
	if err != nil {
		return err
	}
	s.log.Info("confirmed", who, "generation", g.Number)
	return s.answer(w, g)
}

// rollback goes on when the client has gone, as an apply does.
func (s *Server) rollback(w http.ResponseWriter, r *http.Request) error {
	var req RollbackRequest
	if err := decodeBody(w, r, &req); err != nil {
		return err
	}
	by, who, err := s.changer(r, "rollback")
	if err != nil {
		return err
	}
	req.By = by
	res, err := s.backend.Rollback(context.WithoutCancel(r.Context()), req)
	if err != nil {
		s.log.Warn("rollback failed", who, "err", err)
		return err
	}
	s.log.Info("rolled back", who, "generation", res.Generation, "changes", len(res.Changes))
	out := *res
	out.Changes = append([]Change{}, res.Changes...)
	return s.answer(w, out)
}

// History asks for the generations that are kept, the newest first.
func (c *Client) History(ctx context.Context) ([]Generation, error) {
	return items[Generation](ctx, c, "/v1/history")
}

// Confirm makes the generation in force stay; who did it is for the daemon to find out.
func (c *Client) Confirm(ctx context.Context, _ string) (*Generation, error) {
	var out Generation
	if err := c.post(ctx, "/v1/confirm", struct{}{}, &out); err != nil {
		return nil, err
	}
	return &out, nil
}

// Rollback returns to an earlier generation and waits for the result.
func (c *Client) Rollback(ctx context.Context, req RollbackRequest) (*ApplyResult, error) {
	var out ApplyResult
	if err := c.post(ctx, "/v1/rollback", req, &out); err != nil {
		return nil, err
	}
	return &out, nil
}

// post sends a request and reads the answer, however long it takes.
func (c *Client) post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encoding the request: %w", err)
	}
	res, err := c.do(ctx, http.MethodPost, path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	return c.decode(res, out)
}
