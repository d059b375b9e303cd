package signin

import (
	"embed"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"strings"
)

//go:embed html/page.html
var pageFiles embed.FS

var page = template.Must(template.ParseFS(pageFiles, "html/page.html"))

const (
	rootPath = "/signin"
	linkPath = "/signin/link/"
)

// view is the content of the page.
type view struct {
	Title, Text, Remedy string
	Provider            string // URL that begins a sign-in
	Link                string // secret of a console link, for the form
	SignedOut           bool
}

// addPages adds the pages of signing in.
func (s *Service) addPages() {
	s.pages = http.NewServeMux()
	s.pages.HandleFunc("GET "+rootPath, s.showSignIn)
	s.pages.HandleFunc("GET "+rootPath+"/start", s.goToProvider)
	s.pages.HandleFunc("GET "+rootPath+"/callback", s.comeBack)
	s.pages.HandleFunc("GET "+linkPath+"{link}", func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Referrer-Policy", "no-referrer") // the address has the link
		show(w, http.StatusOK, &view{Title: "Sign in to nightferry", Text: "This link signs you in, once.", Link: req.PathValue("link")})
	})
	s.pages.HandleFunc("POST "+rootPath+"/link", s.useLink)
	s.pages.HandleFunc("POST "+rootPath+"/out", s.signOut)
	s.pages.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		show(w, http.StatusNotFound, &view{Title: "There is no such page", Text: "The address is not one of this console."})
	})
}

// ServeHTTP answers the requests below /signin, which need no session.
func (s *Service) ServeHTTP(w http.ResponseWriter, req *http.Request) { s.pages.ServeHTTP(w, req) }

func (s *Service) showSignIn(w http.ResponseWriter, req *http.Request) {
	v := &view{Title: "Sign in to nightferry", Remedy: "Without an identity provider: on the Core's machine, run nightferry console link and open the address that it prints."}
	if s.o.Settings() != nil {
		v.Provider = rootPath + "/start?" + url.Values{"to": {safePath(req.URL.Query().Get("to"))}}.Encode()
	}
	v.SignedOut = req.URL.Query().Has("out")
	show(w, http.StatusOK, v)
}

// signOut ends the session of a request, or with the field everywhere all sessions of its person.
func (s *Service) signOut(w http.ResponseWriter, req *http.Request) {
	if e := s.named(req); e != nil {
		everywhere := req.PostFormValue("everywhere") != ""
		_, err := s.end(req.Context(), e.Person, func(x *session) bool { return x == e || everywhere && x.Person == e.Person && x.Subject == e.Subject })
		if err != nil {
			s.showError(w, http.StatusInternalServerError, err) // the session has ended in memory
			return
		}
	}
	setCookie(w, cookieName, "", -1)
	http.Redirect(w, req, rootPath+"?out", http.StatusSeeOther)
}

// safePath returns a path of this console to which a sign-in may return. Anything else becomes the first page: another
// host, or a page of signing in.
func safePath(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" || !strings.HasPrefix(u.Path, "/") || len(to) > 2000 ||
		strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\r\n\t") || strings.HasPrefix(u.Path, "//") || u.Path == rootPath || strings.HasPrefix(u.Path, rootPath+"/") {
		return "/"
	}
	return u.RequestURI()
}

func (s *Service) showError(w http.ResponseWriter, code int, err error) {
	text := err.Error()
	v := &view{Title: "You are not signed in", Text: strings.ToUpper(text[:1]) + text[1:]}
	var r interface{ Remedy() string }
	if errors.As(err, &r) {
		v.Remedy = r.Remedy()
	}
	show(w, code, v)
}

func show(w http.ResponseWriter, code int, v *view) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	w.WriteHeader(code)
	_ = page.Execute(w, v) // a browser that has gone needs no page
}
