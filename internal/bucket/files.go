package bucket

import (
	"io/fs"
	"os"
)

// files is the folder of a directory store, which no name leaves.
type files struct{ root *os.Root }

func openFiles(dir string, o Options) (*files, error) {
	if o.Create {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return nil, err
		}
	}
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &files{r}, nil
}

func (f *files) open(name string) (*os.File, error)   { return f.root.Open(name) }
func (f *files) create(name string) (*os.File, error) { return f.root.Create(name) }
func (f *files) rename(from, to string) error         { return f.root.Rename(from, to) }
func (f *files) remove(name string) error             { return f.root.Remove(name) }
func (f *files) mkdir(name string) error              { return f.root.Mkdir(name, 0o777) }

func (f *files) syncDir(name string) error {
	d, err := f.root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (f *files) readDir(name string) ([]fs.DirEntry, error) {
	d, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.ReadDir(-1)
}
