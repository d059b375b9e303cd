//go:build linux

package gates

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"nightferry/internal/repo"
	"nightferry/internal/testbed"
	"nightferry/internal/wire"
)

// objects requests a URL for each kind of object and reads every object whose URL is granted.
func (c *cast) objects(t *testing.T, p packs) *table {
	keys := c.w.repo.Keys()
	own, other := keys.Name("package"), keys.Name("image")
	var segments []string
	for _, k := range testbed.Keys(t, c.w.repo.Store(), "index/") {
		if k != repo.RootKey {
			segments = append(segments, k)
		}
	}
	absent := "packs/ab/" + strings.Repeat("ab", 32)
	classes := []struct {
		name string
		keys []string
	}{
		{"`format`, `halt`", []string{"format", "halt"}},
		{"`trust/1`", []string{"trust/1"}},
		{"`trust/2`, which is not there", []string{"trust/2"}},
		{"`index/root`, and the segments", append([]string{repo.RootKey}, segments...)},
		{"head of `package`", []string{repo.HeadKey(own)}},
		{"release 2 of `package`, the newest", []string{repo.ReleaseKey(own, 2)}},
		{"release 1 of `package`", []string{repo.ReleaseKey(own, 1)}},
		{"release 3 of `package`, which is not there", []string{repo.ReleaseKey(own, 3)}},
		{"packs of `package` 2", p.current},
		{"packs that only `package` 1 needs", p.old},
		{"head and release of `image`", []string{repo.HeadKey(other), repo.ReleaseKey(other, 1)}},
		{"packs of `image`", p.image},
		{"a pack that is not there", []string{absent}},
		{"no key of a repository: empty, `/`, `packs`, `packs/`, `channels/`, `../format`, `format/`, `trust/0`, `trust/01`, `trust/x`, `index/x`, `packs/../format`, `x`",
			[]string{"", "/", "packs", "packs/", "channels/", "../format", "format/", "trust/0", "trust/01", "trust/x", "index/x", "packs/../format", "x", "channels/package/head"}},
	}
	x := &table{
		title: "**Objects**: whose URL does the Core lend? rome should hold `package` 2; paris and oslo `image` 1. Asked for what a site's releases do not need, it refuses, audits and opens an incident.",
		roles: []string{"rome (alpha)", "paris (alpha)", "oslo (beta)", "holder of a token"},
		notes: "A lent URL is one GET of one object at the store, for a day or until the site's next window has ended, a week at most: with it, PUT, DELETE and HEAD, another key, a later end or a listing are refused by the store. " +
			"Who is not let into the bus can ask for nothing; a URL that was lent before a site was revoked stays good until its end.",
	}
	var lent string
	for _, class := range classes {
		var cells []string
		for i, who := range []*person{c.rome, c.paris, c.oslo} {
			u, err := who.ask(class.keys...)
			if err != nil {
				t.Fatalf("%s: %s: %v", x.roles[i], class.name, err)
			}
			cells = append(cells, c.lent(u, class.name, class.keys))
			if len(u.Lent) > 0 {
				lent = u.Lent[0].URL
			}
		}
		x.add(class.name, append(cells, shut)...)
	}
	// The Core refuses the whole request of a token holder.
	c.token.listen()
	if _, err := c.token.ask("format"); !errors.Is(err, errOut) {
		t.Errorf("the holder of a token asks for URLs: %v", err)
	}
	c.onlyThat(t, lent)
	return x
}

// lent returns the outcome for the keys of one class, which must be the same for all, and reads the granted objects.
func (c *cast) lent(u *wire.URLs, name string, keys []string) string {
	t := c.w.t
	lot := map[string]string{}
	for _, l := range u.Lent {
		lot[l.Key] = open
		if code, _ := fetch(t, http.MethodGet, l.URL); code != http.StatusOK {
			t.Errorf("%s: the store answers %d to a lent URL of %s", name, code, l.Key)
		}
	}
	for _, r := range u.Refused {
		if lot[r.Key] = shut; r.Absent {
			lot[r.Key] = "told that it is not there"
		}
	}
	for _, k := range keys {
		if lot[k] != lot[keys[0]] || lot[k] == "" {
			t.Errorf("%s: %q is %q, %q is %q", name, keys[0], lot[keys[0]], k, lot[k])
		}
	}
	return lot[keys[0]]
}

func fetch(t *testing.T, method, raw string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, raw, nil)
	if err != nil {
		t.Fatal("a lent URL does not parse") // err would contain the URL
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal("a lent URL cannot be fetched")
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// onlyThat tries to use a presigned URL for anything but its one GET.
func (c *cast) onlyThat(t *testing.T, raw string) {
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal("a lent URL does not parse")
	}
	if seconds, err := strconv.Atoi(u.Query().Get("X-Amz-Expires")); err != nil || seconds > 24*60*60 {
		t.Errorf("a URL is lent for %d s", seconds)
	}
	with := func(change func(*url.URL, url.Values)) string {
		v, q := *u, u.Query()
		change(&v, q)
		v.RawQuery = q.Encode()
		return v.String()
	}
	for name, try := range map[string]struct{ method, url string }{
		"PUT":         {http.MethodPut, raw},
		"DELETE":      {http.MethodDelete, raw},
		"HEAD":        {http.MethodHead, raw},
		"another key": {http.MethodGet, with(func(v *url.URL, _ url.Values) { v.Path = "/" + c.w.bucket.Name + "/fleet/format2" })},
		"a later end": {http.MethodGet, with(func(_ *url.URL, q url.Values) { q.Set("X-Amz-Expires", "604800") })},
		"a listing": {http.MethodGet, with(func(v *url.URL, q url.Values) {
			v.Path = "/" + c.w.bucket.Name
			q.Set("list-type", "2")
		})},
		"no signature": {http.MethodGet, with(func(_ *url.URL, q url.Values) { q.Del("X-Amz-Signature") })},
	} {
		if code, _ := fetch(t, try.method, try.url); code != http.StatusForbidden && code != http.StatusBadRequest {
			t.Errorf("with a lent URL, %s: the store answers %d", name, code)
		}
	}
}
