package manifest

// Change is one difference between two trees.
type Change struct {
	Old *Entry // nil: added
	New *Entry // nil: removed
}

// Next yields entries in path order and nil at the end.
type Next func() (*Entry, error)

// Diff calls fn for each path whose content, kind, mode or time differs
// between two trees, in path order. It holds one entry of each at a time.
func Diff(from, to Next, fn func(Change) error) error {
	a, err := from()
	if err != nil {
		return err
	}
	b, err := to()
	if err != nil {
		return err
	}
	for a != nil || b != nil {
		var c Change
		order := 0
		switch {
		case a == nil:
			order = 1
		case b == nil:
			order = -1
		default:
			order = ComparePaths(a.Path, b.Path)
		}
		if order <= 0 {
			c.Old = a
		}
		if order >= 0 {
			c.New = b
		}
		if order != 0 || !a.SameContent(b) || a.Mode != b.Mode || a.MTime != b.MTime {
			if err := fn(c); err != nil {
				return err
			}
		}
		if order <= 0 {
			if a, err = from(); err != nil {
				return err
			}
		}
		if order >= 0 {
			if b, err = to(); err != nil {
				return err
			}
		}
	}
	return nil
}
