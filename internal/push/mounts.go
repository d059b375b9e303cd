package push

import (
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"nightferry/internal/scan"
)

// maxMounts bounds the mount points in the stat cache, in bytes.
const maxMounts = 32 << 10

// mounted lists the mount points of the source at its last release. An unmounted volume looks like a folder from which
// everything was deleted.
type mounted struct {
	volume string   // the mount point that holds the source
	below  []string // folders of the source
}

func (p *push) mountedBefore(h *scan.Header) {
	if h.Repo == [16]byte(p.r.ID()) && h.Channel == p.o.Channel {
		p.last = mounted{volume: h.Volume, below: h.Mounts}
	}
}

// checkMounts refuses a source that lacks a volume which the last release had.
func (p *push) checkMounts(now []string) error {
	if p.o.AllowUnmounted {
		return nil
	}
	gone, err := p.missingVolumes(now)
	if len(gone) == 0 || err != nil {
		return err
	}
	return &GuardError{Guard: "unmounted", Paths: gone,
		Why: fmt.Sprintf("volumes that were mounted at the last release are not mounted now: %d (mount them; if the source is meant to be without them, use --allow-unmounted)", len(gone))}
}

// missingVolumes returns the volumes that the last release had and that are not mounted now.
func (p *push) missingVolumes(now []string) (gone []string, err error) {
	volume, err := scan.MountOf(p.source)
	if err != nil {
		return nil, fmt.Errorf("find the volume of the source: %w", err)
	}
	if isWithin(p.last.volume, volume) && p.last.volume != volume {
		gone = append(gone, fmt.Sprintf("%q: it held the source", p.last.volume))
	}
	for _, m := range p.last.below {
		skipped := false
		for dir := m; dir != "." && !skipped; dir = path.Dir(dir) {
			skipped = p.o.Patterns != nil && p.o.Patterns.Skip(dir, true)
		}
		if !skipped && !slices.Contains(now, m) {
			gone = append(gone, fmt.Sprintf("%q", m))
		}
	}
	return gone, nil
}

// permitMissing stores the present mount points in the stat cache if --allow-unmounted was needed. A push that makes
// no release would otherwise forget the permission. It closes c: Windows replaces no open file.
func (p *push) permitMissing(c *scan.CatalogueReader, now []string) error {
	gone, err := p.missingVolumes(now)
	if len(gone) == 0 || err != nil || !p.o.AllowUnmounted || p.o.DryRun {
		return errors.Join(err, c.Close())
	}
	w, err := scan.CreateCatalogue(p.o.State, p.cacheName)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	for rec := (*scan.Record)(nil); err == nil; {
		if rec, err = c.Next(); err == nil {
			err = w.Add(*rec)
		}
	}
	h := c.Header()
	h.Volume, h.Mounts, p.mounts = "", nil, now
	if errors.Is(err, io.EOF) {
		err = p.saveMounts(&h)
	}
	if err = errors.Join(err, c.Close()); err == nil {
		err = w.Commit(h)
	}
	return errors.Join(err, w.Abort()) // of no effect once it is committed
}

// isWithin reports whether a mount point is another one or below it.
func isWithin(inner, outer string) bool {
	sep := string(filepath.Separator)
	return inner == outer || strings.HasPrefix(inner, strings.TrimSuffix(outer, sep)+sep)
}

// saveMounts writes the current mount points to the stat cache's header.
func (p *push) saveMounts(h *scan.Header) (err error) {
	h.Volume, err = scan.MountOf(p.source)
	size := len(h.Volume)
	for _, m := range p.mounts {
		if size += len(m) + 8; size > maxMounts {
			break
		}
		h.Mounts = append(h.Mounts, m)
	}
	return err
}
