-- Schema 4: the user of an enrollment token on the bus, and when that user ended before its JWT did; the order in which a
-- site's spools took over from each other.

ALTER TABLE tokens ADD COLUMN user TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN ended INTEGER NOT NULL DEFAULT 0;
ALTER TABLE spools ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
ALTER TABLE spools DROP COLUMN first_seen;
