package record

import (
	"errors"
	"io/fs"
	"path"
	"time"

	"nightferry/internal/clock"
)

// Purged counts the files and folders that a Purge removed.
type Purged struct {
	Files   int64 `json:"files"`
	Bytes   int64 `json:"bytes"`
	Folders int64 `json:"folders"`
}

// Purge removes the logs of days that ended more than keep before now, and then the empty folders. If keep is zero or
// less, it removes nothing. It touches only files named as logs and follows no links. It continues after an error and
// returns all errors.
func (l *Logs) Purge(now clock.Calendar, keep time.Duration) (p Purged, err error) {
	if keep <= 0 {
		return p, nil
	}
	var errs []error
	err = l.eachDay(func(place Place, folder string) error {
		if place.Date.AddDate(0, 0, 1).After(now.Add(-keep).Time()) {
			return nil
		}
		errs = append(errs, l.purgeDay(folder, &p))
		// Remove the folders of the day, the channel and the site, but never the domain's, which carries the access.
		for f := folder; path.Dir(f) != "."; f = path.Dir(f) {
			removed, err := l.removeEmpty(f)
			errs = append(errs, err)
			if !removed {
				break
			}
			p.Folders++
		}
		return nil
	})
	return p, errors.Join(append(errs, err)...)
}

func (l *Logs) purgeDay(folder string, p *Purged) error {
	list, err := l.root.ReadDir(folder)
	errs := []error{err}
	for _, e := range list {
		_, whole := runOf(e.Name(), suffix)
		_, begun := runOf(e.Name(), suffix+part)
		if !whole && !begun || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err == nil {
			err = l.root.Remove(path.Join(folder, e.Name()))
		}
		if err == nil {
			p.Files++
			p.Bytes += info.Size()
		} else if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (l *Logs) removeEmpty(folder string) (bool, error) {
	l.folders.Lock()
	defer l.folders.Unlock()
	list, err := l.root.ReadDir(folder)
	if err != nil || len(list) > 0 {
		return false, err
	}
	err = l.root.Remove(folder)
	return err == nil, err
}
