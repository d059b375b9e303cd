//go:build linux

package gates

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/wire"
)

// routes returns the calls of the local socket from the contract's description, so that the tests miss none.
func routes(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(filepath.Dir(built.threats), "../internal/api/openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Paths map[string]map[string]any }
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	var all []string
	for path, item := range doc.Paths {
		for method := range item {
			all = append(all, strings.ToUpper(method)+" "+path)
		}
	}
	if len(all) < 25 {
		t.Fatalf("found %q", all)
	}
	slices.Sort(all)
	return all
}

// calls tries every call of the local socket under several accounts.
func (c *cast) calls(t *testing.T) *table {
	socket := filepath.Join(c.w.dir, "data", "core.sock")
	all := routes(t)
	var args []string
	for _, r := range all {
		args = append(args, socket+"="+r)
	}
	if c.w.as == nil {
		found := as(t, nil, "socket", args...)
		for _, r := range all {
			if found[r] != open {
				t.Errorf("%s: %s as the Core's own account", r, found[r])
			}
		}
		return nil
	}
	reader := &account{strangerID, []uint32{alphaGroup}}
	stranger := &account{strangerID, nil}
	x := &table{
		title: "**Calls of the local socket**, by account. A stranger is stopped by the system: the data folder is 0700, the socket 0600. Where somebody has opened both to everybody (last column), the Core asks the system who calls, and sends him away.",
		roles: []string{"the Core's account", "root", "reader of a domain's logs", "another account", "another account, socket and folder open to all"},
	}
	found := []map[string]string{as(t, c.w.as, "socket", args...), as(t, nil, "socket", args...), as(t, reader, "socket", args...), as(t, stranger, "socket", args...)}
	for _, m := range []struct {
		path string
		open fs.FileMode
		shut fs.FileMode
	}{{c.w.dir, 0o755, 0o700}, {filepath.Join(c.w.dir, "data"), 0o755, 0o700}, {socket, 0o666, 0o600}} {
		info, err := os.Stat(m.path)
		if err != nil || info.Mode().Perm() != m.shut {
			t.Errorf("%s: mode %v, want %v: %v", m.path, info.Mode(), m.shut, err)
		}
		if err := os.Chmod(m.path, m.open); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.Chmod(m.path, m.shut); err != nil {
				t.Error(err)
			}
		}()
	}
	found = append(found, as(t, stranger, "socket", args...))
	for _, r := range all {
		var cells []string
		for _, f := range found {
			cells = append(cells, f[r])
		}
		x.add("`"+r+"`", cells...)
	}
	// The metrics address, which is on the network, serves none of these calls.
	for _, r := range all {
		_, path, _ := strings.Cut(r, " ")
		if code, _ := fetch(t, "GET", "http://"+c.w.metrics+path); code != 404 {
			t.Errorf("%s: the metrics' address answers %d", r, code)
		}
	}
	return x
}

// folders tries to read the job logs as members of several groups.
func (c *cast) folders(t *testing.T) *table {
	w := c.w
	for _, p := range []*person{c.rome, c.oslo} {
		p.runOnce(t)
	}
	logs := filepath.Join(w.dir, "logs")
	places := []struct{ name, path string }{
		{"`logs`: what domains there are", logs},
		{"`logs/alpha`", filepath.Join(logs, "alpha")},
		{"a log of rome", w.aLog(filepath.Join(logs, "alpha", "rome"))},
		{"`logs/beta`", filepath.Join(logs, "beta")},
		{"a log of oslo", w.aLog(filepath.Join(logs, "beta", "oslo"))},
		{"`logs/gamma`, which has no readers", filepath.Join(logs, "gamma")},
		{"a log of the Core", w.aLog(filepath.Join(logs, "core"))},
		{"`data`", filepath.Join(w.dir, "data")},
		{"ledger", filepath.Join(w.dir, "data", "ledger.db")},
		{"vault", filepath.Join(w.dir, "data", "vault")},
		{"master key", filepath.Join(w.dir, "data", "master.key")},
		{"root key, as long as nobody has taken it away", filepath.Join(w.dir, "nightferry-root.key")},
	}
	if w.as == nil {
		for _, p := range places {
			if info, err := os.Stat(p.path); err != nil || info.Mode().Perm()&0o006 != 0 {
				t.Errorf("%s: %v, %v", p.name, info.Mode(), err)
			}
		}
		return nil
	}
	// Readers must be able to reach the logs. The Core's own files must deny access by their own mode.
	for _, p := range []string{w.dir, filepath.Join(w.dir, "data")} {
		if err := os.Chmod(p, 0o711); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.Chmod(p, 0o700); err != nil {
				t.Error(err)
			}
		}()
	}
	x := &table{
		title: "**Files at the Core**, by account: who can list or read, and the mode and group that do it. Tried with everything above them open to be passed through, `data` too.",
		roles: []string{"the Core's account", "`log_readers` of alpha", "`log_readers` of beta", "another account", "mode, group"},
		notes: "On Windows the same is done by access lists: full control for SYSTEM, the administrators and the Core's account, read for the domain's group, nothing inherited from above (`TestEachDomainHasItsReaders` and its neighbours in record, on Windows). " +
			"root and administrators read everything.",
	}
	groups := map[uint32]string{coreID: "the Core's", alphaGroup: "readers of alpha", betaGroup: "readers of beta"}
	var paths []string
	for _, p := range places {
		paths = append(paths, p.path)
	}
	found := []map[string]string{
		as(t, w.as, "read", paths...), as(t, &account{strangerID, []uint32{alphaGroup}}, "read", paths...),
		as(t, &account{strangerID, []uint32{betaGroup}}, "read", paths...), as(t, &account{strangerID, nil}, "read", paths...),
	}
	for _, p := range places {
		var cells []string
		for _, f := range found {
			cells = append(cells, f[p.path])
		}
		info, err := os.Stat(p.path)
		if err != nil {
			t.Fatal(err)
		}
		mode := fmt.Sprintf("%v, %s", info.Mode(), groups[groupOf(info)])
		if p.path == filepath.Join(w.dir, "data") {
			mode = "drwx------ (opened to be passed, here)"
		}
		x.add(p.name, append(cells, mode)...)
	}
	return x
}

// runOnce reports a failed run, so that the Core writes a log, and waits for the acknowledgement.
func (p *person) runOnce(t *testing.T) {
	t.Helper()
	st := p.hello()
	if len(st.Desired) != 1 {
		t.Fatalf("%s should hold %d channels", p.at, len(st.Desired))
	}
	d := st.Desired[0]
	run := []byte("run of " + p.at.Site + "........")[:16]
	event := func(kind wire.EventKind, v any) wire.Event {
		body, err := wire.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		return wire.Event{Run: run, Channel: d.Channel, At: time.Now().UnixMilli(), Kind: kind, Body: body}
	}
	// A new generation, so that the sequence numbers of earlier reports do not matter.
	p.say(wire.VerbReport, p.sign(p.key, p.at, wire.VerbReport, &wire.Report{Generation: []byte("the second gener"), First: 1, Events: []wire.Event{
		event(wire.StartedEvent, &wire.Started{Number: d.Number, Release: d.Release}),
		event(wire.FinishedEvent, &wire.Finished{Verdict: "failed", Error: "this is a test"}),
	}}))
	var ack wire.Ack
	var no wire.Refusal
	if p.answer(map[string]any{wire.VerbAck: &ack, wire.VerbRefuse: &no}) == wire.VerbRefuse {
		t.Fatalf("%s: the report is refused: %s", p.at, no.Why)
	}
}

// aLog waits for a log in a folder and returns its path.
func (w *world) aLog(dir string) string {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for {
		found := ""
		_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error { // folders appear and disappear meanwhile
			if strings.HasSuffix(path, ".jsonl") {
				found = path
			}
			return nil
		})
		if found != "" {
			return found
		}
		select {
		case <-tick.C:
		case <-limit:
			w.t.Fatalf("no log came below %s\n%s", dir, w.out)
		}
	}
}
