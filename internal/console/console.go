// Package console renders the pages of a running Core for a browser, over its contract. Each page is a
// URL with its filters in it and reads without JavaScript; with it, the page follows the Core's events. The package
// renders the guarded backend's answers to the principal of a request (rights.With). It knows neither sessions nor
// sign-in: the door in front of it does, and refuses a POST of another origin.
package console

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzhttp"

	"nightferry/internal/api"
	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/rights"
)

// Options of New.
type Options struct {
	// Backend is the Core's. The console guards it.
	Backend api.Backend
	// Explain turns an error into the text for a person. It must hold no secret. Nil: the error's own text.
	Explain func(error) *api.Error
	// SignOut is the path to which a form posts to end the session. Empty: the pages have no such button.
	SignOut string
	// Background does work that outlives its request, and ends it with the Core. Nil: it is done within the request.
	Background func(work func(context.Context))
}

// Console serves the pages. It is safe for concurrent use.
type Console struct {
	o         Options
	b         api.Backend // guarded
	pages     pages
	memo      memo
	speed     speeds
	publishes publishes
	doubles   doubles

	routes map[string]func(*request) (*page, error)
}

// allRoutes are the pages and the forms that they post.
func (c *Console) allRoutes() map[string]func(*request) (*page, error) {
	return map[string]func(*request) (*page, error){
		"GET /{$}": c.tonight, "GET /live": c.live, "GET /where": c.where, "GET /where.csv": c.whereCSV,
		"GET /sites": c.siteTable, "GET /sites/{site}": c.site, "POST /sites/{site}/{act}": c.postSite,
		"GET /halt": c.haltPage, "GET /halt/{order}": c.haltProof, "POST /halt": c.postHalt, "POST /resume": c.postResume,
		"GET /incidents": c.incidents, "POST /incidents": c.postIncident,
		"GET /runs": c.runs, "GET /runs/{id}": c.run, "GET /releases": c.releases, "GET /forecast": c.forecast, "GET /audit": c.audit,
		"GET /publish": c.publish, "POST /publish": c.postPublish, "POST /sessions/end": c.postEnd,
		"GET /logs": c.logs, "GET /logs/{id}": c.log, "GET /logs/{id}/file": c.logFile,
	}
}

// Routes returns the patterns of all pages and forms.
func Routes() []string { return slices.Sorted(maps.Keys((&Console{}).allRoutes())) }

// policy lets a page load content of this server only. No page may frame it, and no form leaves it.
const policy = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

// New returns the handler of all pages and their assets.
func New(o Options) http.Handler {
	c := &Console{o: o, b: api.Guarded(o.Backend), pages: parsePages()}
	c.memo.now, c.speed.now = o.Backend.Now, o.Backend.Now
	mux := http.NewServeMux()
	mux.Handle("GET /assets/", assets())
	c.routes = c.allRoutes()
	for pattern, build := range c.routes {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { c.show(w, r, build) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c.show(w, r, func(*request) (*page, error) {
			return nil, &api.Error{Code: "absent", Message: "there is no page " + r.URL.Path, Fix: "the links above lead to all pages"}
		})
	})
	return bounded(gzhttp.GzipHandler(mux))
}

const maxForm = 64 << 10 // bytes of a POST

// bounded sets the headers of each answer and bounds the size of the request. The door bounds the time.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		next.ServeHTTP(w, r)
	})
}

// request is one request for a page.
type request struct {
	*http.Request
	who rights.Principal
}

func newRequest(r *http.Request) *request {
	who := rights.Of(r.Context())
	return &request{r.WithContext(core.WithActor(r.Context(), who.Name)), who}
}

// get returns a parameter of the URL, or of a form, without spaces around it.
func (r *request) get(name string) string { return strings.TrimSpace(r.FormValue(name)) }

// may reports whether the principal has a role, so that a page offers only allowed actions. The backend decides again.
func (r *request) may(role rights.Role) bool { return r.who.Role >= role }

// refused returns the refusal of a backend that was asked for a deed without the right to it, so that it audits that.
func refused(err error) error {
	if err == nil {
		return errors.New("the right is missing, and the backend has not refused")
	}
	return err
}

// explain returns the text of an error for a person.
func (c *Console) explain(err error) *api.Error {
	var known *api.Error
	var denied *rights.DeniedError
	var unknown *fleet.UnknownError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &denied):
		return &api.Error{Code: "denied", Message: denied.Error(), Fix: denied.Remedy()}
	case errors.As(err, &unknown):
		return &api.Error{Code: "absent", Message: unknown.Error(), Fix: "the page Sites lists what is configured"}
	case errors.Is(err, ledger.ErrNotFound), errors.Is(err, core.ErrNoOrder):
		return &api.Error{Code: "absent", Message: err.Error(), Fix: "it may have ended since the page was loaded: load it again"}
	case errors.Is(err, context.Canceled), errors.Is(err, fs.ErrClosed):
		return &api.Error{Code: "failed", Message: "the request ended before its answer was complete", Fix: "load the page again"}
	case c.o.Explain != nil:
		return c.o.Explain(err)
	}
	return &api.Error{Code: "failed", Message: err.Error()}
}
