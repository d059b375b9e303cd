package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/rights"
)

// TokenChecker returns the principal of a token. *apitokens.Service is one.
type TokenChecker interface {
	Check(text string) (rights.Principal, bool)
	SaveUses(ctx context.Context) error
}

// Identity is the sender of a request.
type Identity struct {
	rights.Principal
	// Valid reports whether the principal still has these rights. Nil: for as long as the connection.
	Valid func() bool
}

type identityKey struct{}

// asCaller returns a request in whose context the principal calls, for the routes and for the pages.
func asCaller(req *http.Request, id Identity) *http.Request {
	ctx := rights.With(core.WithActor(req.Context(), id.Name), id.Principal)
	return req.WithContext(context.WithValue(ctx, identityKey{}, id))
}

// byToken returns the principal of a request's token.
func (o *ServerOptions) byToken(req *http.Request) (id Identity, ok bool) {
	given := req.Header["Authorization"]
	if len(given) != 1 || o.Tokens == nil {
		return id, false
	}
	scheme, text, _ := strings.Cut(given[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return id, false
	}
	id.Valid = func() bool { _, ok := o.Tokens.Check(text); return ok }
	id.Principal, ok = o.Tokens.Check(text)
	return id, ok
}

// hasToken reports whether a request has a token, good or not.
func hasToken(req *http.Request) bool { _, ok := req.Header["Authorization"]; return ok }

// saveWithin bounds the record of a token's use, which follows the answer.
const saveWithin = 5 * time.Second

// serveToken answers a request that has a token. Nothing of a request whose token is not good is looked at.
func (o *ServerOptions) serveToken(w http.ResponseWriter, req *http.Request, next http.Handler) {
	id, ok := o.byToken(req)
	if !ok {
		refuseToken(w, &Error{Code: "denied", Message: "the API token is not good", Fix: "ask an administrator of the Core for a new one: nightferry access create"})
		return
	}
	next.ServeHTTP(w, asCaller(req, id))
	_ = http.NewResponseController(w).Flush() // the client has its answer before its use is recorded
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), saveWithin)
	defer cancel()
	_ = o.Tokens.SaveUses(ctx) // the next use repeats it
}

// refuseToken answers a request without rights. The answer holds nothing else.
func refuseToken(w http.ResponseWriter, e *Error) {
	w.Header().Set("WWW-Authenticate", "Bearer")
	w.Header().Set("Connection", "close")
	writeJSON(w, http.StatusUnauthorized, e)
}

// identify finds the principal of each request over the local socket: that of its token, else the caller's. A token
// lowers the rights of the caller, and names it in the audit.
func (o *ServerOptions) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if hasToken(req) {
			o.serveToken(w, req, next)
			return
		}
		caller, _ := req.Context().Value(callerKey{}).(Caller) // knownCallers has seen to it
		next.ServeHTTP(w, asCaller(req, Identity{Principal: caller.principal()}))
	})
}
