package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"nightferry/internal/durable"
)

// Access names the readers of one domain's logs.
type Access struct {
	// Group that may read: a name or a number on Unix, a name or a SID on
	// Windows. Empty: only the Core's own account (and on Windows the
	// administrators).
	Group string
}

// Check resolves the group on this machine.
func (a Access) Check() error {
	_, err := resolveAccess(a)
	return err
}

// Logs is the folder of all logs. It is safe for concurrent use, except that
// no two goroutines may write the log of the same run.
type Logs struct {
	root *durable.Root
	// folders prevents a Purge from removing an empty folder in which a
	// Create is about to put a file.
	folders sync.Mutex
}

// Open opens the folder of all logs, and creates it if it is missing. Then
// every account may traverse it; to get further, an account must know the
// name of a domain's folder and be allowed to read that folder.
func Open(dir string) (*Logs, error) { return openLogs(dir, nil) }

func openLogs(dir string, obs durable.Observer) (*Logs, error) {
	_, err := os.Lstat(dir)
	fresh := errors.Is(err, fs.ErrNotExist)
	root, err := durable.Open(dir, durable.Options{Create: true, Trusted: true, Observer: obs})
	if err != nil {
		return nil, fmt.Errorf("open logs: %w", err)
	}
	if fresh {
		if err := root.Chmod(".", 0o711); err != nil {
			return nil, errors.Join(fmt.Errorf("open logs: %w", err), root.Close())
		}
	}
	return &Logs{root: root}, nil
}

// Close releases the folder.
func (l *Logs) Close() error { return l.root.Close() }

// Prepare creates the missing folders of the domains and of the Core (domain
// "core"), with their access. It does not change existing folders. If the
// access of one, or of a folder below it, differs from the configuration,
// changed maps the domain to a description.
func (l *Logs) Prepare(domains map[string]Access) (changed map[string]string, err error) {
	changed = map[string]string{}
	var errs []error
	for d, a := range domains {
		if !isName(d) {
			errs = append(errs, fmt.Errorf("prepare logs of domain %q: not a name", d))
			continue
		}
		want, err := resolveAccess(a)
		if err != nil {
			errs = append(errs, fmt.Errorf("prepare logs of domain %s: %w", d, err))
			continue
		}
		if err := l.prepareDomain(d, want, changed); err != nil {
			errs = append(errs, fmt.Errorf("prepare logs of domain %s: %w", d, err))
		}
	}
	return changed, errors.Join(errs...)
}

func (l *Logs) prepareDomain(domain string, want access, changed map[string]string) error {
	_, err := l.root.Lstat(domain)
	if errors.Is(err, fs.ErrNotExist) {
		return l.makeDomain(domain, want)
	}
	if err != nil {
		return err
	}
	return l.walkTree(domain, func(name string, dir bool) error {
		if !dir || changed[domain] != "" {
			return nil
		}
		how, err := want.describeDifference(l.root, name, name == domain)
		if how != "" {
			changed[domain] = fmt.Sprintf("%s: %s", filepath.Join(l.root.Dir(), filepath.FromSlash(name)), how)
		}
		return err
	})
}

// makeDomain creates a domain's folder under a temporary name and renames it, so
// that a crash never leaves a folder with the wrong access.
func (l *Logs) makeDomain(domain string, want access) error {
	temp := ".new-" + domain
	if err := l.root.RemoveAll(temp); err != nil {
		return err
	}
	if err := want.mkdir(l.root, temp); err != nil {
		return err
	}
	if err := l.root.Rename(temp, domain); err != nil {
		return err
	}
	return l.root.SyncDir(".")
}

// Repair sets the access of a domain's folder and everything below it again.
// It continues after an error and returns all errors.
func (l *Logs) Repair(domain string, a Access) error {
	want, err := resolveAccess(a)
	if err == nil && !isName(domain) {
		err = errors.New("not a name")
	}
	if err != nil {
		return fmt.Errorf("repair the access to logs of domain %s: %w", domain, err)
	}
	var errs []error
	err = l.walkTree(domain, func(name string, dir bool) error {
		errs = append(errs, want.setAccess(l.root, name, dir, name == domain))
		return nil
	})
	if err := errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("repair the access to logs of domain %s: %w", domain, err)
	}
	return nil
}

// walkTree calls fn for a folder and then for all folders and files below it. It
// skips links and other special files.
func (l *Logs) walkTree(name string, fn func(name string, dir bool) error) error {
	if err := fn(name, true); err != nil {
		return err
	}
	list, err := l.root.ReadDir(name)
	if err != nil {
		return err
	}
	for _, e := range list {
		sub := path.Join(name, e.Name())
		switch {
		case e.IsDir():
			err = l.walkTree(sub, fn)
		case e.Type().IsRegular():
			err = fn(sub, false)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a Purge may run concurrently
			return err
		}
	}
	return nil
}

// Log is one log file found by List.
type Log struct {
	Place
	Path string // slash-separated, relative to the logs' folder
	Size int64
}

// List calls fn for each log, in path order. If fn returns an error, List
// stops and returns it. It skips files that are not named like a log.
func (l *Logs) List(f Filter, fn func(Log) error) error {
	return l.eachDay(func(p Place, folder string) error {
		if !f.matchesPlace(p) {
			return nil
		}
		list, err := l.root.ReadDir(folder)
		if err != nil {
			return err
		}
		for _, e := range list {
			run, ok := runOf(e.Name(), suffix)
			if !ok || !e.Type().IsRegular() || !strings.HasPrefix(run, f.Run) {
				continue
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("list logs: %w", err)
			}
			p.Run = run
			if err := fn(Log{Place: p, Path: path.Join(folder, e.Name()), Size: info.Size()}); err != nil {
				return err
			}
		}
		return nil
	})
}

func runOf(name, suffix string) (string, bool) {
	n := len(name) - len(suffix)
	return name[:max(n, 0)], n > 0 && name[n:] == suffix && isRun(name[:n])
}

// eachDay calls fn for each folder of a day, in path order. The place has no
// run.
func (l *Logs) eachDay(fn func(p Place, folder string) error) error {
	domains, err := l.configurableNames(".")
	if err != nil {
		return err
	}
	for _, d := range domains {
		// A folder of the Core's logs has one level less.
		sites := []string{""}
		if d != core {
			if sites, err = l.configurableNames(d); err != nil {
				return err
			}
		}
		for _, s := range sites {
			channels, err := l.configurableNames(path.Join(d, s))
			if err != nil {
				return err
			}
			for _, c := range channels {
				if err := l.daysOf(Place{Domain: d, Site: s, Channel: c}, fn); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (l *Logs) daysOf(p Place, fn func(p Place, folder string) error) error {
	folder := path.Join(p.Domain, p.Site, p.Channel)
	if p.Domain == core {
		p.Domain = ""
	}
	list, err := l.root.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range list {
		day, ok := parseDay(e.Name())
		if !ok || !e.IsDir() {
			continue
		}
		p.Date = day
		if err := fn(p, path.Join(folder, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// configurableNames lists the folders whose names can be those of the configuration.
func (l *Logs) configurableNames(folder string) ([]string, error) {
	list, err := l.root.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(e fs.DirEntry) bool { return !e.IsDir() || !isName(e.Name()) })
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names, nil
}
