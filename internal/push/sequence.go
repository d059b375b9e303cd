package push

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"nightferry/internal/chunk"
	"nightferry/internal/manifest"
	"nightferry/internal/scan"
)

// errSource marks errors of the source, as opposed to errors of the store.
var errSource = errors.New("read the source")

// tasks walks the source, reuses the entries of unchanged files, and queues the others: many small files per task, or
// one large file.
func (p *push) tasks(ctx context.Context, queue chan<- *task) error {
	c, based, err := p.openCache()
	if err != nil {
		return err
	}
	if c != nil {
		defer c.Close()
	}
	old := cache{r: c, based: based, o: &p.o}
	if p.pages != nil {
		old.head = p.r.Entries(p.rel, p.pages)
	}
	m := &taskMaker{p: p, queue: queue, readers: make(chan *reader, cap(queue)+2), old: &old}
	if err := p.walk(ctx, func(it scan.Item) error { return m.add(ctx, it) }); err != nil {
		return err
	}
	return m.send(ctx)
}

// taskMaker collects the entries of the walk into tasks and starts a reader for each.
type taskMaker struct {
	p       *push
	queue   chan<- *task
	readers chan *reader // idle ones
	old     *cache
	task    *task // the one being filled; nil: none
}

// add adds an entry of the walk.
func (m *taskMaker) add(ctx context.Context, it scan.Item) error {
	p := m.p
	if p.vanished(it.Err) {
		return nil
	}
	if it.Err != nil {
		return sourceError(&fs.PathError{Op: "read", Path: it.Path, Err: it.Err})
	}
	if it.Mount {
		p.mounts = append(p.mounts, it.Path)
	}
	if it.Kind == scan.Link || it.Kind == scan.Special {
		if p.o.Links == Refuse {
			return sourceError(&fs.PathError{Op: "read", Path: it.Path, Err: fmt.Errorf("it became a %s", it.Kind)})
		}
		p.event(Event{Path: it.Path, Outcome: Skipped, Cause: it.Kind.String()})
		return nil
	}
	next, err := p.item(m.old, it)
	if err != nil {
		return err
	}
	var size int64
	if !next.ready {
		size = it.Stat.Size
	}
	if t := m.task; t != nil && (t.bytes+size > taskBytes || len(t.items) >= maxTaskItems) {
		if err := m.send(ctx); err != nil {
			return err
		}
	}
	if m.task == nil {
		m.task = &task{}
	}
	m.task.items = append(m.task.items, next)
	m.task.bytes += size
	return nil
}

// send queues the task, if there is one, and starts its reader.
func (m *taskMaker) send(ctx context.Context) error {
	t := m.task
	if t == nil {
		return nil
	}
	m.task = nil
	t.groups = make(chan *group, 1)
	select {
	case m.queue <- t:
	case <-ctx.Done():
		return ctx.Err()
	}
	m.p.crew.Go(func() error { return m.read(ctx, t) })
	return nil
}

// read reads a task with an idle reader, or with a new one.
func (m *taskMaker) read(ctx context.Context, t *task) (err error) {
	defer close(t.groups)
	if t.bytes == 0 && allReady(t.items) {
		return nil
	}
	var r *reader
	select {
	case r = <-m.readers:
	default:
		if r, err = newReader(m.p.r.Params()); err != nil {
			return err
		}
	}
	t.err = m.p.read(ctx, t, r)
	m.readers <- r
	if t.err != nil && ctx.Err() == nil {
		return sourceError(t.err)
	}
	return t.err
}

func allReady(items []*item) bool {
	for _, it := range items {
		if !it.ready {
			return false
		}
	}
	return true
}

func sourceError(err error) error { return fmt.Errorf("%w: %w", errSource, err) }

// item decides whether a path must be read.
func (p *push) item(old *cache, it scan.Item) (_ *item, err error) {
	n := &item{path: it.Path, stat: it.Stat}
	var same *scan.Record
	if n.old, same, err = old.find(it); err != nil {
		return nil, err
	}
	if it.Kind == scan.Dir {
		n.ready = true
		n.entry = manifest.Entry{Path: it.Path, Kind: manifest.Dir, Mode: mode(it.Stat, true)}
		return n, nil
	}
	if same != nil && !p.o.Rehash {
		e, err := same.Entry()
		if err != nil {
			return nil, err
		}
		n.ready = old.based
		if !n.ready {
			if n.ready, err = p.held(e); err != nil {
				return nil, err
			}
		}
		n.entry, n.checked = *e, same.Checked
	}
	return n, nil
}

// sequencer handles the tasks' results in path order. It collects blocks into packs, items into entries, and entries
// into pages.
type sequencer struct {
	p     *push
	tally *tally // of the new release, beside the previous one
	cat   *scan.CatalogueWriter
	pages manifest.PageBuilder
	check manifest.Checker
	refs  []manifest.PageRef
	start time.Time

	added, changed, touched int64
}

func (p *push) newSequencer(t *tally, cat *scan.CatalogueWriter) *sequencer {
	s := &sequencer{p: p, tally: t, cat: cat, check: manifest.Checker{Portable: !p.o.AllowUnportable}, start: p.r.StoreTime()}
	s.pages.Emit = func(page []byte, first string, entries int) error {
		id, err := p.store.page(page)
		s.refs = append(s.refs, manifest.PageRef{ID: id, Entries: int64(entries), First: first})
		return err
	}
	return s
}

func (s *sequencer) run(ctx context.Context, queue <-chan *task) error {
	for {
		select {
		case t, ok := <-queue:
			if !ok {
				return ctx.Err()
			}
			if err := s.task(ctx, t); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *sequencer) task(ctx context.Context, t *task) error {
	for g := range t.groups {
		select {
		case <-g.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.group(g); err != nil {
			return err
		}
		s.p.progress("store", false)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if t.err != nil {
		return sourceError(t.err)
	}
	for _, it := range t.items {
		if it.gone {
			continue
		}
		if err := s.item(it); err != nil {
			return err
		}
	}
	s.p.progress("store", false)
	return nil
}

func (s *sequencer) group(g *group) error {
	if g.err != nil {
		return g.err
	}
	for i := range g.pieces {
		pc := &g.pieces[i]
		if pc.reset {
			pc.it.refs = nil
			continue
		}
		pc.it.refs = chunk.Append(pc.it.refs, pc.ref)
	}
	if len(g.block.Chunks) == 0 {
		return nil
	}
	s.p.count(func(c *Progress) { c.New += int64(g.block.Raw) })
	if err := s.p.store.block(g.block); err != nil {
		return err
	}
	s.p.payloads.Put(g.block.Payload[:0]) //nolint:staticcheck // a slice header is small beside a MiB
	return nil
}

func (s *sequencer) item(it *item) error {
	if err := s.p.finish(it); err != nil {
		return err
	}
	e := &it.entry
	if _, err := s.tally.meet(e.Path, e.Kind); err != nil {
		return err
	}
	if err := s.check.Add(e); err != nil {
		return err
	}
	if err := s.pages.Add(*e); err != nil {
		return err
	}
	rec := scan.NewRecord(e, it.stat, it.checked)
	if s.racy(it) {
		rec.Stat = scan.Stat{}
	}
	if err := s.cat.Add(rec); err != nil {
		return err
	}
	s.p.count(func(c *Progress) {
		if e.Kind == manifest.File {
			c.Files++
		}
	})
	return s.report(it)
}

// racyWindow is the age below which another change could get the same time stamp. The coarsest file system clock is
// FAT's, with two seconds.
const racyWindow = 2 * time.Second

// racy reports whether the file was so young when it was read that its stat proves nothing. The next push reads it
// again.
func (s *sequencer) racy(it *item) bool {
	if it.entry.Kind == manifest.Dir || it.ready {
		return false
	}
	newest := max(it.stat.MTime, it.stat.CTime)
	if s.p.o.IgnoreInode {
		newest = it.stat.MTime
	}
	return newest > time.Unix(it.checked, 0).Add(-racyWindow).UnixNano()
}

func (s *sequencer) report(it *item) error {
	e := &it.entry
	ev := Event{Path: e.Path, Size: e.Size, Digest: e.Digest}
	if it.reread {
		s.p.event(Event{Path: e.Path, Outcome: Reread, Size: e.Size})
	}
	switch {
	case it.old == nil:
		ev.Outcome = Added
		s.added++
	case !it.old.SameContent(e):
		ev.Outcome = Changed
		s.changed++
	case it.old.MTime != e.MTime || it.old.Mode != e.Mode:
		ev.Outcome = Touched
		s.touched++
	default:
		return nil
	}
	s.p.event(ev)
	return nil
}

// end writes the last page and applies the guards again: files from the survey may have been removed or unmounted
// since.
func (s *sequencer) end() error {
	if err := s.tally.rest(); err != nil {
		return err
	}
	s.tally.mounts = s.p.mounts
	if err := s.p.guard(&s.tally.survey); err != nil {
		return err
	}
	for _, path := range s.tally.removed {
		s.p.event(Event{Path: path, Outcome: Removed})
	}
	return s.pages.Finish()
}

func (s *sequencer) result(skipped int64) (*Result, *manifest.Release) {
	totals, tree := s.check.Sum()
	p := s.p
	rel := &manifest.Release{Channel: p.o.Channel, Created: s.start.Unix(), Portable: !p.o.AllowUnportable, Totals: totals, Tree: tree, Pages: s.refs}
	p.mu.Lock()
	defer p.mu.Unlock()
	return &Result{DryRun: p.o.DryRun, Totals: totals, Tree: tree, Added: s.added, Changed: s.changed, Touched: s.touched,
		Removed: int64(len(s.tally.removed)), Skipped: skipped, Read: p.state.Read, New: p.state.New, Sent: p.state.Sent, Packs: p.packs}, rel
}
