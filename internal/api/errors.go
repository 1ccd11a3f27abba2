package api

import "net/http"

// Codes of an Error. They are stable: programs decide by them, never by text.
const (
	CodeInvalidTopology   = "invalid-topology"   // 422, with Diagnostics
	CodeNeedsConfirmation = "needs-confirmation" // 409, with Changes
	CodeUnconfirmed       = "unconfirmed"        // 409, a generation awaits confirmation
	CodeNothingToDo       = "nothing-to-do"      // 409, none does, or there is none before
	CodeApplyFailed       = "apply-failed"       // 500, what was changed is rolled back
	CodeRollbackFailed    = "rollback-failed"    // 500, and so did the roll back
	CodeNotFound          = "not-found"          // 404
	CodeNotPermitted      = "not-permitted"      // 403
	CodeBadRequest        = "bad-request"        // 400, 405 or 413
	CodeTimeout           = "timeout"            // 504, the daemon took too long
	CodeInternal          = "internal"           // 500
)

// statusOf is the HTTP status of an Error that names none.
func statusOf(code string) int {
	switch code {
	case CodeInvalidTopology:
		return http.StatusUnprocessableEntity
	case CodeNeedsConfirmation, CodeUnconfirmed, CodeNothingToDo:
		return http.StatusConflict
	case CodeNotFound:
		return http.StatusNotFound
	case CodeNotPermitted:
		return http.StatusForbidden
	case CodeBadRequest:
		return http.StatusBadRequest
	case CodeTimeout:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}
