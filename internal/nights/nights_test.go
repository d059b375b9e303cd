package nights

import (
	"strings"
	"testing"
	"time"

	"nightferry/internal/fleet"
	"nightferry/internal/policy"
)

// TestOpens: a channel without windows may move now, one with a closed window when
// the next one opens.
func TestOpens(t *testing.T) {
	f := &fleet.Fleet{
		Channels: []fleet.Channel{{Name: "package", Cadence: "0 20 * * * UTC"}},
		Sites:    []fleet.Site{{Name: "berlin", Location: time.UTC, Placements: []fleet.Placement{{Channel: "package", Policy: policy.Policy{Windows: "22:00-04:00"}}, {Channel: "driver"}}}},
	}
	n, err := Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		channel string
		at      time.Time
		want    time.Time
	}{{"package", noon, noon.Add(10 * time.Hour)}, {"package", noon.Add(11 * time.Hour), time.Time{}}, {"driver", noon, time.Time{}}} {
		if got := n.Opens("berlin", c.channel, c.at); !got.Equal(c.want) {
			t.Errorf("%s at %v opens %v, want %v", c.channel, c.at, got, c.want)
		}
	}
	if n.Cadence("package").String() == "" || len(n.Openings("package")) != 1 || len(n.Openings("driver")) != 0 {
		t.Error("the cadence or the windows of package are missing")
	}
}

// TestParseNamesEveryError: the errors name the channel or the site.
func TestParseNamesEveryError(t *testing.T) {
	_, err := Parse(&fleet.Fleet{
		Channels: []fleet.Channel{{Name: "package", Cadence: "x"}},
		Sites:    []fleet.Site{{Name: "berlin", Location: time.UTC, Rates: "x", Placements: []fleet.Placement{{Channel: "package", Policy: policy.Policy{Windows: "x"}}}}},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`channel "package"`, `site "berlin": channel "package"`, `site "berlin": `} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}
