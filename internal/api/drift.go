package api

import (
	"context"
	"net/http"
	"time"
)

// Drift is something that somebody else has changed about what is the daemon's, and what
// the daemon did about it.
type Drift struct {
	// Time is when it was last found, First when it was first, Times how often that was.
	Time  time.Time `json:"time"`
	First time.Time `json:"first"`
	Times int       `json:"times"`
	// Object is what it is about, as "bridge br-lan".
	Object string `json:"object"`
	// Found says what was changed, Done what was done about it, in words.
	Found string `json:"found"`
	Done  string `json:"done"`
	// Repaired says that this succeeded, Error why it did not; it is tried again then.
	Repaired bool   `json:"repaired"`
	Error    string `json:"error,omitempty"`
	// WaitSeconds is for how long it is left alone after each repair, as something else
	// keeps changing it; 0 is not at all.
	WaitSeconds float64 `json:"waitSeconds,omitempty"`
}

// DriftCount is how often something was found changed since the daemon started.
type DriftCount struct {
	Repaired uint64 `json:"repaired"`
	Failed   uint64 `json:"failed"`
	// Contested is how many things something else keeps changing at the moment.
	Contested int `json:"contested"`
}

// drifts answers with what was found last first.
func (s *Server) drifts(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	all, err := s.backend.Drift(ctx)
	if err != nil {
		return err
	}
	return s.answer(w, List[Drift]{Items: append([]Drift{}, all...)})
}

// Drift asks for what others have changed, the last first.
func (c *Client) Drift(ctx context.Context) ([]Drift, error) {
	return items[Drift](ctx, c, "/v1/drift")
}
