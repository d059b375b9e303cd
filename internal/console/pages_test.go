package console

import (
	"encoding/csv"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nightferry/internal/consoletest"
	"nightferry/internal/rights"
)

// TestScope checks that no page shows a limited principal a name from outside of its scope.
func TestScope(t *testing.T) {
	w := consoletest.New()
	h := as(kay, New(Options{Backend: w.Backend()}))
	for _, target := range targets(w) {
		text := get(t, h, target).Body.String()
		for _, s := range w.SiteList {
			if s.Domain != "plant" && strings.Contains(text, ">"+s.Site+"<") {
				t.Errorf("%s names %s", target, s.Site)
			}
		}
	}
	if out := get(t, h, "/sites/berlin"); out.Code != http.StatusForbidden && out.Code != http.StatusNotFound {
		t.Errorf("a site from outside: %d", out.Code)
	}
	for target, want := range map[string]int{"/": 200, "/sites/osaka": 200, "/audit": 403, "/releases": 200, "/live": 200} {
		if out := get(t, h, target); out.Code != want {
			t.Errorf("%s: %d, want %d", target, out.Code, want)
		}
	}
}

// TestHours looks at the past and at the forecast.
func TestHours(t *testing.T) {
	w := consoletest.New()
	h := as(anna, New(Options{Backend: w.Backend()}))
	for target, want := range map[string][]string{
		"/":                         {"Tonight, now", "8 of 26 sites", "4</b> runs under way"},
		"/?at=-4h":                  {"Recorded, -4 h", "was under way"},
		"/?at=12h":                  {"Forecast, &#43;12 h", "would move"},
		"/?at=2026-11-30T19:20:00Z": {"Forecast, &#43;3 h"},
		"/?at=-900h":                {"Recorded, -24 h"},
		"/?region=ap":               {"of 9 sites"},
		"/?state=failing":           {"milano"},
	} {
		text := get(t, h, target).Body.String()
		for _, x := range want {
			if !strings.Contains(text, x) {
				t.Errorf("%s lacks %q", target, x)
			}
		}
	}
	if out := get(t, h, "/?at=yesterday"); out.Code != http.StatusBadRequest {
		t.Errorf("at=yesterday: %d", out.Code)
	}
}

// TestWhere compares the CSV with the backend's answers, and checks that no cell is a formula.
func TestWhere(t *testing.T) {
	w := consoletest.New()
	w.SiteList[0].Site = "=cmd"
	h := as(anna, New(Options{Backend: w.Backend()}))
	out := get(t, h, "/where.csv?path=package/tools/setup.exe")
	rows, err := csv.NewReader(out.Body).ReadAll()
	if err != nil || len(rows) != 27 || out.Header().Get("Content-Disposition") != `attachment; filename="where.csv"` {
		t.Fatalf("%d rows, %v, %v", len(rows), err, out.Header())
	}
	if !slices.ContainsFunc(rows, func(r []string) bool {
		return r[0] == "package" && r[1] == "tools/setup.exe" && r[3] == "'=cmd" && r[4] == "current"
	}) {
		t.Errorf("%q", rows)
	}
	if text := get(t, h, "/where?path=no/such").Body.String(); !strings.Contains(text, "did you mean tools/setup.exe?") {
		t.Error("the page suggests no path")
	}
}

// TestShared checks that a page is computed once for all principals with the same rights, that another right computes another
// one, and that a change is seen at once.
func TestShared(t *testing.T) {
	w := consoletest.New()
	c := New(Options{Backend: w.Backend()})
	first := get(t, as(anna, c), "/sites").Body.String()
	w.Change("osaka", "package", "failing")
	if get(t, as(anna, c), "/sites").Body.String() != first {
		t.Error("a second reader computed the page again")
	}
	if other := get(t, as(rights.Principal{Name: "ben", Role: rights.Admin}, c), "/sites").Body.String(); other != strings.Replace(first, ">anna<", ">ben<", 1) {
		t.Error("another reader of the same rights does not get the same page")
	}
	if text := get(t, as(kay, c), "/sites").Body.String(); strings.Contains(text, "berlin") || !strings.Contains(text, "failing") {
		t.Error("a reader of other rights got the shared page")
	}
	post(t, as(anna, c), "/sites/osaka/sync", nil)
	if get(t, as(anna, c), "/sites").Body.String() == first {
		t.Error("after a change the old page is shown")
	}
	w.Change("osaka", "package", "current")
	w.Advance(freshFor)
	if got := get(t, as(anna, c), "/sites").Body.String(); got != first {
		t.Error("a result is shared for too long")
	}
}

// TestUnchanged checks that a browser that has a page gets it only once.
func TestUnchanged(t *testing.T) {
	h := as(anna, New(Options{Backend: consoletest.New().Backend()}))
	tag := get(t, h, "/").Header().Get("ETag")
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("If-None-Match", tag)
	out := &answer{header: http.Header{}}
	h.ServeHTTP(out, r)
	if tag == "" || out.code != http.StatusNotModified || out.n > 0 {
		t.Errorf("ETag %q: %d with %d bytes", tag, out.code, out.n)
	}
}

type answer struct {
	header http.Header
	code   int
	n      int
}

func (a *answer) Header() http.Header { return a.header }
func (a *answer) WriteHeader(c int)   { a.code = c }
func (a *answer) Write(b []byte) (int, error) {
	a.n += len(b)
	return len(b), nil
}

// TestManyReaders loads pages at the same time, while the fleet changes.
func TestManyReaders(t *testing.T) {
	w := consoletest.New()
	c := New(Options{Backend: w.Backend()})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			p := anna
			if i%2 == 0 {
				p = kay
			}
			for _, target := range []string{"/", "/sites", "/halt", "/live", "/incidents", "/sites/osaka"} {
				if out := get(t, as(p, c), target); out.Code != http.StatusOK {
					t.Errorf("%s: %d", target, out.Code)
				}
				w.Change("osaka", "package", []string{"current", "failing"}[i%2])
			}
		})
	}
	all.Wait()
}

// TestSun checks the point under the sun at solstices and equinoxes, and at noon in Greenwich.
func TestSun(t *testing.T) {
	for at, want := range map[string][2]float64{"2026-06-21T12:00:00Z": {0, 23.4}, "2026-12-21T12:00:00Z": {0, -23.4}, "2026-03-20T14:46:00Z": {-40, 0}, "2026-11-30T16:20:00Z": {-68, -21.7}} {
		x, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if lon, lat := sunAt(x); max(lon-want[0], want[0]-lon) > 2 || max(lat-want[1], want[1]-lat) > 0.5 {
			t.Errorf("%s: the sun stands over %.1f, %.1f; want %.1f, %.1f", at, lon, lat, want[0], want[1])
		}
	}
}

// TestPlaces: coordinates come before the zone's city, and a zone without one puts the site nowhere.
func TestPlaces(t *testing.T) {
	w := consoletest.New()
	for _, s := range w.SiteList {
		at := spotOf(&s)
		if !at.Placed || (at.Near == "") != (s.Latitude != nil) {
			t.Errorf("%s: %+v", s.Site, at)
		}
		s.Zone, s.Latitude = "UTC", nil
		if at := spotOf(&s); at.Placed {
			t.Errorf("a site in UTC without coordinates: %+v", at)
		}
	}
}
