package durable

import (
	"errors"
	"path"
	"path/filepath"
)

// Sub opens a folder of the root as its own root, which the caller must close. The same observer watches it and
// sees names relative to the outer root.
func (r *Root) Sub(name string) (*Root, error) {
	if err := r.check(name, true); err != nil {
		return nil, wrap("open folder", name, err)
	}
	root, err := r.root.OpenRoot(name)
	if err != nil {
		return nil, wrap("open folder", name, err)
	}
	self, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(wrap("open folder", name, err), root.Close())
	}
	s := &Root{folder: folder{root: root, dir: filepath.Join(r.dir, filepath.FromSlash(name)), self: self, one: r.one}, whole: r.whole}
	if r.obs != nil {
		s.obs = subObserver{r.obs, name}
	}
	return s, nil
}

// OpenBelow opens the folder rest below base, by its slash-separated name. It follows no link below base, and a
// link that another account plants meanwhile cannot lead outside base. It opens base as Open does.
func OpenBelow(base, rest string, o Options) (_ *Root, err error) {
	if rest == "" {
		return Open(base, o)
	}
	outer, err := Open(base, Options{Create: o.Create})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, outer.Close()) }()
	if o.Create {
		if err := outer.MkdirAll(rest, 0o755); err != nil {
			return nil, err
		}
	}
	r, err := outer.Sub(rest)
	if err == nil {
		r.obs, r.ours, r.whole = o.Observer, o.Ours, syncsWhole(r.self)
	}
	return r, err
}

// subObserver forwards the changes in a folder to an observer of the outer root.
type subObserver struct {
	outer Observer
	dir   string
}

// Before implements [Observer].
func (o subObserver) Before(op Op) error {
	op.Name = path.Join(o.dir, op.Name)
	if op.To != "" {
		op.To = path.Join(o.dir, op.To)
	}
	return o.outer.Before(op)
}
