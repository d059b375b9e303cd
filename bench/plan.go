package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/schedule"
	"nightferry/internal/window"
)

// The size of the plan.
const (
	planSites = 10_000
	planDays  = 7
)

// planResult is the cost of planning.
type planResult struct {
	Run              string
	Load             float64
	Forecast, Due    time.Duration // a forecast of all days; the list of runs to start now
	Items, Sites     int
	Channels, Starts int
	Bytes            int64 // allocated for the forecast
}

// planPart forecasts the nights of a large fleet, and decides which runs start now.
func (b *bench) planPart(context.Context) error {
	q, err := planQuestion()
	if err != nil {
		return err
	}
	res := &planResult{Run: b.results.run, Load: loadAverage(), Sites: len(q.Sites), Channels: len(q.Sites[0].Channels)}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	items := schedule.Forecast(q)
	res.Forecast = time.Since(began)
	runtime.ReadMemStats(&after)
	res.Items, res.Bytes = len(items), int64(after.TotalAlloc-before.TotalAlloc)
	began = time.Now()
	for _, s := range q.Sites {
		m := schedule.Moment{Now: q.From, Rate: s.Rate}
		for _, c := range s.Channels {
			w, _ := window.Open(q.From, s.Place, c.Windows)
			m.Waiting = append(m.Waiting, schedule.Candidate{Channel: c.Name, Priority: c.Priority, Bytes: 1e9, Since: q.From, Window: w})
		}
		_, starts, _ := schedule.Next(m)
		res.Starts += len(starts)
	}
	res.Due = time.Since(began)
	if res.Items == 0 || res.Starts == 0 {
		return errors.New("nothing was planned")
	}
	b.log.Info("planned", "forecast", res.Forecast, "items", res.Items, "due", res.Due, "starts", res.Starts, "allocated", res.Bytes)
	b.results.Plan = res
	return nil
}

// planQuestion returns a worldwide fleet with ordinary windows, weekends, and each site's night. Half of the sites have
// a timetable. There is a new release every day, and an image every week.
func planQuestion() (q schedule.Question, err error) {
	var rules []window.Rule
	for _, text := range []string{"20:00-06:00", "mon-fri 22:00-05:00, sat-sun all", "dark 6h..12h"} {
		r, err := window.ParseRule(text)
		if err != nil {
			return q, err
		}
		rules = append(rules, r)
	}
	table, err := window.ParseTimetable("06:00-20:00 0; 20:00-22:00 20Mbit; else unlimited", bucket.ParseRate)
	if err != nil {
		return q, err
	}
	q = schedule.Question{From: time.Date(2026, 3, 27, 12, 0, 0, 0, time.UTC), Days: planDays, Prices: schedule.Prices{PerGB: 0.09, PerThousandRequest: 0.0004}}
	zones := []string{"Europe/Berlin", "America/New_York", "Asia/Tokyo", "Australia/Sydney", "America/Sao_Paulo", "Africa/Johannesburg", "Asia/Kolkata", "Pacific/Auckland"}
	for i := range planSites {
		zone, err := time.LoadLocation(zones[i%len(zones)])
		if err != nil {
			return q, err
		}
		_, offset := q.From.In(zone).Zone()
		lat, long := float64(i%120-60), float64(offset)/240+float64(i%7)
		s := schedule.Site{Name: fmt.Sprintf("site-%05d", i), Place: window.Place{Zone: zone, Latitude: &lat, Longitude: &long}, Rate: int64(1+i%5) * 1e6}
		if i%2 == 0 {
			s.Rates = table
		}
		for c, name := range []string{"driver", "image", "package", "patch"} {
			s.Channels = append(s.Channels, schedule.Channel{Name: name, Windows: rules[(i+c/2)%3], Priority: c % 2})
		}
		q.Sites = append(q.Sites, s)
	}
	for day := range planDays {
		for _, c := range []schedule.Coming{{Channel: "driver", Bytes: 200e6}, {Channel: "package", Bytes: 2e9}, {Channel: "patch", Bytes: 5e9}, {Channel: "image", Bytes: 40e9}} {
			if c.Channel == "image" && day > 0 {
				continue
			}
			c.At, c.Requests = q.From.AddDate(0, 0, day), c.Bytes/16e6
			q.Coming = append(q.Coming, c)
		}
	}
	return q, nil
}

// planTargets judges the part plan.
func planTargets(p *planResult) []row {
	w := row{work: "plan for 10 000 sites × 4 channels × 7 days", target: "≤ 1 s"}
	if p != nil {
		w.measured, w.ok = seconds(p.Forecast), p.Forecast <= time.Second
	}
	return []row{w}
}

// planReport writes the results.
func planReport(s *strings.Builder, p *planResult) {
	if p == nil {
		return
	}
	fmt.Fprintf(s, "\n## Part: plan\n\n%d sites in eight zones, %d channels each, three kinds of windows of which one is `dark`, half of the sites with a timetable; run %s, with a load of %.1f from others. "+
		"Without what the ledger is asked for and without writing it out.\n\n| | wall | |\n| --- | --- | --- |\n", p.Sites, p.Channels, p.Run, p.Load)
	fmt.Fprintf(s, "| forecast of %d days | %s | %d items, %s allocated |\n| what starts now | %s | %d starts |\n", planDays, seconds(p.Forecast), p.Items, mib(p.Bytes), seconds(p.Due), p.Starts)
}
