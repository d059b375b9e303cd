-- Schema 1. Times are microseconds since 1970 in UTC, 0: never. Digests and ids are raw bytes.

CREATE TABLE meta (
  id       INTEGER PRIMARY KEY CHECK (id = 1),
  core     BLOB    NOT NULL,
  revision INTEGER NOT NULL
) STRICT;
INSERT INTO meta (id, core, revision) VALUES (1, randomblob(16), 0);

CREATE TABLE tokens (
  id        TEXT    PRIMARY KEY,
  hash      BLOB    NOT NULL,
  domain    TEXT    NOT NULL,
  site      TEXT    NOT NULL,
  issued    INTEGER NOT NULL,
  issued_by TEXT    NOT NULL,
  expires   INTEGER NOT NULL,
  used      INTEGER NOT NULL DEFAULT 0,
  used_by   TEXT    NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE identities (
  public      TEXT    PRIMARY KEY,
  domain      TEXT    NOT NULL,
  site        TEXT    NOT NULL,
  enrolled    INTEGER NOT NULL,
  jwt_expires INTEGER NOT NULL,
  version     TEXT    NOT NULL,
  ended       INTEGER NOT NULL DEFAULT 0,
  why         TEXT    NOT NULL DEFAULT '',
  contested   INTEGER NOT NULL DEFAULT 0, -- since when two machines use it
  contest     TEXT    NOT NULL DEFAULT ''
) STRICT;
CREATE UNIQUE INDEX identities_site ON identities (domain, site) WHERE ended = 0;

CREATE TABLE sightings (
  domain       TEXT    NOT NULL,
  site         TEXT    NOT NULL,
  seen         INTEGER NOT NULL,
  version      TEXT    NOT NULL,
  clock_offset INTEGER NOT NULL, -- nanoseconds
  lag          INTEGER NOT NULL,
  revision     INTEGER NOT NULL,
  PRIMARY KEY (domain, site)
) STRICT, WITHOUT ROWID;

CREATE TABLE releases (
  channel   TEXT    NOT NULL,
  number    INTEGER NOT NULL,
  digest    BLOB    NOT NULL,
  tree      BLOB    NOT NULL,
  parent    INTEGER NOT NULL,
  files     INTEGER NOT NULL,
  bytes     INTEGER NOT NULL,
  published INTEGER NOT NULL,
  run       BLOB    NOT NULL,
  PRIMARY KEY (channel, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE desired (
  domain      TEXT    NOT NULL,
  site        TEXT    NOT NULL,
  channel     TEXT    NOT NULL,
  number      INTEGER NOT NULL,
  release     BLOB    NOT NULL,
  tree        BLOB    NOT NULL,
  nonce       BLOB    NOT NULL,
  start       INTEGER NOT NULL,
  dry_run     INTEGER NOT NULL,
  mode        INTEGER NOT NULL, -- of the request to start, as the Core encodes it
  body        BLOB    NOT NULL,
  by          TEXT    NOT NULL,
  set_at      INTEGER NOT NULL,
  revision    INTEGER NOT NULL,
  PRIMARY KEY (domain, site, channel)
) STRICT, WITHOUT ROWID;

-- An operator's limit outlives the site's rows.
CREATE TABLE limits (
  domain    TEXT    NOT NULL,
  site      TEXT    NOT NULL,
  timetable TEXT    NOT NULL,
  until     INTEGER NOT NULL, -- Unix seconds of the calendar; 0: until it is lifted
  PRIMARY KEY (domain, site)
) STRICT, WITHOUT ROWID;

-- A site's revision outlives the rows of desired: dropping one is a change too.
CREATE TABLE desired_revisions (
  domain   TEXT    NOT NULL,
  site     TEXT    NOT NULL,
  revision INTEGER NOT NULL,
  PRIMARY KEY (domain, site)
) STRICT, WITHOUT ROWID;

CREATE TABLE spools (
  domain     TEXT    NOT NULL,
  site       TEXT    NOT NULL,
  generation BLOB    NOT NULL,
  last       INTEGER NOT NULL,
  first_seen INTEGER NOT NULL,
  last_seen  INTEGER NOT NULL,
  PRIMARY KEY (domain, site, generation)
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
  seq         INTEGER PRIMARY KEY,
  id          BLOB    NOT NULL UNIQUE,
  domain      TEXT    NOT NULL,
  site        TEXT    NOT NULL,
  channel     TEXT    NOT NULL,
  number      INTEGER NOT NULL DEFAULT 0,
  release     BLOB    NOT NULL DEFAULT (zeroblob(32)),
  tree        BLOB    NOT NULL DEFAULT (zeroblob(32)),
  parent      INTEGER NOT NULL DEFAULT 0,
  trigger     TEXT    NOT NULL DEFAULT '',
  dry_run     INTEGER NOT NULL DEFAULT 0,
  started     INTEGER NOT NULL,
  finished    INTEGER NOT NULL DEFAULT 0,
  state       TEXT    NOT NULL DEFAULT '',
  cause       TEXT    NOT NULL DEFAULT '',
  files       INTEGER NOT NULL DEFAULT 0,
  bytes       INTEGER NOT NULL DEFAULT 0,
  added       INTEGER NOT NULL DEFAULT 0,
  changed     INTEGER NOT NULL DEFAULT 0,
  moved       INTEGER NOT NULL DEFAULT 0,
  repaired    INTEGER NOT NULL DEFAULT 0,
  deleted     INTEGER NOT NULL DEFAULT 0,
  unchanged   INTEGER NOT NULL DEFAULT 0,
  locked      INTEGER NOT NULL DEFAULT 0,
  failed      INTEGER NOT NULL DEFAULT 0,
  extra       INTEGER NOT NULL DEFAULT 0,
  differs     INTEGER NOT NULL DEFAULT 0,
  held        INTEGER NOT NULL DEFAULT 0,
  fetched     INTEGER NOT NULL DEFAULT 0,
  wire        INTEGER NOT NULL DEFAULT 0,
  attestation BLOB    NOT NULL DEFAULT (zeroblob(32)),
  rendered    INTEGER NOT NULL DEFAULT 0,
  late        INTEGER NOT NULL DEFAULT 0,
  last        INTEGER NOT NULL -- when the Core last heard of it
) STRICT;
CREATE INDEX runs_started ON runs (started);
CREATE INDEX runs_site ON runs (domain, site, channel, started);
CREATE INDEX runs_open ON runs (started) WHERE finished = 0;
CREATE INDEX runs_state ON runs (state, domain, site, channel) WHERE state <> '';
CREATE INDEX runs_unrendered ON runs (finished) WHERE finished > 0 AND rendered = 0;

CREATE TABLE events (
  id   INTEGER PRIMARY KEY,
  run  INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
  kind INTEGER NOT NULL,
  at   INTEGER NOT NULL,
  body BLOB    NOT NULL
) STRICT;
CREATE INDEX events_run ON events (run);

CREATE TABLE exceptions (
  id      INTEGER PRIMARY KEY,
  domain  TEXT    NOT NULL,
  site    TEXT    NOT NULL,
  channel TEXT    NOT NULL,
  path    TEXT    NOT NULL,
  outcome TEXT    NOT NULL,
  cause   TEXT    NOT NULL,
  size    INTEGER NOT NULL,
  first   INTEGER NOT NULL,
  last    INTEGER NOT NULL,
  count   INTEGER NOT NULL,
  as_run  BLOB    NOT NULL, -- the run that reported this outcome and cause first
  run     BLOB    NOT NULL  -- the run that reported it last
) STRICT;
CREATE UNIQUE INDEX exceptions_of ON exceptions (domain, site, channel, path);
CREATE INDEX exceptions_last ON exceptions (last);
CREATE INDEX exceptions_path ON exceptions (path);

CREATE TABLE attestations (
  id          INTEGER PRIMARY KEY,
  run         INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
  at          INTEGER NOT NULL,
  nonce       BLOB    NOT NULL,
  number      INTEGER NOT NULL,
  release     BLOB    NOT NULL,
  tree        BLOB    NOT NULL,
  files       INTEGER NOT NULL,
  bytes       INTEGER NOT NULL,
  read        INTEGER NOT NULL,
  statted     INTEGER NOT NULL,
  oldest_read INTEGER NOT NULL,
  verified    INTEGER NOT NULL,
  digest      BLOB    NOT NULL,
  signed      BLOB    NOT NULL
) STRICT;
CREATE INDEX attestations_run ON attestations (run);
CREATE INDEX attestations_at ON attestations (at);

CREATE TABLE holdings (
  domain   TEXT    NOT NULL,
  site     TEXT    NOT NULL,
  channel  TEXT    NOT NULL,
  number   INTEGER NOT NULL,
  release  BLOB    NOT NULL,
  tree     BLOB    NOT NULL,
  since    INTEGER NOT NULL,
  attested INTEGER NOT NULL,
  verified INTEGER NOT NULL,
  run      BLOB    NOT NULL,
  PRIMARY KEY (domain, site, channel)
) STRICT, WITHOUT ROWID;

CREATE TABLE incidents (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  key      TEXT    NOT NULL,
  kind     TEXT    NOT NULL,
  scope    TEXT    NOT NULL,
  text     TEXT    NOT NULL,
  opened   INTEGER NOT NULL,
  last     INTEGER NOT NULL,
  count    INTEGER NOT NULL,
  resolved INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX incidents_open ON incidents (key) WHERE resolved = 0;

CREATE TABLE members (
  incident INTEGER NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
  domain   TEXT    NOT NULL,
  site     TEXT    NOT NULL,
  text     TEXT    NOT NULL,
  first    INTEGER NOT NULL,
  last     INTEGER NOT NULL,
  count    INTEGER NOT NULL,
  left_at  INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (incident, domain, site)
) STRICT, WITHOUT ROWID;

CREATE TABLE halts (
  id         BLOB    PRIMARY KEY, -- the order's 16 bytes
  scope      TEXT    NOT NULL,
  value      TEXT    NOT NULL,
  reason     TEXT    NOT NULL,
  by         TEXT    NOT NULL,
  at         INTEGER NOT NULL,
  resumed    INTEGER NOT NULL DEFAULT 0,
  resumed_by TEXT    NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE stops (
  halt        BLOB    NOT NULL REFERENCES halts (id) ON DELETE CASCADE,
  domain      TEXT    NOT NULL,
  site        TEXT    NOT NULL,
  stopped     INTEGER NOT NULL,
  bytes_after INTEGER NOT NULL,
  PRIMARY KEY (halt, domain, site)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  at     INTEGER NOT NULL,
  who    TEXT    NOT NULL,
  what   TEXT    NOT NULL,
  object TEXT    NOT NULL,
  detail TEXT    NOT NULL
) STRICT;
CREATE TRIGGER audit_update BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, 'the audit is append only'); END;
CREATE TRIGGER audit_delete BEFORE DELETE ON audit BEGIN SELECT raise(ABORT, 'the audit is append only'); END;
