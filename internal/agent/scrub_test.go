package agent

import (
	"fmt"
	"testing"
	"time"

	"nightferry/internal/policy"
)

// TestPassesAreSpread: each pass is due exactly once in its period, at each site
// at the same time of every one, and seventy sites do not all begin in the same
// night.
func TestPassesAreSpread(t *testing.T) {
	const week = 7 * 24 * time.Hour
	start := time.Date(2026, 3, 2, 11, 0, 0, 0, time.UTC)
	nights := map[int]int{}
	for i := range 70 {
		site := fmt.Sprintf("site-%d", i)
		due := map[time.Time]int{}
		for h := range 4 * 7 * 24 {
			now := start.Add(time.Duration(h) * time.Hour)
			last := lastPass(now, week, site, "package")
			if last.After(now) || now.Sub(last) >= week {
				t.Fatalf("at %s the newest pass of %s is that of %s", now, site, last)
			}
			due[last]++
		}
		if len(due) != 5 { // four whole weeks, cut at its place
			t.Errorf("%s has %d passes in four weeks", site, len(due))
		}
		nights[int(lastPass(start, week, site, "package").Sub(start.Add(-week))/(24*time.Hour))]++
	}
	for n := range 7 {
		if nights[n] < 2 || nights[n] > 25 {
			t.Errorf("%d of 70 sites begin in night %d: %v", nights[n], n, nights)
		}
	}
	if lastPass(start, week, "osaka", "package").Equal(lastPass(start, week, "osaka", "image")) {
		t.Error("two channels of a site begin at once")
	}
}

// TestChecksReadAsFastAsTheyMay: not faster than the rate, by a tenth at most.
func TestChecksReadAsFastAsTheyMay(t *testing.T) {
	const limit, total = 10 << 20, 20 << 20
	o, err := readOptions(&policy.Policy{ScrubRate: limit, Ignore: []string{"own/"}})
	if err != nil || !o.Ignore.Skip("own", true) {
		t.Fatal("it does not leave alone what the policy ignores:", err)
	}
	began := time.Now()
	for n := 0; n < total; n += 1 << 20 {
		if err := o.Limit(t.Context(), 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	got := float64(total-1<<20) / time.Since(began).Seconds()
	t.Logf("%.1f %% of the limit", 100*got/limit)
	if got > 1.1*limit {
		t.Errorf("%.0f bytes per second, the limit is %d", got, limit)
	}
	free, err := readOptions(&policy.Policy{})
	if o.Workers != 1 || free.Limit != nil || err != nil {
		t.Errorf("%+v, %+v, %v", o, free, err)
	}
	if _, err := readOptions(&policy.Policy{Ignore: []string{"["}}); err == nil {
		t.Error("a pattern that cannot be read is ignored")
	}
}
