package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// answer writes v as the body of a success. It is encoded before the first octet
// leaves, so that a failure can still be told.
func (s *Server) answer(w http.ResponseWriter, v any) error {
	return s.write(w, http.StatusOK, contentJSON, v)
}

// fail writes err as RFC 9457 has it.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := asError(err)
	if e.Code == CodeInternal || e.Code == CodeTimeout {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if err := s.write(w, e.Status, contentProblem, e); err != nil {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
		w.WriteHeader(http.StatusInternalServerError)
	}
}

func (s *Server) write(w http.ResponseWriter, status int, contentType string, v any) error {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	allowWrite(w)
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, err := w.Write(body.Bytes())
	return ignoreWrite(err)
}

// allowWrite gives the client time to take what is written next. Test recorders
// have no deadline to set.
func allowWrite(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
}

// decodeBody reads the request's body, one JSON value without unknown members,
// into v. An unknown member is refused: an older daemon that ignored a wish of a
// newer client would do something else than asked.
func decodeBody(w http.ResponseWriter, r *http.Request, v any) error {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestOctets))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, more := dec.Token(); more != io.EOF {
			err = errors.New("there is something after the JSON value")
			var tooLarge *http.MaxBytesError
			if errors.As(more, &tooLarge) {
				err = more
			}
		}
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &Error{Code: CodeBadRequest, Status: http.StatusRequestEntityTooLarge, Title: "request too large",
			Detail: fmt.Sprintf("a request has at most %d MiB", maxRequestOctets>>20)}
	}
	if err != nil {
		return badRequest("the body cannot be read: " + err.Error())
	}
	// The connection is watched for the client's going while the handler works;
	// the deadline of the body must not look like that.
	_ = rc.SetReadDeadline(time.Time{})
	return nil
}
