package core_test

import (
	"cmp"
	"database/sql"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/collect"
	"nightferry/internal/durable"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

// usage is the memory and storage of a fleet.
type usage struct {
	heap       uint64 // bytes after a collection
	goroutines int
	rows       map[string]int // by table of the ledger
	file       int64          // bytes of the ledger's database
	objects    int            // in the bucket
}

// The bounds of a fleet of three sites with a run in each turn, retained for 30 days and the audit for 90.
const (
	maxHeapGrowth      = 8 << 20
	maxGoroutineGrowth = 12
	maxLedgerFile      = 3 << 19
	maxObjects         = 30
	maxTableRows       = 120 // of each table that maxRows does not name
)

var maxRows = map[string]int{
	"audit": 900, // of 90 days: each enrolment, restart, purge and look at the vault
}

// measure returns the present usage. The test's own records are dropped first.
func (a *ageing) measure() (u usage) {
	a.t.Helper()
	a.mu.Lock()
	a.events = nil
	a.log = strings.Builder{}
	a.mu.Unlock()
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.heap, u.goroutines, u.rows = m.HeapAlloc, countGoroutines(), a.countRows()
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(a.ledgerFile() + suffix); err == nil {
			u.file += info.Size()
		}
	}
	if err := a.store.List(a.t.Context(), "", func(bucket.Info) error { u.objects++; return nil }); err != nil {
		a.t.Fatal(err)
	}
	return u
}

// countGoroutines counts all but those of pooled HTTP connections, which end when they have been idle for long.
func countGoroutines() (n int) {
	stacks := make([]byte, 4<<20)
	for g := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if !strings.Contains(g, "net/http.(*persistConn)") && !strings.Contains(g, "net/http.(*conn)") {
			n++
		}
	}
	return n
}

func (a *ageing) ledgerFile() string { return filepath.Join(a.options.Data, "ledger.db") }

// countRows counts the rows of every table that the ledger's schema has.
func (a *ageing) countRows() map[string]int {
	a.t.Helper()
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: filepath.ToSlash(a.ledgerFile())}).EscapedPath()+"?mode=ro")
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var names string
	if err := db.QueryRowContext(a.t.Context(), "SELECT group_concat(name) FROM sqlite_schema WHERE type = 'table'").Scan(&names); err != nil {
		a.t.Fatal(err)
	}
	rows := map[string]int{}
	for _, name := range strings.Split(names, ",") {
		var n int
		if err := db.QueryRowContext(a.t.Context(), `SELECT count(*) FROM "`+name+`"`).Scan(&n); err != nil {
			a.t.Fatal(err)
		}
		rows[name] = n
	}
	if rows["meta"] != 1 {
		a.t.Fatalf("tables: %v", rows)
	}
	return rows
}

// checkUsage compares the usage with that after 50 days, and with the bounds.
func (a *ageing) checkUsage(turn int) {
	a.t.Helper()
	now := a.measure()
	for end := time.Now().Add(patience); time.Now().Before(end) && (now.heap > a.report.heap+maxHeapGrowth || now.goroutines > a.report.goroutines+maxGoroutineGrowth); {
		now = a.measure() // connections that have just ended
	}
	a.t.Logf("day %d: heap %d KiB (day 50: %d), %d goroutines (%d), ledger %d KiB (%d), %d objects (%d), rows %v", 2*turn+2, now.heap>>10, a.report.heap>>10, now.goroutines, a.report.goroutines,
		now.file>>10, a.report.file>>10, now.objects, a.report.objects, now.rows)
	if now.heap > a.report.heap+maxHeapGrowth {
		a.t.Errorf("the heap is %d bytes, after 50 days it was %d", now.heap, a.report.heap)
	}
	if now.goroutines > a.report.goroutines+maxGoroutineGrowth {
		a.t.Errorf("%d goroutines, after 50 days %d", now.goroutines, a.report.goroutines)
	}
	if now.file > maxLedgerFile {
		a.t.Errorf("the ledger's file has %d bytes", now.file)
	}
	if now.objects > maxObjects {
		a.t.Errorf("%d objects are stored", now.objects)
	}
	for table, n := range now.rows {
		if n > cmp.Or(maxRows[table], maxTableRows) {
			a.t.Errorf("table %s has %d rows", table, n)
		}
	}
}

// collect runs gc as the command does, with what the Core says is held, and compares what is left with what sites
// reported.
func (a *ageing) collect() {
	a.t.Helper()
	ctx := a.t.Context()
	held, err := a.core.Upkeep.Held(ctx)
	if err != nil {
		a.t.Fatal(err)
	}
	o := collect.Options{Keep: 1, Key: a.release, Hold: map[string][]trust.ReleaseNumber{}}
	for channel, of := range held {
		for n := range of {
			o.Hold[channel] = append(o.Hold[channel], n)
		}
	}
	s := a.options.Ahead(a.store)
	r, err := repo.Open(ctx, s, repo.Options{Now: a.right})
	if err != nil {
		a.t.Fatal(err)
	}
	dir, err := durable.Open(a.t.TempDir(), durable.Options{})
	if err != nil {
		a.t.Fatal(err)
	}
	defer dir.Close()
	if rep, err := collect.GC(ctx, r, r.Segments(dir), o); err != nil || rep.Lost > 0 {
		a.t.Fatal(rep, err)
	}
	want := a.rel.Number - min(a.rel.Number-1, ageingKeep-1)
	for name, n := range a.held {
		if since, ok := a.silent[name]; !ok || time.Duration(a.ahead.Load())-since < 30*ageingDay {
			want = min(want, n)
		}
	}
	stored, _, err := r.Stored(ctx)
	if err != nil {
		a.t.Fatal(err)
	}
	for _, ch := range stored {
		if ch.Scope != "package" {
			continue
		}
		var got []trust.ReleaseNumber
		for _, rel := range ch.Releases {
			got = append(got, rel.Number)
		}
		slices.Sort(got)
		if len(got) == 0 || got[0] != want || len(got) != int(a.rel.Number-want)+1 {
			a.t.Errorf("day %d: gc left the releases %v, want %d and newer; held: %v", a.ahead.Load()/int64(ageingDay), got, want, held)
		}
	}
}

// aheadToSites makes the store's clock show the test's time to sites. The Core's requests have credentials: its client
// would sign by that clock.
func (w *world) aheadToSites(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			rw = &datedWriter{rw, w}
		}
		next.ServeHTTP(rw, r)
	})
}

type datedWriter struct {
	http.ResponseWriter
	w *world
}

func (d *datedWriter) WriteHeader(code int) {
	d.Header().Set("Date", d.w.right().UTC().Format(http.TimeFormat))
	d.ResponseWriter.WriteHeader(code)
}

func (d *datedWriter) Unwrap() http.ResponseWriter { return d.ResponseWriter }
