package query

import (
	"testing"
	"time"
)

// TestWindows checks that windows are listed whole, that a channel without one is open always, and that the period is bounded.
func TestWindows(t *testing.T) {
	f := &facts{window: "22:00-04:00"}
	list, err := f.service(t).Windows(t.Context(), WindowsRequest{From: noon.Add(-11 * time.Hour), To: noon.Add(11 * time.Hour)})
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	for i, start := range []time.Time{noon.Add(-14 * time.Hour), noon.Add(10 * time.Hour)} {
		if x := list[i]; x.Site != "osaka" || x.Region != "ap" || x.Channel != "package" || !x.Start.Equal(start) || !x.End.Equal(start.Add(6*time.Hour)) || x.Always {
			t.Errorf("%+v: want from %s", x, start)
		}
	}
	f.window = ""
	list, err = f.service(t).Windows(t.Context(), WindowsRequest{})
	if err != nil || len(list) != 1 || !list[0].Always || !list[0].Start.Equal(noon) || !list[0].End.Equal(noon.AddDate(0, 0, 1)) {
		t.Errorf("without a window: %+v, %v", list, err)
	}
	for _, to := range []time.Time{noon, noon.AddDate(0, 0, maxWindowDays+1)} {
		if _, err := f.service(t).Windows(t.Context(), WindowsRequest{From: noon, To: to}); err == nil {
			t.Errorf("windows until %s, and no error", to)
		}
	}
}
