package apply

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/runs"
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
	// taken holds the release's paths by NameKey. It is nil if no two of them can be one name here.
	taken map[string]string
}

// foreseen limits the preallocated changes, because a release's totals are only a claim.
const foreseen = 2 << 20

// planChanges walks the target once.
func (s *site) planChanges(ctx context.Context, rel *repo.Release) ([]change, []digest.Digest, error) {
	release := s.remote.repo.Manifests(s.remote.pages)
	names, err := s.target.namesOf(catalogueName, release.Entries(rel))
	if err != nil {
		return nil, nil, err
	}
	cat, err := s.target.openRecords(catalogueName)
	if err != nil {
		return nil, nil, err
	}
	defer cat.close()
	p := &planner{target: s.target, report: s.report, cat: cat, entries: release.Entries(rel), clearing: -1}
	if keeps := &s.target.keeps; keeps.Compose || keeps.Fold && !rel.Portable {
		p.taken = map[string]string{}
	}
	if cat.r == nil {
		// A first pull: growing the slice would copy the list and use twice its memory.
		p.changes = make([]change, 0, min(rel.Totals.Files+rel.Totals.Dirs, foreseen))
	}
	if p.entry, err = p.entries(); err != nil {
		return nil, nil, err
	}
	s.report.res.Unchanged = 0
	err = s.target.walkTarget(ctx, names, func(it scan.Item) error { return p.handleItem(&it) })
	if err == nil {
		err = p.handleItem(nil)
	}
	if err == nil {
		err = s.target.failUnheld(p.changes, cat.r != nil)
	}
	p.emitExtras()
	return p.changes, p.oldLists, err
}

// walkTarget streams the target's entries, except nightferry's own folder. It translates listed names by names.
func (t *targetDir) walkTarget(ctx context.Context, names *scan.Names, fn func(scan.Item) error) error {
	return scan.Walk(ctx, t.root.Dir(), scan.WalkOptions{Names: names, Skip: func(path string, _ bool) bool {
		return len(path) == len(stateDir) && strings.EqualFold(path, stateDir)
	}}, fn)
}

// handleItem handles every path up to and including the item's; a nil item means the end.
func (p *planner) handleItem(w *scan.Item) error {
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
		if err := p.decidePath(first, wi, c, m); err != nil {
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

// decidePath decides about one path. An argument is nil if its stream does not have the path.
func (p *planner) decidePath(path string, w *scan.Item, c *scan.Record, m *manifest.Entry) error {
	if p.clearing >= 0 && !isBelow(p.clearPath, path) {
		p.clearing = -1
	}
	if p.blocked != "" && !isBelow(p.blocked, path) {
		p.blocked, p.blockedBy = "", nil
	}
	if p.blocked != "" {
		switch {
		case m != nil:
			p.failEntry(m, c != nil, p.blockedBy)
		case c != nil:
			p.keepOwned(c, p.blockedBy)
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
	if m != nil && p.taken != nil {
		key := scan.NameKey(&p.target.keeps, m.Path)
		if other, ok := p.taken[key]; ok {
			p.blockTree(m, c != nil, &unheldError{path: m.Path, other: other})
			return nil
		}
		p.taken[key] = m.Path
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
		p.handleExtra(w)
	case m == nil:
		p.handleRemoved(w, c, was)
	case m.Kind == manifest.Dir:
		p.planFolder(w, c, was, m)
	default:
		p.planFile(w, c, was, m)
	}
	return nil
}

func (p *planner) addChange(c change) *change {
	c.from, c.to, c.makesWay = -1, -1, p.clearing
	if p.entry != nil && p.entry.Path == c.path {
		c.entry = p.ordinal + 1
	}
	p.changes = append(p.changes, c)
	return &p.changes[len(p.changes)-1]
}

func newChange(a act, m *manifest.Entry, out runs.Outcome) change {
	c := change{path: m.Path, act: a, out: out, digest: m.Digest, size: m.Size, mtime: m.MTime, mode: m.SiteMode()}
	if len(m.Chunks)+len(m.Lists) > 0 {
		c.parts = &parts{chunks: m.Chunks, lists: m.Lists}
	}
	return c
}

// failEntry records that the release's entry cannot be put in place.
func (p *planner) failEntry(m *manifest.Entry, owned bool, cause error) {
	c := newChange(actPlace, m, runs.FileFailed)
	if m.Kind == manifest.Dir {
		c.act = actMkdir
	}
	c.state, c.cause, c.owned = stDropped, cause, owned
	p.addChange(c)
}

// blockTree also fails all entries of the release below it.
func (p *planner) blockTree(m *manifest.Entry, owned bool, cause error) {
	p.failEntry(m, owned, cause)
	p.blocked, p.blockedBy = m.Path, cause
}

// isUntouched reports whether the file is unchanged since its bytes were last read or written.
func (p *planner) isUntouched(w *scan.Item, c *scan.Record) bool {
	return c != nil && p.target.sameStat(w.Stat, c.Stat) && !p.target.isDoubted(c.Path)
}

// isIgnored reports whether an ignore pattern protects the site's own path, or a folder above it.
func (p *planner) isIgnored(w *scan.Item) bool {
	if p.ignored != "" && !isBelow(p.ignored, w.Path) {
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

// keepOwned records that a path of ours cannot be deleted and remains ours.
func (p *planner) keepOwned(c *scan.Record, cause error) {
	a := actRemove
	if c.Kind == scan.Dir {
		a = actRmdir
	}
	p.addChange(change{path: c.Path, act: a, state: stDropped, out: runs.FileFailed, cause: cause, owned: true})
	holdFolders(p.changes, c.Path, runs.FileFailed, cause)
}

// handleExtra handles an entry that the site added.
func (p *planner) handleExtra(w *scan.Item) {
	ignored := p.isIgnored(w)
	if p.target.o.Prune && !ignored && w.Err == nil {
		c := change{path: strings.Clone(w.Path), act: actRemove, out: runs.FileDeleted, onDisk: w.Kind == scan.File}
		if w.Kind == scan.Dir {
			c.act = actRmdir
		}
		if w.Kind == scan.Dir || w.Kind == scan.File {
			c.found = &foundEntry{stat: w.Stat}
		}
		p.addChange(c)
		return
	}
	if p.clearing >= 0 {
		c := &p.changes[p.clearing]
		c.state, c.out = stDropped, runs.FileFailed
		c.cause = fmt.Errorf("%q is a file in the release and a folder here that holds the site's own %q: move that away, or pull with --prune", p.clearPath, w.Path)
		p.clearing = -1
	}
	for _, dir := range holdFolders(p.changes, w.Path, runs.FileExtra, nil) {
		p.reportOwn(&scan.Item{Path: dir, Kind: scan.Dir})
	}
	if !ignored {
		p.reportOwn(w)
	}
}

// reportOwn reports an entry of the site's own, now or later in emitExtras.
func (p *planner) reportOwn(w *scan.Item) {
	if !p.target.keeps.Fold {
		p.report.emitExtra(w)
		return
	}
	it := *w
	it.Path = strings.Clone(w.Path)
	p.extras = append(p.extras, it)
}

func (r *reporter) emitExtra(w *scan.Item) {
	r.emit(Event{Path: w.Path, Outcome: runs.FileExtra, Size: w.Stat.Size, Cause: w.Err})
}

// emitExtras reports the entries that the site added. It skips an entry whose name the release has in another case:
// that entry becomes the release's, as with the same case.
func (p *planner) emitExtras() {
	if len(p.extras) == 0 {
		return
	}
	fresh := map[string]*change{}
	for i := range p.changes {
		if c := &p.changes[i]; c.state != stDropped && c.makesName() {
			fresh[manifest.Fold(c.path)] = c
		}
	}
	for i := range p.extras {
		w := &p.extras[i]
		c := fresh[manifest.Fold(w.Path)]
		if c != nil && (w.Kind == scan.Dir && c.act == actMkdir || w.Kind == scan.File && c.act == actPlace) {
			c.out = runs.FileChanged
			continue
		}
		p.report.emitExtra(w)
	}
}

// makesName reports whether the change makes a name that does not exist in exactly this case. The name may exist in
// another case.
func (c *change) makesName() bool {
	return !c.onDisk && c.way == wayFree && (c.act == actMkdir || c.act == actPlace)
}

// handleRemoved handles a path that an earlier release put there and that this release does not have.
func (p *planner) handleRemoved(w *scan.Item, c *scan.Record, was *manifest.Entry) {
	switch {
	case w == nil:
	case w.Err != nil:
		cause := fmt.Errorf("the release deletes it, but %q cannot be looked at: %w", c.Path, w.Err)
		p.keepOwned(c, cause)
		p.blocked, p.blockedBy = c.Path, cause
	case (w.Kind != scan.File || was.Kind != manifest.File) && (w.Kind != scan.Dir || was.Kind != manifest.Dir):
		p.handleExtra(w) // the site put another kind of entry there: it is the site's own now
	case w.Kind == scan.Dir:
		p.addChange(change{path: was.Path, act: actRmdir, out: runs.FileDeleted, owned: true})
	default:
		d := change{path: was.Path, act: actRemove, out: runs.FileDeleted, found: &foundEntry{was.Digest, w.Stat}, onDisk: true, owned: true, size: was.Size}
		if !p.isUntouched(w, c) {
			d.state = stUnknown
		}
		p.addChange(d)
	}
}

func (p *planner) planFolder(w *scan.Item, c *scan.Record, was, m *manifest.Entry) {
	switch {
	case w == nil:
		ch := p.addChange(newChange(actMkdir, m, runs.FileAdded))
		if was != nil {
			ch.out, ch.owned = runs.FileRepaired, true
			ch.cause = p.target.repairReason(m.Path, "missing", "the folder was gone")
		}
	case w.Err != nil:
		p.blockTree(m, was != nil, fmt.Errorf("cannot be looked into: %w", w.Err))
	case w.Kind == scan.Dir:
		if !durable.SameMode(p.target.root, &p.target.keeps, m.Path, w.Stat.Mode, m.SiteMode()) {
			ch := p.addChange(newChange(actTouch, m, runs.FileChanged))
			ch.owned = was != nil
			if was != nil && was.Mode == m.Mode {
				ch.out = runs.FileRepaired
				ch.cause = p.target.repairReason(m.Path, "mode", fmt.Sprintf("it was %04o", w.Stat.Mode&0o777))
			}
			return
		}
		p.report.countUnchanged()
	case was != nil || w.Kind == scan.File && p.target.o.Prune:
		ch := p.addChange(newChange(actMkdir, m, runs.FileChanged))
		ch.way, ch.found, ch.owned, ch.onDisk = wayEntry, &foundEntry{stat: w.Stat}, was != nil, w.Kind == scan.File
	default:
		p.blockTree(m, false, fmt.Errorf("is a folder in the release and a %s of the site's own here: move it away", w.Kind))
	}
}

func (p *planner) planFile(w *scan.Item, c *scan.Record, was, m *manifest.Entry) {
	owned := was != nil
	sameAsWas := was != nil && was.SameContent(m)
	switch {
	case w == nil:
		ch := p.addChange(newChange(actPlace, m, runs.FileAdded))
		ch.state, ch.owned = stLacking, owned
		if sameAsWas {
			ch.out = runs.FileRepaired
			ch.cause = p.target.repairReason(m.Path, "missing", "the file was gone")
		} else if owned {
			ch.out = runs.FileChanged
		}
	case w.Err != nil:
		p.failEntry(m, owned, fmt.Errorf("cannot be looked at: %w", w.Err))
	case w.Kind == scan.File && p.isUntouched(w, c) && sameAsWas:
		if m.MTime == was.MTime && m.Mode == was.Mode {
			p.report.countUnchanged()
			return
		}
		ch := p.addChange(newChange(actTouch, m, runs.FileChanged))
		ch.found, ch.onDisk, ch.owned = &foundEntry{m.Digest, w.Stat}, true, true
	case w.Kind == scan.File:
		ch := p.addChange(newChange(actPlace, m, runs.FileChanged))
		ch.found, ch.onDisk, ch.owned, ch.state = &foundEntry{stat: w.Stat}, true, owned, stLacking
		switch {
		case p.isUntouched(w, c) && was.Kind == manifest.File:
			ch.found.digest, ch.asReleased = was.Digest, true
		default:
			ch.state = stUnknown
			ch.restated = c != nil && looksSame(w.Stat, c.Stat) && !p.target.isDoubted(c.Path)
		}
		if sameAsWas {
			ch.out = runs.FileRepaired
			if w.Stat.Size != m.Size {
				ch.cause = p.target.repairReason(m.Path, "size", fmt.Sprintf("it had %d bytes, the release says %d", w.Stat.Size, m.Size))
			}
		}
	case w.Kind == scan.Dir:
		ch := p.addChange(newChange(actPlace, m, runs.FileChanged))
		ch.way, ch.owned, ch.state = wayFolder, owned, stLacking
		p.clearing, p.clearPath = int32(len(p.changes)-1), m.Path
	case owned:
		ch := p.addChange(newChange(actPlace, m, runs.FileRepaired))
		ch.way, ch.owned, ch.state = wayEntry, true, stLacking
		ch.cause = p.target.repairReason(m.Path, "kind", fmt.Sprintf("a %s was in its place", w.Kind))
	default:
		p.failEntry(m, false, fmt.Errorf("is a file in the release and a %s of the site's own here: remove it", w.Kind))
	}
}

// countUnchanged counts a file or folder that needs no change.
func (r *reporter) countUnchanged() { r.res.Unchanged++ }
