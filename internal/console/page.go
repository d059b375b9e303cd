package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/rights"
)

//go:embed html
var htmlFiles embed.FS

//go:embed static
var staticFiles embed.FS

// page is the content of a handler's answer.
type page struct {
	Title    string
	Template string // name of a file in html
	Data     any
	Command  string // the command line that shows or does the same
	Live     bool   // load it again when something happens
	Wall     bool   // without navigation, for a screen on a wall
	Every    int    // seconds between two loads without an event; 0: a minute
	Status   int    // 0: 200

	redirect string // path; instead of a page
	raw      func(w http.ResponseWriter, r *request)
}

// frame surrounds each page: header, navigation and footer.
type frame struct {
	*page
	Path      string
	Main      template.HTML
	Who       rights.Principal
	SignOut   string
	MayHalt   bool
	Halts     int // active orders
	Incidents int
	Nav       []navLink
	Version   string // of the assets, in their URLs
	Now       time.Time
}

type navLink struct {
	Path, Name string
	Here       bool
}

// pages are the parsed templates, by name.
type pages map[string]*template.Template

func parsePages() pages {
	functions := template.FuncMap{
		"size": size, "rate": rate, "percent": percent, "link": link, "markOf": markOf, "runMark": func(s any) mark { return runMark(fmt.Sprint(s)) },
		"group": func(n any) string { return groupAny(n) }, "count": func(n any, noun string) string { return countAny(n, noun) },
		"time": func(t time.Time) stamp { return stamp{T: t} }, "zoned": func(t time.Time, zone string) stamp { return stamp{t, zone} },
		"command": command, "join": strings.Join, "took": took, "apart": apart, "trigger": trigger, "version": assetVersion, "sitePath": sitePath, "haltCommand": haltCommand,
		"ago": func(now, t time.Time) string { return took(now.Sub(t)) + " ago" },
		"dict": func(pairs ...any) map[string]any {
			out := map[string]any{}
			for i := 0; i+1 < len(pairs); i += 2 {
				out[pairs[i].(string)] = pairs[i+1]
			}
			return out
		},
	}
	base := template.Must(template.New("").Funcs(functions).ParseFS(htmlFiles, "html/frame.html", "html/parts.html"))
	out := pages{}
	names, err := fs.Glob(htmlFiles, "html/*.html")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	for _, f := range names {
		name := strings.TrimSuffix(path.Base(f), ".html")
		if name != "frame" && name != "parts" {
			out[name] = template.Must(template.Must(base.Clone()).ParseFS(htmlFiles, f))
		}
	}
	return out
}

// stamp is a time that a page shows: by a site's clock if it has a zone, and in UTC. The reader's own follows by script.
type stamp struct {
	T    time.Time
	Zone string
}

// ISO is for machines.
func (s stamp) ISO() string { return s.T.UTC().Format(time.RFC3339) }

// UTC is for people.
func (s stamp) UTC() string { return s.T.UTC().Format("2 Jan 15:04") }

// Local is the time by the clock of the zone; empty without one, or in UTC.
func (s stamp) Local() string {
	t := inZone(s.T, s.Zone)
	if _, offset := t.Zone(); s.Zone == "" || offset == 0 {
		return ""
	}
	return t.Format("2 Jan 15:04 MST")
}

func groupAny(n any) string {
	switch x := n.(type) {
	case int:
		return group(x)
	case int64:
		return group(x)
	case uint64:
		return group(x)
	}
	return fmt.Sprint(n)
}

func countAny(n any, noun string) string {
	text := groupAny(n)
	if text != "1" {
		noun += "s"
	}
	return text + " " + noun
}

// postFor bounds the time that a form takes to be carried out.
const postFor = 2 * time.Minute

// rendered is a page's own part, which those with the same rights share.
type rendered struct {
	page *page
	main []byte
}

// show builds a page and writes it. A GET of the same URL by principals of the same rights is computed once.
func (c *Console) show(w http.ResponseWriter, req *http.Request, build func(*request) (*page, error)) {
	r := newRequest(req)
	render := func(context.Context) (*rendered, error) {
		p, err := build(r)
		if err != nil || p.redirect != "" || p.raw != nil {
			return &rendered{page: p}, err
		}
		return c.renderMain(p)
	}
	var out *rendered
	var err error
	if req.Method == http.MethodGet {
		out, err = shared(r, &c.memo, "page\x00"+req.URL.RequestURI(), render)
	} else {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), postFor)
		defer cancel()
		r.Request = r.WithContext(ctx)
		out, err = c.doubles.do(r, c.b.Now, func() (*rendered, error) { return render(r.Context()) })
		c.memo.forget()
	}
	if err != nil {
		out, err = c.renderMain(c.errorPage(r, err))
		if err != nil {
			http.Error(w, "the page cannot be rendered", http.StatusInternalServerError)
			return
		}
	}
	switch {
	case out.page.redirect != "":
		http.Redirect(w, req, out.page.redirect, http.StatusSeeOther)
	case out.page.raw != nil:
		out.page.raw(w, r)
	default:
		c.write(w, r, out)
	}
}

func (c *Console) renderMain(p *page) (*rendered, error) {
	t := c.pages[p.Template]
	if t == nil {
		return nil, fmt.Errorf("no template %q", p.Template)
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, p.Template+".html", p); err != nil {
		return nil, fmt.Errorf("render %s: %w", p.Template, err)
	}
	return &rendered{p, b.Bytes()}, nil
}

// failure is the content of an error page.
type failure struct {
	*api.Error
	Need rights.Role // the role that is missing; 0: it is not about a role
	Who  rights.Principal
}

func (c *Console) errorPage(r *request, err error) *page {
	told := c.explain(err)
	f := failure{Error: told, Who: r.who}
	var denied *rights.DeniedError
	if errors.As(err, &denied) && r.who.Role < denied.Need {
		f.Need = denied.Need
	}
	status := map[string]int{"usage": http.StatusBadRequest, "denied": http.StatusForbidden, "absent": http.StatusNotFound, "conflict": http.StatusConflict,
		"refused": http.StatusConflict, "halted": http.StatusConflict}[told.Code]
	if status == 0 {
		status = http.StatusInternalServerError
	}
	return &page{Title: "Not possible", Template: "error", Data: f, Status: status}
}

// write writes a page within its frame, and to a client that has it already nothing.
func (c *Console) write(w http.ResponseWriter, r *request, out *rendered) {
	f := frame{page: out.page, Path: r.URL.Path, Main: template.HTML(out.main), Who: r.who, SignOut: c.o.SignOut, Version: assetVersion(), Now: c.b.Now().UTC()}
	if r.who.Role >= rights.Viewer {
		f.Halts, f.Incidents = c.counts(r)
	}
	f.addNav(r)
	var b bytes.Buffer
	if err := c.pages["error"].ExecuteTemplate(&b, "frame.html", f); err != nil {
		http.Error(w, "the page cannot be rendered", http.StatusInternalServerError)
		return
	}
	text := visible(b.Bytes())
	tag := fmt.Sprintf("\"%x\"", sha256.Sum256(text))
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Vary", "Cookie, Authorization")
	status := out.page.Status
	if status == 0 {
		status = http.StatusOK
	}
	if status == http.StatusOK {
		h.Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.WriteHeader(status)
	_, _ = w.Write(text) // the client has gone
}

// navigation are the links of the header, with the role and the scope that their pages need.
var navigation = []struct {
	path, name string
	need       rights.Role
	all        bool
}{
	{"/", "Tonight", rights.Viewer, false}, {"/live", "Live", rights.Viewer, false}, {"/sites", "Sites", rights.Viewer, false}, {"/where", "Where", rights.Viewer, false}, {"/incidents", "Incidents", rights.Viewer, false},
	{"/runs", "Runs", rights.Viewer, false}, {"/releases", "Releases", rights.Viewer, false}, {"/forecast", "Forecast", rights.Viewer, false}, {"/publish", "Publish", rights.Publisher, true}, {"/logs", "Logs", rights.Logs, false}, {"/audit", "Audit", rights.Viewer, true},
}

// addNav offers the pages that the principal may see.
func (f *frame) addNav(r *request) {
	f.MayHalt = r.may(rights.Viewer) // the page shows the active orders, too
	for _, l := range navigation {
		if r.may(l.need) && (!l.all || r.who.Scope.All()) {
			f.Nav = append(f.Nav, navLink{l.path, l.name, l.path == r.URL.Path || l.path != "/" && strings.HasPrefix(r.URL.Path, l.path+"/")})
		}
	}
}

// counts are the active halt orders and the open incidents, for the frame. They are 0 if they cannot be read: the
// page itself then gives the reason.
func (c *Console) counts(r *request) (halts, incidents int) {
	n, err := shared(r, &c.memo, "counts", func(ctx context.Context) ([2]int, error) {
		h, err := c.b.Halts.List(ctx, false)
		if err != nil {
			return [2]int{}, err
		}
		i, err := c.b.Fleet.Incidents(ctx, false)
		return [2]int{len(h), len(i)}, err
	})
	if err != nil {
		return 0, 0
	}
	return n[0], n[1]
}

// assetVersion names the content of the assets, so that browsers may keep them for ever.
var assetVersion = newAssetVersion()

func newAssetVersion() func() string {
	h := sha256.New()
	for _, name := range assetNames() {
		b, _ := staticFiles.ReadFile(name) // embedded
		h.Write(b)
	}
	h.Write([]byte(landText))
	v := fmt.Sprintf("%x", h.Sum(nil)[:6])
	return func() string { return v }
}

func assetNames() []string {
	names, _ := fs.Glob(staticFiles, "static/*") // a constant pattern
	slices.Sort(names)
	return names
}

// assets serves the files to which pages refer, under /assets/VERSION/.
func assets() http.Handler {
	types := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	files := map[string][]byte{"land.svg": []byte(landSVG())}
	for _, name := range assetNames() {
		files[path.Base(name)], _ = staticFiles.ReadFile(name) // embedded
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := files[strings.TrimPrefix(r.URL.Path, "/assets/"+assetVersion()+"/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", types[path.Ext(r.URL.Path)])
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		_, _ = w.Write(body) // the client has gone
	})
}
