// Package apply makes a folder exactly one release: it is the verb pull, usable
// with no Core.
//
// [Run] opens the repository and obeys its halt orders, finishes a commit that was
// interrupted, and compares the folder with the catalogue of what was applied. If
// they differ, it plans, checks that the plan can be carried out, stages every new
// file beside the target, proves each against the release, and only then commits
// all changes in one go; package commit does that. Until the journal is written the
// target is untouched; after it, the next run rolls forward. Every visible file is
// whole: the old one or the new one.
//
// Its state is kept in the folder .nightferry inside the target:
//
//	memory.json          the repository state last seen, so that nothing older is accepted
//	traits.json          the metadata that the target's file system keeps
//	catalogue            the applied files, with each file's stat
//	catalogue.before     the catalogue before it, in case it is lost
//	checks.json          findings of checks, and the release that was applied
//	journal, journal.moved, catalogue.next   a commit under way
//	stage                files being made; in out, the files that each commit has moved out of the way
//	aside                files that a commit had moved out of the way before its journal was lost
//	pages                manifest pages, a cache
//	lock
package apply
