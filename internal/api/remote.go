package api

import (
	"bytes"
	"cmp"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"nightferry/internal/rights"
)

// Sessions knows the people who have signed in. *signin.Service is one.
type Sessions interface {
	// Identify returns the person whose session a request has, and whether the session still has these rights later.
	Identify(req *http.Request) (p rights.Principal, valid func() bool, ok bool)
	// ServeHTTP answers the requests below /signin, which need no session.
	ServeHTTP(w http.ResponseWriter, req *http.Request)
}

// signInPath is the path of the sign-in page, and the prefix of the others of Sessions.
const signInPath = "/signin"

// maxForm bounds the body of a page's form, in bytes.
const maxForm = 64 << 10

// Remote returns the handler for clients that come over TCP: the contract below /v1, the pages of signing in, and all
// other pages. A client has the rights of its token or of its session, and without one it has none.
func Remote(o ServerOptions) http.Handler {
	contract, pages := o.handler(), o.Pages
	if pages == nil {
		pages = http.NotFoundHandler()
	}
	known := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if isCall(req) {
			contract.ServeHTTP(w, req)
		} else {
			o.servePage(w, req, pages)
		}
	})
	protection := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		protect(w.Header())
		o.bound(w, req)
		switch {
		case hasToken(req):
			o.serveToken(w, req, known)
			return
		case o.Sessions == nil:
			o.refuse(w, req)
			return
		}
		if err := protection.Check(req); err != nil {
			writeJSON(w, http.StatusForbidden, &Error{Code: "denied", Message: "a page of another site made this request", Fix: "open the console by its own address"})
			return
		}
		if isBelow(req.URL.Path, signInPath) {
			o.servePage(w, req, o.Sessions)
			return
		}
		p, valid, ok := o.Sessions.Identify(req)
		if !ok {
			o.refuse(w, req)
			return
		}
		known.ServeHTTP(w, asCaller(req, Identity{p, valid}))
	})
}

// bound forgets the write deadline of the request before on the connection, and bounds the time in which a body arrives,
// also if nothing reads it.
func (o *ServerOptions) bound(w http.ResponseWriter, req *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Time{}) // a connection that cannot do either has no deadlines
	if req.Body != http.NoBody {
		_ = rc.SetReadDeadline(o.Now().Add(bodyWithin))
	}
}

func isCall(req *http.Request) bool { return isBelow(req.URL.Path, "/v1") }

// isBelow reports whether a path, also one with dots, is prefix or below it.
func isBelow(p, prefix string) bool {
	p = path.Clean("/" + p)
	return p == prefix || strings.HasPrefix(p, prefix+"/")
}

// refuse answers a request without a good token or session: a person who reads a page may sign in.
func (o *ServerOptions) refuse(w http.ResponseWriter, req *http.Request) {
	if isCall(req) || o.Sessions == nil || req.Method != http.MethodGet && req.Method != http.MethodHead {
		refuseToken(w, &Error{Code: "denied", Message: "this call needs an API token, or a session of the console", Fix: "sign in, or send the header Authorization: Bearer TOKEN"})
		return
	}
	to := url.URL{Path: signInPath, RawQuery: url.Values{"to": {req.URL.RequestURI()}}.Encode()}
	http.Redirect(w, req, to.String(), http.StatusSeeOther)
}

// servePage answers with a page. Its body is read before, and each write of its answer has to be taken within 30 seconds.
func (o *ServerOptions) servePage(w http.ResponseWriter, req *http.Request, pages http.Handler) {
	rc := http.NewResponseController(w)
	if req.Body != http.NoBody {
		body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxForm))
		if err != nil {
			w.Header().Set("Connection", "close")
			http.Error(w, "the form is too large, or came too slowly", http.StatusBadRequest)
			return
		}
		_ = rc.SetReadDeadline(time.Time{}) // the next read fails then
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	within := cmp.Or(o.writeWithin, writeWithin)
	pages.ServeHTTP(patient{w, func() { _ = rc.SetWriteDeadline(o.Now().Add(within)) }}, req) // without one, the write only takes longer to fail
}

// patient bounds each write of an answer, so that a long one is sent whole to a client that takes it.
type patient struct {
	http.ResponseWriter
	bound func()
}

// Write implements http.ResponseWriter.
func (p patient) Write(b []byte) (int, error) {
	p.bound()
	return p.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (p patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// protect sets the headers that keep a browser from running, framing or guessing content that the Core did not send. A page may
// replace Cache-Control.
func protect(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Cookie, Authorization")
}
