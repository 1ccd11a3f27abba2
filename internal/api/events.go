package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
)

// events streams events as NDJSON, each flushed as it happens. With follow the
// stream ends when the client goes or the daemon stops.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	since, follow, err := eventsQuery(r)
	if err != nil {
		return err
	}
	rc := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	begun := false
	begin := func() error {
		begun = true
		allowWrite(w)
		w.Header().Set("Content-Type", contentNDJSON)
		w.WriteHeader(http.StatusOK)
		return rc.Flush()
	}
	if follow {
		// So that the client knows at once that it is listening.
		if err := begin(); err != nil {
			return nil
		}
	}
	err = s.backend.Events(r.Context(), since, follow, func(e Event) error {
		if !begun {
			if err := begin(); err != nil {
				return err
			}
		}
		allowWrite(w)
		if err := enc.Encode(e); err != nil {
			return err
		}
		return rc.Flush()
	})
	if r.Context().Err() != nil {
		return nil
	}
	if err == nil {
		if !begun {
			return ignoreWrite(begin())
		}
		return nil
	}
	if !begun {
		return err
	}
	// The answer's status is out. Breaking the connection off tells the client
	// that the stream is not whole, as its regular end would not.
	s.log.Warn("event stream failed", "err", err)
	return s.breakOff(w)
}

// breakOff closes the connection below an answer that has begun.
func (s *Server) breakOff(w http.ResponseWriter) error {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		s.log.Warn("closing an event stream failed", "err", err)
	}
	if err == nil {
		conn.Close()
	}
	return nil
}

func eventsQuery(r *http.Request) (since uint64, follow bool, err error) {
	q := r.URL.Query()
	if v := q.Get("since"); v != "" {
		if since, err = strconv.ParseUint(v, 10, 64); err != nil {
			return 0, false, badRequest("since=" + v + " is not an event's sequence number")
		}
	}
	if v := q.Get("follow"); v != "" {
		if follow, err = strconv.ParseBool(v); err != nil {
			return 0, false, badRequest("follow=" + v + " is neither true nor false")
		}
	}
	return since, follow, nil
}
