package push

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"nightferry/internal/chunk"
	"nightferry/internal/clock"
	"nightferry/internal/manifest"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
)

// errSource marks errors of the source, as opposed to errors of the store.
var errSource = errors.New("read the source")

// queueTasks walks the source, reuses the entries of unchanged files, and queues the others: many small files per task, or
// one large file.
func (p *push) queueTasks(ctx context.Context, queue chan<- *task) error {
	c, based, err := p.openCache()
	if err != nil {
		return err
	}
	if c != nil {
		defer c.Close()
	}
	old := cache{r: c, based: based, o: &p.o}
	if p.pages != nil {
		old.head = p.r.Manifests(p.pages).Entries(p.rel)
	}
	m := &taskMaker{p: p, queue: queue, readers: make(chan *reader, cap(queue)+2), old: &old}
	if err := p.walkSource(ctx, func(it scan.Item) error { return m.add(ctx, it) }); err != nil {
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
	if p.hasVanished(it.Err) {
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
		p.emitEvent(Event{Path: it.Path, Outcome: runs.FileSkipped, Cause: it.Kind.String()})
		return nil
	}
	next, err := p.decideItem(m.old, it)
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
	t.err = m.p.readTask(ctx, t, r)
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

// decideItem decides whether a path must be read.
func (p *push) decideItem(old *cache, it scan.Item) (_ *item, err error) {
	n := &item{path: it.Path, stat: it.Stat}
	var same *scan.Record
	if n.old, same, err = old.findPath(it); err != nil {
		return nil, err
	}
	if it.Kind == scan.Dir {
		n.ready = true
		n.entry = manifest.Entry{Path: it.Path, Kind: manifest.Dir, Mode: entryMode(it.Stat, true)}
		return n, nil
	}
	if same != nil && !p.o.Rehash {
		e, err := same.Entry()
		if err != nil {
			return nil, err
		}
		n.ready = old.based
		if !n.ready {
			if n.ready, err = p.chunksHeld(e); err != nil {
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
	start clock.Store

	added, changed, touched int64
}

func (p *push) newSequencer(t *tally, cat *scan.CatalogueWriter) *sequencer {
	s := &sequencer{p: p, tally: t, cat: cat, check: manifest.Checker{Portable: !p.o.AllowUnportable}, start: p.r.StoreTime()}
	s.pages.Emit = func(page []byte, first string, entries int) error {
		id, err := p.store.addPage(page)
		s.refs = append(s.refs, manifest.PageRef{ID: id, Entries: int64(entries), First: first})
		return err
	}
	return s
}

func (s *sequencer) runQueue(ctx context.Context, queue <-chan *task) error {
	for {
		select {
		case t, ok := <-queue:
			if !ok {
				return ctx.Err()
			}
			if err := s.writeTask(ctx, t); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *sequencer) writeTask(ctx context.Context, t *task) error {
	for g := range t.groups {
		select {
		case <-g.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.storeGroup(g); err != nil {
			return err
		}
		s.p.reportProgress("store", false)
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
		if err := s.writeItem(it); err != nil {
			return err
		}
	}
	s.p.reportProgress("store", false)
	return nil
}

func (s *sequencer) storeGroup(g *group) error {
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
	s.p.updateProgress(func(c *Progress) { c.New += int64(g.block.Raw) })
	if err := s.p.store.addBlock(g.block); err != nil {
		return err
	}
	s.p.payloads.Put(g.block.Payload[:0]) //nolint:staticcheck // a slice header is small beside a MiB
	return nil
}

func (s *sequencer) writeItem(it *item) error {
	if err := s.p.finishItem(it); err != nil {
		return err
	}
	e := &it.entry
	if _, err := s.tally.countPath(e.Path, e.Kind); err != nil {
		return err
	}
	if err := s.check.Add(e); err != nil {
		return err
	}
	if err := s.pages.Add(*e); err != nil {
		return err
	}
	rec := scan.NewRecord(e, it.stat, it.checked)
	if s.isRacy(it) {
		rec.Stat = scan.Stat{}
	}
	if err := s.cat.Add(rec); err != nil {
		return err
	}
	s.p.updateProgress(func(c *Progress) {
		if e.Kind == manifest.File {
			c.Files++
		}
	})
	return s.reportItem(it)
}

// racyWindow is the age below which another change could get the same time stamp. The coarsest file system clock is
// FAT's, with two seconds.
const racyWindow = 2 * time.Second

// isRacy reports whether the file was so young when it was read that its stat proves nothing. The next push reads it
// again.
func (s *sequencer) isRacy(it *item) bool {
	if it.entry.Kind == manifest.Dir || it.ready {
		return false
	}
	newest := max(it.stat.MTime, it.stat.CTime)
	if s.p.o.IgnoreInode {
		newest = it.stat.MTime
	}
	return newest > time.Unix(it.checked, 0).Add(-racyWindow).UnixNano()
}

func (s *sequencer) reportItem(it *item) error {
	e := &it.entry
	ev := Event{Path: e.Path, Outcome: runs.FileUnchanged, Size: e.Size, Digest: e.Digest}
	if it.reread {
		ev.Cause = "it changed while it was read, and was read again"
	}
	switch {
	case it.old == nil:
		ev.Outcome = runs.FileAdded
		s.added++
	case !it.old.SameContent(e):
		ev.Outcome = runs.FileChanged
		s.changed++
	case it.old.MTime != e.MTime || it.old.Mode != e.Mode:
		ev.Outcome = runs.FileTouched
		s.touched++
	case ev.Cause == "":
		return nil
	}
	s.p.emitEvent(ev)
	return nil
}

// endPages writes the last page and applies the guards again: files from the survey may have been removed or unmounted
// since.
func (s *sequencer) endPages() error {
	if err := s.tally.countRest(); err != nil {
		return err
	}
	s.tally.mounts = s.p.mounts
	if err := s.p.applyGuards(&s.tally.survey); err != nil {
		return err
	}
	for _, path := range s.tally.removed {
		s.p.emitEvent(Event{Path: path, Outcome: runs.FileRemoved})
	}
	return s.pages.Finish()
}

func (s *sequencer) buildRelease(skipped int64) (*Result, *manifest.Release) {
	totals, tree := s.check.Sum()
	p := s.p
	rel := &manifest.Release{Channel: p.o.Channel, Created: s.start.Unix(), Portable: !p.o.AllowUnportable, Totals: totals, Tree: tree, Pages: s.refs}
	p.mu.Lock()
	defer p.mu.Unlock()
	return &Result{DryRun: p.o.DryRun, Totals: totals, Tree: tree, Added: s.added, Changed: s.changed, Touched: s.touched,
		Removed: int64(len(s.tally.removed)), Skipped: skipped, Read: p.state.Read, New: p.state.New, Sent: p.state.Sent, Packs: p.packs}, rel
}
