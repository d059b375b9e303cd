-- Schema 6: which process of a site confirmed a halt order, when the Core received that, what the site's own clock said, and
-- the longest time that can have passed since the order; the process that used an identity last, and its place in the record
-- of starts of the agent's state; since when the configuration has no such site; since when a site reports that it lacks a
-- release.

ALTER TABLE stops ADD COLUMN said INTEGER NOT NULL DEFAULT 0;
ALTER TABLE stops ADD COLUMN confirmed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE stops ADD COLUMN within INTEGER NOT NULL DEFAULT -1; -- nanoseconds; negative: not known
ALTER TABLE stops ADD COLUMN process TEXT NOT NULL DEFAULT '';
ALTER TABLE identities ADD COLUMN process TEXT NOT NULL DEFAULT '';
ALTER TABLE identities ADD COLUMN process_since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE identities ADD COLUMN lineage TEXT NOT NULL DEFAULT '';
ALTER TABLE identities ADD COLUMN starts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE identities ADD COLUMN started TEXT NOT NULL DEFAULT '';
ALTER TABLE identities ADD COLUMN cut INTEGER NOT NULL DEFAULT 0;
ALTER TABLE holdings ADD COLUMN lacks INTEGER NOT NULL DEFAULT 0;
