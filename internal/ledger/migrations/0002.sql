-- Schema 2: what the Core has measured of its own sources, and what a holding's attestation counted.

CREATE TABLE measurements (
  channel    TEXT    NOT NULL,
  number     INTEGER NOT NULL,
  release    BLOB    NOT NULL,
  at         INTEGER NOT NULL,
  took       INTEGER NOT NULL, -- nanoseconds
  run        BLOB    NOT NULL,
  tree       BLOB    NOT NULL,
  files      INTEGER NOT NULL,
  bytes      INTEGER NOT NULL,
  there      INTEGER NOT NULL,
  weighs     INTEGER NOT NULL,
  same       INTEGER NOT NULL,
  moved      INTEGER NOT NULL,
  damaged    INTEGER NOT NULL,
  unreadable INTEGER NOT NULL,
  PRIMARY KEY (channel, number)
) STRICT, WITHOUT ROWID;

-- -1: attested before this was kept.
ALTER TABLE holdings ADD COLUMN files INTEGER NOT NULL DEFAULT -1;
ALTER TABLE holdings ADD COLUMN bytes INTEGER NOT NULL DEFAULT -1;
