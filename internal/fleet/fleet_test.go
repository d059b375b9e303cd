package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func model() *Fleet {
	ch := func(name string) Channel {
		return Channel{Name: name, Source: "/src/" + name, Links: Refuse, MaxDelete: 25, Keep: 10}
	}
	site := func(name, domain, region string, channels ...string) Site {
		s := Site{Name: name, Domain: domain, Region: region, Zone: "UTC", Location: time.UTC}
		for _, c := range channels {
			s.Placements = append(s.Placements, Placement{Channel: c, Target: `D:\` + c})
		}
		return s
	}
	return &Fleet{
		Channels: []Channel{ch("image"), ch("package")},
		Domains:  []Domain{{Name: "apac"}, {Name: "emea"}},
		Regions:  []Region{{Name: "ap"}, {Name: "eu"}},
		Sites: []Site{
			site("berlin", "emea", "eu", "image", "package"), site("osaka", "apac", "ap", "package"), site("perth", "apac", "ap", "image", "package"),
		},
	}
}

func TestSelect(t *testing.T) {
	f := model()
	for _, tt := range []struct {
		scope Scope
		want  string // site/channels, or the error
	}{
		{Scope{}, "berlin/image,package osaka/package perth/image,package"},
		{Scope{Domain: "apac"}, "osaka/package perth/image,package"},
		{Scope{Region: "eu", Channel: "image"}, "berlin/image"},
		{Scope{Channel: "image"}, "berlin/image perth/image"},
		{Scope{Site: "osaka", Channel: "image"}, ""},
		{Scope{Site: "osaka", Domain: "emea"}, ""},
		{Scope{Site: "oskaa"}, `no site is named "oskaa": did you mean "osaka"?`},
		{Scope{Region: "xx"}, `no region is named "xx": want one of ap, eu`},
		{Scope{Domain: "latam"}, `no domain is named "latam": want one of apac, emea`},
		{Scope{Channel: "packages"}, `no channel is named "packages": did you mean "package"?`},
	} {
		sites, err := f.Select(tt.scope)
		var out []string
		for _, s := range sites {
			var channels []string
			for _, p := range s.Placements {
				channels = append(channels, p.Channel)
			}
			out = append(out, s.Name+"/"+strings.Join(channels, ","))
		}
		got := strings.Join(out, " ")
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%+v selects %q, want %q", tt.scope, got, tt.want)
		}
	}
	if diff := cmp.Diff(model(), f, cmp.Comparer(func(a, b *time.Location) bool { return a == b })); diff != "" {
		t.Errorf("Select changed the fleet (-before +after):\n%s", diff)
	}
	if f.Site("none") != nil || f.Site("perth").Placement("package").Target != `D:\package` || f.Channel("image").Name != "image" || f.Domain("emea") == nil || f.Region("us") != nil {
		t.Error("a look-up by name is wrong")
	}
}

// TestValidate breaks each rule alone.
func TestValidate(t *testing.T) {
	if p := model().Validate(); len(p) > 0 {
		t.Fatalf("a sound fleet is refused: %v", p[0])
	}
	ninetyOne, zero := 91.0, 0.0
	for _, tt := range []struct {
		want  string
		spoil func(f *Fleet)
	}{
		{`channel "image": source: folder "x": want an absolute`, func(f *Fleet) { f.Channels[0].Source = "x" }},
		{`channel "image": source: folder "/" is the root`, func(f *Fleet) { f.Channels[0].Source = "/" }},
		{`channel "image": links: "":`, func(f *Fleet) { f.Channels[0].Links = "" }},
		{`channel "image": max_delete: 0:`, func(f *Fleet) { f.Channels[0].MaxDelete = 0 }},
		{`channel "image": max_delete_files: -1:`, func(f *Fleet) { f.Channels[0].MaxDeleteFiles = -1 }},
		{`channel "image": keep: 0:`, func(f *Fleet) { f.Channels[0].Keep = 0 }},
		{`channel "image": keep_within: -1ns:`, func(f *Fleet) { f.Channels[0].KeepWithin = -1 }},
		{`region "aa": name: it stands after "eu"`, func(f *Fleet) { f.Regions = []Region{{"ap"}, {"eu"}, {"aa"}} }},
		{`domain "emea": name: two domains have it`, func(f *Fleet) { f.Domains = []Domain{{Name: "apac"}, {Name: "emea"}, {Name: "emea"}} }},
		{`domain "enroll": name: name "enroll": nightferry uses it itself`, func(f *Fleet) { f.Domains = append(f.Domains, Domain{Name: "enroll"}) }},
		{`domain "core": name: name "core": nightferry uses it itself`, func(f *Fleet) { f.Domains = slices.Insert(f.Domains, 1, Domain{Name: "core"}) }},
		{`domain "aux": name: name "aux": Windows keeps it`, func(f *Fleet) { f.Domains = slices.Insert(f.Domains, 1, Domain{Name: "aux"}) }},
		{`site "berlin": domain: it is in no domain`, func(f *Fleet) { f.Sites[0].Domain = "" }},
		{`site "berlin": region: no region is named "us"`, func(f *Fleet) { f.Sites[0].Region = "us" }},
		{`site "berlin": zone: "UTC"`, func(f *Fleet) { f.Sites[0].Location = nil }},
		{`site "berlin": at: want both`, func(f *Fleet) { f.Sites[0].Latitude = &zero }},
		{`site "berlin": at: latitude 91`, func(f *Fleet) { f.Sites[0].Latitude, f.Sites[0].Longitude = &ninetyOne, &zero }},
		{`site "berlin": rate: -1`, func(f *Fleet) { f.Sites[0].Rate = -1 }},
		{`site "osaka": targets: it holds no channel`, func(f *Fleet) { f.Sites[1].Placements = nil }},
		{`site "osaka": channel "patch": targets: no channel is named "patch"`, func(f *Fleet) { f.Sites[1].Placements[0].Channel = "patch" }},
		{`site "osaka": channel "package": targets: folder "d:/": it is the root`, func(f *Fleet) { f.Sites[1].Placements[0].Target = "d:/" }},
		{`site "osaka": channel "package": targets: folder "/src" overlaps "/src/image", the source of`, func(f *Fleet) { f.Sites[1].Placements[0].Target = "/src" }},
		{`site "berlin": channel "package": targets: folder "d:/IMAGE/x" overlaps "D:\\image"`, func(f *Fleet) { f.Sites[0].Placements[1].Target = "d:/IMAGE/x" }},
		{`site "osaka": channel "package": ignore: patterns of 16385 bytes: want at most 16384`, func(f *Fleet) { f.Sites[1].Placements[0].Ignore = []string{strings.Repeat("x", 16385)} }},
	} {
		f := model()
		tt.spoil(f)
		got := f.Validate()
		if len(got) != 1 || !strings.HasPrefix(got[0].Error(), tt.want) {
			t.Errorf("problems are %v, want one that begins with %s", got, tt.want)
		}
	}
}

func TestCheckTarget(t *testing.T) {
	for _, ok := range []string{"/srv/x", "/srv/x/", `D:\x`, "d:/x/y", `\\srv\share\x`, "//srv/share/x", "/a b/ü", `C:\Program Files (x86)\x`} {
		if err := CheckTarget(ok); err != nil {
			t.Errorf("%s is refused: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "/", "//", "x", "./x", "/a/../b", "/a//b", "/a/.", `/a\b`, "D:", `D:\`, "D:x", `D:\x.`, `D:\a \b`, `D:\a:b`, `D:\a?`,
		`\\srv`, `\\srv\share`, `\\srv\share\`, `\\?\C:\x`, `\\.\pipe\x`, `\x`, " /x", "/x\n", "/x\x00y", "/\xff"} {
		if err := CheckTarget(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestOverlap compares the rule on path texts with a rule on lists of names.
func TestOverlap(t *testing.T) {
	name := rapid.SampledFrom([]string{"a", "b", "A", "ab"})
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.SliceOfN(name, 1, 4).Draw(t, "x")
		y := rapid.SliceOfN(name, 1, 4).Draw(t, "y")
		n := min(len(x), len(y))
		for _, kind := range []struct {
			prefix, sep string
			same        func(a, b string) bool
		}{{"/", "/", func(a, b string) bool { return a == b }}, {`C:\`, `\`, strings.EqualFold}, {`\\S\h\`, "/", strings.EqualFold}} {
			want := true
			for i := range n {
				want = want && kind.same(x[i], y[i])
			}
			a, b := kind.prefix+strings.Join(x, kind.sep), strings.ToLower(kind.prefix)+strings.Join(y, "/")
			if got := Overlap(a, b); got != want {
				t.Fatalf("Overlap(%q, %q) is %v", a, b, got)
			}
			if got := Within(a, b); got != (want && len(x) >= len(y)) {
				t.Fatalf("Within(%q, %q) is %v", a, b, got)
			}
			if other := "/zz" + fmt.Sprint(b); Overlap(a, "D:/"+strings.Join(y, "/")) || strings.HasPrefix(a, "C") && Overlap(a, other) {
				t.Fatalf("%q overlaps another volume", a)
			}
		}
	})
}
