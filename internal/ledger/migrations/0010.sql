-- Schema 10: long work that a client has asked for.

CREATE TABLE jobs (
  seq     INTEGER PRIMARY KEY,
  id      TEXT    NOT NULL UNIQUE,
  kind    TEXT    NOT NULL,
  who     TEXT    NOT NULL,
  domain  TEXT    NOT NULL, -- its scope
  region  TEXT    NOT NULL,
  site    TEXT    NOT NULL,
  channel TEXT    NOT NULL,
  request TEXT    NOT NULL, -- JSON
  started INTEGER NOT NULL,
  ended   INTEGER NOT NULL DEFAULT 0,
  state   TEXT    NOT NULL,
  error   TEXT    NOT NULL DEFAULT '', -- JSON
  lines   BLOB    NOT NULL DEFAULT x'' -- of its result, JSON
) STRICT;
CREATE INDEX jobs_running ON jobs (seq) WHERE ended = 0;
