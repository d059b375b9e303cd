package apply

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/scan"
)

func appendInt(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }

// planner merges three streams in path order: the entries on disk, the catalogue's records and the release's
// entries. It collects the changes to make. It holds one item of each stream at a time.
type planner struct {
	target  *targetDir
	report  *reporter
	cat     *records
	entries manifest.Next
	entry   *manifest.Entry // the next one, nil at the end
	ordinal uint32          // of entry
	changes []change

	blocked   string // no change is possible below this path, because of blockedBy
	blockedBy error
	clearing  int32 // the change whose file replaces the folder at clearPath; -1: none
	clearPath string
	oldLists  []digest.Digest // chunk-list pages of the catalogued files at changed paths
	ignored   string          // the site's own folder that an ignore pattern matches
	extras    []scan.Item     // not reported yet; used only if the file system ignores case
}

// foreseen limits the preallocated changes, because a release's totals are only a claim.
const foreseen = 2 << 20

// plan walks the target once. totals are those of the release.
func (s *site) plan(ctx context.Context, entries manifest.Next, totals manifest.Totals) ([]change, []digest.Digest, error) {
	cat, err := s.target.openRecords(catalogueName)
	if err != nil {
		return nil, nil, err
	}
	defer cat.close()
	p := &planner{target: s.target, report: s.report, cat: cat, entries: entries, clearing: -1}
	if cat.r == nil {
		// A first pull: growing the slice would copy the list and use twice its memory.
		p.changes = make([]change, 0, min(totals.Files+totals.Dirs, foreseen))
	}
	if p.entry, err = entries(); err != nil {
		return nil, nil, err
	}
	s.report.res.Unchanged = 0
	err = s.target.walk(ctx, func(it scan.Item) error { return p.meet(&it) })
	if err == nil {
		err = p.meet(nil)
	}
	p.emitExtras()
	return p.changes, p.oldLists, err
}

// walk streams the target's entries, except nightferry's own folder.
func (t *targetDir) walk(ctx context.Context, fn func(scan.Item) error) error {
	return scan.Walk(ctx, t.root.Dir(), scan.WalkOptions{Skip: func(path string, _ bool) bool {
		return len(path) == len(stateDir) && strings.EqualFold(path, stateDir)
	}}, fn)
}

// meet handles every path up to and including the item's; a nil item means the end.
func (p *planner) meet(w *scan.Item) error {
	for {
		c, err := p.cat.peek()
		if err != nil {
			return err
		}
		first, any := "", false
		if c != nil {
			first, any = c.Path, true
		}
		if m := p.entry; m != nil && (!any || scan.Less(m.Path, first)) {
			first, any = m.Path, true
		}
		if w != nil && (!any || scan.Compare(w.Path, first) <= 0) {
			first = w.Path
		} else if !any {
			return nil
		}
		var wi *scan.Item
		if w != nil && w.Path == first {
			wi = w
		}
		if c != nil && c.Path != first {
			c = nil
		}
		m := p.entry
		if m != nil && m.Path != first {
			m = nil
		}
		if err := p.path(first, wi, c, m); err != nil {
			return err
		}
		if c != nil {
			p.cat.pop()
		}
		if m != nil {
			if p.entry, err = p.entries(); err != nil {
				return err
			}
			p.ordinal++
		}
		if wi != nil {
			return nil
		}
	}
}

// path decides about one path. An argument is nil if its stream does not have the path.
func (p *planner) path(path string, w *scan.Item, c *scan.Record, m *manifest.Entry) error {
	if p.clearing >= 0 && !below(p.clearPath, path) {
		p.clearing = -1
	}
	if p.blocked != "" && !below(p.blocked, path) {
		p.blocked, p.blockedBy = "", nil
	}
	if p.blocked != "" {
		switch {
		case m != nil:
			p.fail(m, c != nil, p.blockedBy)
		case c != nil:
			p.stays(c, p.blockedBy)
		}
		return nil
	}
	var was *manifest.Entry
	if c != nil {
		var err error
		if was, err = c.Entry(); err != nil {
			return err
		}
	}
	before := len(p.changes)
	defer func() {
		if was != nil && len(p.changes) > before {
			for _, l := range was.Lists {
				p.oldLists = append(p.oldLists, l.ID)
			}
		}
	}()
	switch {
	case m == nil && was == nil:
		p.extra(w)
	case m == nil:
		p.gone(w, c, was)
	case m.Kind == manifest.Dir:
		p.folder(w, c, was, m)
	default:
		p.file(w, c, was, m)
	}
	return nil
}

func (p *planner) add(c change) *change {
	c.from, c.to, c.makesWay = -1, -1, p.clearing
	if p.entry != nil && p.entry.Path == c.path {
		c.entry = p.ordinal + 1
	}
	p.changes = append(p.changes, c)
	return &p.changes[len(p.changes)-1]
}

func newChange(a act, m *manifest.Entry, out Outcome) change {
	c := change{path: m.Path, act: a, out: out, digest: m.Digest, size: m.Size, mtime: m.MTime, mode: m.SiteMode()}
	if len(m.Chunks)+len(m.Lists) > 0 {
		c.parts = &parts{chunks: m.Chunks, lists: m.Lists}
	}
	return c
}

// fail records that the release's entry cannot be put in place.
func (p *planner) fail(m *manifest.Entry, owned bool, cause error) {
	c := newChange(actPlace, m, Failed)
	if m.Kind == manifest.Dir {
		c.act = actMkdir
	}
	c.state, c.cause, c.owned = stDropped, cause, owned
	p.add(c)
}

// block also fails all entries of the release below it.
func (p *planner) block(m *manifest.Entry, owned bool, cause error) {
	p.fail(m, owned, cause)
	p.blocked, p.blockedBy = m.Path, cause
}

// untouched reports whether the file is unchanged since its bytes were last read or written.
func (p *planner) untouched(w *scan.Item, c *scan.Record) bool {
	return c != nil && p.target.sameStat(w.Stat, c.Stat) && !p.target.doubted(c.Path)
}

// leave reports whether an ignore pattern protects the site's own path, or a folder above it.
func (p *planner) leave(w *scan.Item) bool {
	if p.ignored != "" && !below(p.ignored, w.Path) {
		p.ignored = ""
	}
	if p.ignored != "" {
		return true
	}
	if !p.target.ignore.Skip(w.Path, w.Kind == scan.Dir) {
		return false
	}
	if w.Kind == scan.Dir {
		p.ignored = strings.Clone(w.Path)
	}
	return true
}

// stays records that a path of ours cannot be deleted and remains ours.
func (p *planner) stays(c *scan.Record, cause error) {
	a := actRemove
	if c.Kind == scan.Dir {
		a = actRmdir
	}
	p.add(change{path: c.Path, act: a, state: stDropped, out: Failed, cause: cause, owned: true})
	hold(p.changes, c.Path, Failed, cause)
}

// extra handles an entry that the site added.
func (p *planner) extra(w *scan.Item) {
	ignored := p.leave(w)
	if p.target.o.Prune && !ignored && w.Err == nil {
		c := change{path: strings.Clone(w.Path), act: actRemove, out: Deleted, onDisk: w.Kind == scan.File}
		if w.Kind == scan.Dir {
			c.act = actRmdir
		}
		if w.Kind == scan.Dir || w.Kind == scan.File {
			c.found = &foundEntry{stat: w.Stat}
		}
		p.add(c)
		return
	}
	if p.clearing >= 0 {
		c := &p.changes[p.clearing]
		c.state, c.out = stDropped, Failed
		c.cause = fmt.Errorf("%q is a file in the release and a folder here that holds the site's own %q: move that away, or pull with --prune", p.clearPath, w.Path)
		p.clearing = -1
	}
	for _, dir := range hold(p.changes, w.Path, Extra, nil) {
		p.own(&scan.Item{Path: dir, Kind: scan.Dir})
	}
	if !ignored {
		p.own(w)
	}
}

// own reports an entry of the site's own, now or later in emitExtras.
func (p *planner) own(w *scan.Item) {
	if !p.target.keeps.Fold {
		p.report.extra(w)
		return
	}
	it := *w
	it.Path = strings.Clone(w.Path)
	p.extras = append(p.extras, it)
}

func (r *reporter) extra(w *scan.Item) {
	r.emit(Event{Path: w.Path, Outcome: Extra, Size: w.Stat.Size, Cause: w.Err})
}

// emitExtras reports the entries that the site added. It skips an entry whose name the release has in another case:
// that entry becomes the release's, as with the same case.
func (p *planner) emitExtras() {
	if len(p.extras) == 0 {
		return
	}
	fresh := map[string]*change{}
	for i := range p.changes {
		if c := &p.changes[i]; c.state != stDropped && c.meets() {
			fresh[manifest.Fold(c.path)] = c
		}
	}
	for i := range p.extras {
		w := &p.extras[i]
		c := fresh[manifest.Fold(w.Path)]
		if c != nil && (w.Kind == scan.Dir && c.act == actMkdir || w.Kind == scan.File && c.act == actPlace) {
			c.out = Changed
			continue
		}
		p.report.extra(w)
	}
}

// meets reports whether the change makes a name that does not exist in exactly this case. The name may exist in
// another case.
func (c *change) meets() bool {
	return !c.onDisk && c.way == wayFree && (c.act == actMkdir || c.act == actPlace)
}

// gone handles a path that an earlier release put there and that this release does not have.
func (p *planner) gone(w *scan.Item, c *scan.Record, was *manifest.Entry) {
	switch {
	case w == nil:
	case w.Err != nil:
		cause := fmt.Errorf("the release deletes it, but %q cannot be looked at: %w", c.Path, w.Err)
		p.stays(c, cause)
		p.blocked, p.blockedBy = c.Path, cause
	case (w.Kind != scan.File || was.Kind != manifest.File) && (w.Kind != scan.Dir || was.Kind != manifest.Dir):
		p.extra(w) // the site put another kind of entry there: it is the site's own now
	case w.Kind == scan.Dir:
		p.add(change{path: was.Path, act: actRmdir, out: Deleted, owned: true})
	default:
		d := change{path: was.Path, act: actRemove, out: Deleted, found: &foundEntry{was.Digest, w.Stat}, onDisk: true, owned: true, size: was.Size}
		if !p.untouched(w, c) {
			d.state = stUnknown
		}
		p.add(d)
	}
}

func (p *planner) folder(w *scan.Item, c *scan.Record, was, m *manifest.Entry) {
	switch {
	case w == nil:
		ch := p.add(newChange(actMkdir, m, Added))
		if was != nil {
			ch.out, ch.owned = Repaired, true
			ch.cause = p.target.because(m.Path, "missing", "the folder was gone")
		}
	case w.Err != nil:
		p.block(m, was != nil, fmt.Errorf("cannot be looked into: %w", w.Err))
	case w.Kind == scan.Dir:
		if !durable.SameMode(p.target.root, &p.target.keeps, m.Path, w.Stat.Mode, m.SiteMode()) {
			ch := p.add(newChange(actTouch, m, Changed))
			ch.owned = was != nil
			if was != nil && was.Mode == m.Mode {
				ch.out = Repaired
				ch.cause = p.target.because(m.Path, "mode", fmt.Sprintf("it was %04o", w.Stat.Mode&0o777))
			}
			return
		}
		p.report.countUnchanged()
	case was != nil || w.Kind == scan.File && p.target.o.Prune:
		ch := p.add(newChange(actMkdir, m, Changed))
		ch.way, ch.found, ch.owned, ch.onDisk = wayEntry, &foundEntry{stat: w.Stat}, was != nil, w.Kind == scan.File
	default:
		p.block(m, false, fmt.Errorf("is a folder in the release and a %s of the site's own here: move it away", w.Kind))
	}
}

func (p *planner) file(w *scan.Item, c *scan.Record, was, m *manifest.Entry) {
	owned := was != nil
	sameAsWas := was != nil && was.SameContent(m)
	switch {
	case w == nil:
		ch := p.add(newChange(actPlace, m, Added))
		ch.state, ch.owned = stLacking, owned
		if sameAsWas {
			ch.out = Repaired
			ch.cause = p.target.because(m.Path, "missing", "the file was gone")
		} else if owned {
			ch.out = Changed
		}
	case w.Err != nil:
		p.fail(m, owned, fmt.Errorf("cannot be looked at: %w", w.Err))
	case w.Kind == scan.File && p.untouched(w, c) && sameAsWas:
		if m.MTime == was.MTime && m.Mode == was.Mode {
			p.report.countUnchanged()
			return
		}
		ch := p.add(newChange(actTouch, m, Changed))
		ch.found, ch.onDisk, ch.owned = &foundEntry{m.Digest, w.Stat}, true, true
	case w.Kind == scan.File:
		ch := p.add(newChange(actPlace, m, Changed))
		ch.found, ch.onDisk, ch.owned, ch.state = &foundEntry{stat: w.Stat}, true, owned, stLacking
		switch {
		case p.untouched(w, c) && was.Kind == manifest.File:
			ch.found.digest, ch.asReleased = was.Digest, true
		default:
			ch.state = stUnknown
			ch.restated = c != nil && looksSame(w.Stat, c.Stat) && !p.target.doubted(c.Path)
		}
		if sameAsWas {
			ch.out = Repaired
			if w.Stat.Size != m.Size {
				ch.cause = p.target.because(m.Path, "size", fmt.Sprintf("it had %d bytes, the release says %d", w.Stat.Size, m.Size))
			}
		}
	case w.Kind == scan.Dir:
		ch := p.add(newChange(actPlace, m, Changed))
		ch.way, ch.owned, ch.state = wayFolder, owned, stLacking
		p.clearing, p.clearPath = int32(len(p.changes)-1), m.Path
	case owned:
		ch := p.add(newChange(actPlace, m, Repaired))
		ch.way, ch.owned, ch.state = wayEntry, true, stLacking
		ch.cause = p.target.because(m.Path, "kind", fmt.Sprintf("a %s was in its place", w.Kind))
	default:
		p.fail(m, false, fmt.Errorf("is a file in the release and a %s of the site's own here: remove it", w.Kind))
	}
}

// countUnchanged counts a file or folder that needs no change.
func (r *reporter) countUnchanged() { r.res.Unchanged++ }
