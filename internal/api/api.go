// Package api is the local door to a running Core: HTTP and JSON over a Unix
// socket that only the Core's own account (and root) may use, or a named pipe
// for the owner and the administrators on Windows. It knows who is at the other
// end, because the system says so, and carries calls, answers and streams. It
// does not know what the calls mean: whoever owns the Core gives it the routes.
package api

import (
	"errors"
	"net/http"

	"nightferry/internal/rights"
)

// MaxBody bounds what a call may carry, in bytes.
const MaxBody = 1 << 20

// ErrDown says that no Core listens where the client looks.
var ErrDown = errors.New("no Core is running there")

// ErrSilent says that a Core took a call and did not answer it in time. It may
// still do what it was asked.
var ErrSilent = errors.New("the Core does not answer")

// Caller is who is at the other end of a connection, as the system knows them.
type Caller struct {
	User string // account name, or the number of one that has no name
	PID  int    // 0: unknown
}

// String is how the audit names a caller.
func (c Caller) String() string {
	if c.User == "" {
		return "unknown"
	}
	return c.User
}

// principal returns the rights of a caller of the local socket: all of them, since the account could
// change the Core's files just as well.
func (c Caller) principal() rights.Principal {
	return rights.Principal{Name: c.String(), Role: rights.Admin, Local: true}
}

// Error is a failure that the other side reports. Code is a word that both
// sides' programs share, and decides the HTTP status.
type Error struct {
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Fix     string   `json:"remedy,omitempty"`
	Paths   []string `json:"paths,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// Remedy tells what to do about it.
func (e *Error) Remedy() string { return e.Fix }

// httpStatus maps a code to HTTP. What is not listed is a failure of the server.
func httpStatus(code string) int {
	switch code {
	case "usage":
		return http.StatusBadRequest
	case "denied", "untrusted":
		return http.StatusForbidden
	case "absent":
		return http.StatusNotFound
	case "conflict", "refused", "halted", "incomplete", "interrupted":
		return http.StatusConflict
	case "reused":
		return http.StatusUnprocessableEntity
	case "unreachable":
		return http.StatusBadGateway
	case "full":
		return http.StatusInsufficientStorage
	}
	return http.StatusInternalServerError
}
