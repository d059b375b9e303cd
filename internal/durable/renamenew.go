package durable

import "fmt"

// RenameNew is [Root.Rename] to a name that must be free. If it exists, RenameNew changes nothing and the error is
// fs.ErrExist, even if the name was made at the last moment.
//
// If the file system has no such call, a file is linked to its new name, and then the old name is removed; a crash may
// leave both, and a second RenameNew removes the old one. Known gap: for a folder, and without links, the look at the
// name and the rename are two calls.
func (r *Root) RenameNew(from, to string) error { return r.move(from, to, r.renameNew) }

func (r *Root) move(from, to string, rename func(from, to string) error) error {
	err := r.vet(from, false)
	if err == nil {
		err = r.vet(to, false)
	}
	if err == nil {
		err = r.before(Op{Kind: Rename, Name: from, To: to})
	}
	if err == nil {
		err = retake(r, from, false, func() error {
			return retake(r, to, false, func() error { return rename(from, to) })
		})
		err = r.explain(from, r.explain(to, err))
	}
	return wrap(fmt.Sprintf("rename %q to", from), to, err)
}
