package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// redraw is how often a terminal is written to at most, speakEvery how often
// --json tells of progress.
const (
	redraw     = 200 * time.Millisecond
	speakEvery = time.Second
	rateOver   = 10 * time.Second // the rate shown is the mean of so long
)

// meter is how far a run is. Zero totals are not known yet.
type meter struct {
	Phase      string `json:"phase"`
	Files      int64  `json:"files"`
	TotalFiles int64  `json:"total_files"`
	Bytes      int64  `json:"bytes"` // of content, done
	TotalBytes int64  `json:"total_bytes"`
	Moved      int64  `json:"moved"`          // over the wire
	Saved      int64  `json:"saved"`          // of the bytes done, those that needed no wire
	Path       string `json:"path,omitempty"` // the file at hand
	noun       string // what Files counts, if not files
}

// progress draws one or two lines at the bottom of a terminal. All methods
// may be called on nil, which shows nothing; the owner holds env.mu.
type progress struct {
	w     io.Writer
	width func() int
	now   func() time.Time

	m       meter
	of      meter // that the samples are of
	samples []sample
	drawn   int // lines on the terminal now
	stop    chan struct{}
	done    sync.WaitGroup
}

type sample struct {
	at    time.Time
	bytes int64
	moved int64
}

// startProgress shows how far the run is, if stderr is a terminal that can
// move its cursor and nobody asked for silence.
func (e *env) startProgress() {
	f, ok := e.stderr.(*os.File)
	if !ok || e.quiet || e.json || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" || !enableEscapes(f) {
		return
	}
	width := func() int {
		w, _, err := term.GetSize(int(f.Fd()))
		if err != nil || w < 20 {
			return 80
		}
		return w
	}
	p := &progress{w: f, width: width, now: e.now, stop: make(chan struct{})}
	e.mu.Lock()
	e.progress = p
	e.mu.Unlock()
	p.done.Go(func() {
		tick := time.NewTicker(redraw)
		defer tick.Stop()
		for {
			select {
			case <-p.stop:
				return
			case <-tick.C:
				e.mu.Lock()
				p.draw()
				e.mu.Unlock()
			}
		}
	})
}

// endProgress clears the lines. It may be called again.
func (e *env) endProgress() {
	e.mu.Lock()
	p := e.progress
	e.progress = nil
	e.mu.Unlock()
	if p == nil {
		return
	}
	close(p.stop)
	p.done.Wait()
	p.hide()
}

// tell updates what is shown.
func (e *env) tell(m meter) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.progress != nil {
		e.progress.m = m
		return
	}
	if line := e.stats.line(m, e.now()); line != "" && !e.json && !e.quiet {
		_, _ = io.WriteString(e.stderr, line+"\n") // a log that cannot be written to is no reason to stop
	}
}

// stats writes how far a run is to a log, where no terminal shows it.
type stats struct {
	every   time.Duration
	samples []sample // the first of the run, or of the line before, and the last
	phase   string
}

// line returns a line of the log when one is due.
func (s *stats) line(m meter, now time.Time) string {
	if s.every <= 0 || m.Phase == "" {
		return ""
	}
	at := sample{now, m.Bytes, m.Moved}
	if len(s.samples) == 0 || s.phase != m.Phase {
		s.samples, s.phase = []sample{at}, m.Phase
		return ""
	}
	if now.Sub(s.samples[0].at) < s.every {
		return ""
	}
	lines := render(m, []sample{s.samples[0], at}, 200)
	s.samples = []sample{at}
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return stamp(now) + " " + strings.Join(lines, ", ")
}

// hide takes the lines off the terminal, so that other text can be written.
func (p *progress) hide() {
	if p == nil || p.drawn == 0 {
		return
	}
	_, _ = io.WriteString(p.w, "\r\x1b[K"+strings.Repeat("\x1b[1A\r\x1b[K", p.drawn-1))
	p.drawn = 0
}

func (p *progress) draw() {
	if p.m.Phase == "" {
		return
	}
	now := p.now()
	if p.m.Phase != p.of.Phase || p.m.TotalBytes != p.of.TotalBytes {
		p.samples = nil // what was there before, and what an earlier phase did, tell nothing of the speed
	}
	p.of = p.m
	p.samples = append(p.samples, sample{now, p.m.Bytes, p.m.Moved})
	for len(p.samples) > 2 && now.Sub(p.samples[0].at) > rateOver {
		p.samples = p.samples[1:]
	}
	lines := render(p.m, p.samples, p.width())
	p.hide()
	_, _ = io.WriteString(p.w, strings.Join(lines, "\n"))
	p.drawn = len(lines)
}

// render returns the lines that show m, none of them wider than width-1: in
// the last column some terminals wrap.
func render(m meter, samples []sample, width int) []string {
	var wire, content float64 // bytes per second
	if n := len(samples); n > 1 {
		if d := samples[n-1].at.Sub(samples[0].at).Seconds(); d > 0.5 {
			wire = float64(samples[n-1].moved-samples[0].moved) / d
			content = float64(samples[n-1].bytes-samples[0].bytes) / d
		}
	}
	first := fmt.Sprintf("%-8s", m.Phase)
	part, whole := m.Bytes, m.TotalBytes
	if whole == 0 {
		part, whole = m.Files, m.TotalFiles
	}
	if whole > 0 {
		done := min(max(float64(part)/float64(whole), 0), 1)
		const cells = 24
		full := int(done * cells)
		first += fmt.Sprintf(" [%s%s] %3.0f %%", strings.Repeat("#", full), strings.Repeat(".", cells-full), done*100)
		if left := float64(m.TotalBytes - m.Bytes); content > 0 && left > 0 {
			first += "  " + took(time.Duration(left/content*float64(time.Second))) + " left"
		}
	}
	if wire > 0 {
		first += "  " + size(int64(wire)) + "/s"
	}
	noun := cmp.Or(m.noun, "file")
	var parts []string
	switch {
	case m.TotalFiles > 0:
		parts = append(parts, group(m.Files)+" of "+count(m.TotalFiles, noun))
	case m.Files > 0:
		parts = append(parts, count(m.Files, noun))
	}
	switch {
	case m.TotalBytes > 0:
		parts = append(parts, size(m.Bytes)+" of "+size(m.TotalBytes))
	case m.Bytes > 0:
		parts = append(parts, size(m.Bytes))
	}
	if m.Moved > 0 || m.Saved > 0 {
		parts = append(parts, size(m.Moved)+" moved", size(m.Saved)+" saved")
	}
	if m.Path != "" {
		parts = append(parts, shown(m.Path))
	}
	lines := []string{first}
	if len(parts) > 0 {
		lines = append(lines, "  "+strings.Join(parts, ", "))
	}
	for i, l := range lines {
		lines[i] = cut(l, width-1)
	}
	return lines
}

// cut shortens a line to at most n characters.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:max(n-1, 0)]) + "…"
}
