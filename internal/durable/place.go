package durable

import "path"

// Placer renames new files into place. A file gets the rights of the file that it replaces, else those that it
// would inherit if it were created in its folder. Rights that this account may not set are omitted. A Placer is not
// safe for concurrent use.
type Placer struct {
	r     *Root
	stage legacy // of the folder in which new files are made
	dir   string // of the last file
	last  legacy // of dir
}

// NewPlacer returns a Placer for files that were made in the folder stage.
func NewPlacer(r *Root, stage string) *Placer {
	l := legacyOf(r, stage)
	return &Placer{r: r, stage: l, dir: stage, last: l}
}

// Place renames a file, as [Root.Rename] does with over, else as [Root.RenameNew].
func (p *Placer) Place(from, to string, over bool) error {
	if dir := path.Dir(to); dir != p.dir {
		p.dir, p.last = dir, legacyOf(p.r, dir)
	}
	after := endow(p.r, from, to, over, p.stage, p.last)
	rename := p.r.RenameNew
	if over {
		rename = p.r.Rename
	}
	if err := rename(from, to); err != nil {
		return err
	}
	if after != nil {
		after()
	}
	return nil
}
