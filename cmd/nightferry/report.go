package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"nightferry/internal/api"
	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/halt"
	"nightferry/internal/push"
	"nightferry/internal/repo"
)

// env is what one run of the program was given, and how it answers: data and
// events to stdout, warnings and errors to stderr.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	now            func() time.Time
	json, quiet    bool
	stateDir       string

	store       string // the URL of the store that was opened, for errors
	verb        string // nightferry push; for errors
	started     bool   // a verb has begun: what fails now is no usage error
	onInterrupt string // the remedy after a signal
	act         string // what it is about, for errors: push "/srv/packages"

	mu       sync.Mutex    // of all output
	writeErr error         // the first failed write to stdout
	bulk     *bufio.Writer // set while a long list is written
	progress *progress
	stats    stats
	// followed is when a site's channel was told of last.
	followed map[string]time.Time
	// lastRetry is what was said last of something tried again.
	lastRetry string
}

// print writes a line of the answer: what the user asked for.
func (e *env) print(format string, args ...any) {
	e.write(fmt.Sprintf(format, args...) + "\n")
}

// summary writes the closing line of a run, unless it is to be quiet.
func (e *env) summary(format string, args ...any) {
	if !e.json && !e.quiet {
		e.print(format, args...)
	}
}

func (e *env) write(s string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.progress.hide()
	w := e.stdout
	if e.bulk != nil {
		w = e.bulk
	}
	if _, err := io.WriteString(w, s); err != nil && e.writeErr == nil {
		e.writeErr = err
	}
}

// long collects what is printed into large writes until the list that follows
// is complete and the returned function is called.
func (e *env) long() (end func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bulk = bufio.NewWriterSize(e.stdout, 64<<10)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if err := e.bulk.Flush(); err != nil && e.writeErr == nil {
			e.writeErr = err
		}
		e.bulk = nil
	}
}

// event writes one line of JSON: v's own members, after the event's kind and
// the time. It writes nothing unless --json is set.
func (e *env) event(kind string, v any) {
	if !e.json {
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		// Only a value that JSON cannot hold, which would be a mistake here.
		b, _ = json.Marshal(map[string]string{"broken": err.Error()})
	}
	line := fmt.Appendf(nil, `{"event":%q,"time":%q`, kind, e.now().UTC().Format(time.RFC3339Nano))
	if len(b) > 2 {
		line = append(append(line, ','), b[1:]...)
	} else {
		line = append(line, '}')
	}
	e.write(string(escapeJSON(line)) + "\n")
}

// escapeJSON escapes what encoding/json leaves as it is although a terminal
// would obey it or show it as something else. Such runes can stand only inside
// of strings.
func escapeJSON(b []byte) []byte {
	if !bytes.ContainsFunc(b, unsafeRune) {
		return b
	}
	var out []byte
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case !unsafeRune(r) || n == 1 && r == utf8.RuneError:
			out = append(out, b[:n]...)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		b = b[n:]
	}
	return out
}

// warn tells a person something that does not end the run.
func (e *env) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if e.json {
		e.event("warning", struct {
			Message string `json:"message"`
		}{text})
		return
	}
	if !e.quiet {
		e.complain("nightferry: " + text)
	}
}

// complain writes lines to stderr.
func (e *env) complain(text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.progress.hide()
	_, _ = io.WriteString(e.stderr, shownLines(text)+"\n") // where would one complain about this?
}

// fail reports the error that ends the run.
func (e *env) fail(err error, code int) {
	text, remedy := e.explain(err)
	if remedy == "" && code == exitUsage {
		remedy = "see " + e.verb + " --help"
	}
	name := ""
	for _, x := range exits() {
		if x.code == code {
			name, remedy = x.name, cmp.Or(remedy, x.remedy)
		}
	}
	if e.json {
		e.event("error", struct {
			Act     string   `json:"act,omitempty"`
			Message string   `json:"message"`
			Remedy  string   `json:"remedy,omitempty"`
			Code    int      `json:"code"`
			Name    string   `json:"name"`
			Paths   []string `json:"paths,omitempty"`
		}{e.act, text, remedy, code, name, pathsOf(err)})
	}
	if e.json && as[*foundError](err) || e.quiet && as[*foundError](err) {
		return // the findings and the exit code say it
	}
	var b strings.Builder
	b.WriteString("nightferry: ")
	if e.act != "" {
		b.WriteString(e.act + ": ")
	}
	b.WriteString(text)
	for i, p := range pathsOf(err) {
		if i == maxListed {
			fmt.Fprintf(&b, "\n  … and %s more: --json lists them all", group(int64(len(pathsOf(err))-i)))
			break
		}
		b.WriteString("\n  " + shown(p))
	}
	if remedy != "" {
		b.WriteString("\nremedy: " + remedy)
	}
	e.complain(b.String())
}

// maxListed bounds the paths that an error lists for a person.
const maxListed = 1000

// explain is explain of an error that may come from the store, which it names
// unless the act does, and whose remedy may depend on the verb.
func (e *env) explain(err error) (text, remedy string) {
	text, remedy = explain(err)
	store := shownStore(e.store)
	var b *bucket.Error
	var halted *halt.Error
	if e.store != "" && !strings.Contains(e.act, store) && errors.As(err, &b) && b.Op != "open" {
		text = store + ": " + text
	}
	switch {
	case remedy != "":
	case errors.Is(err, repo.ErrNoRepository):
		remedy = "check the prefix in the store's URL"
		if !strings.HasPrefix(e.act, "pull ") && !strings.HasPrefix(e.act, "verify ") {
			remedy += "; who owns the content makes a repository with nightferry init"
		}
	case errors.Is(err, repo.ErrNoRelease):
		if at := strings.Index(text, repo.ErrNoRelease.Error()); at >= 0 {
			text = text[:at+len(repo.ErrNoRelease.Error())] // an object's key helps nobody here
		}
		remedy = "nightferry releases STORE lists the channels that have one"
	case errors.As(err, &halted):
		remedy = fmt.Sprintf("nightferry halt status STORE shows the order; nightferry resume %s --release-key FILE STORE lifts it", halted.Order.ID.Short())
	case as[*apply.NoReleaseError](err):
		remedy = "nightferry releases STORE CHANNEL lists them"
	}
	return text, remedy
}

// explain splits an error into what happened and what to do about it.
func explain(err error) (text, remedy string) {
	text = err.Error()
	if g, of := guardOf(err); g != nil {
		return of + g.Why + ": nothing was published", "" // its paths are listed apart
	}
	var r interface{ Remedy() string }
	if errors.As(err, &r) {
		remedy = r.Remedy()
	}
	var b *bucket.Error
	if remedy == "" && errors.As(err, &b) && b.Hint != "" {
		if short, ok := strings.CutSuffix(text, ": "+b.Hint); ok {
			return short, b.Hint
		}
	}
	return text, remedy
}

// guardOf returns the guard that an error is of, and what the error says before
// it; nil where it says more after it, or there is none.
func guardOf(err error) (g *push.GuardError, before string) {
	if !errors.As(err, &g) {
		return nil, ""
	}
	before, last := strings.CutSuffix(err.Error(), g.Error())
	if !last || strings.Contains(before, "\n") {
		return nil, "" // there are more reasons than this one
	}
	return g, before
}

// pathsOf returns the paths that an error is about, where it lists some, here
// or as the Core tells.
func pathsOf(err error) []string {
	if g, _ := guardOf(err); g != nil {
		return g.Paths
	}
	var told *api.Error
	if errors.As(err, &told) {
		return told.Paths
	}
	return nil
}
