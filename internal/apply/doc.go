// Package apply makes a folder exactly one release: it is the verb pull, usable
// with no Core.
//
// [Run] reads from top to bottom: roll a journal forward, open the repository,
// compare the folder with the catalogue of what was applied; if they differ,
// plan, check that it can be done, stage every new file beside the target,
// prove each against the release, and only then commit in one burst of renames
// and deletes. Until the journal is written the target is untouched; after it,
// whoever dies rolls forward. Every file that anybody can see is whole: the old
// one or the new one.
//
// What it keeps lies in the target's own folder .nightferry: memory.json (what
// was seen of the repository, so that nothing older is accepted), catalogue
// (what was applied, with each file's stat), catalogue.next and journal (a
// commit under way), journal.moved (its first half is done), stage (files being
// made; in out, for each commit apart, what it has moved out of the way), pages
// (manifest pages, a cache), checks.json (what checks have found), lock.
package apply
