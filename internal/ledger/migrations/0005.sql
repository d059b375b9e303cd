-- Schema 5: API tokens, by the hash of their text.

CREATE TABLE api_tokens (
  id         TEXT    PRIMARY KEY,
  hash       BLOB    NOT NULL UNIQUE,
  name       TEXT    NOT NULL,
  role       TEXT    NOT NULL,
  domain     TEXT    NOT NULL,
  region     TEXT    NOT NULL,
  issued     INTEGER NOT NULL,
  issued_by  TEXT    NOT NULL,
  expires    INTEGER NOT NULL,
  used       INTEGER NOT NULL DEFAULT 0,
  revoked    INTEGER NOT NULL DEFAULT 0,
  revoked_by TEXT    NOT NULL DEFAULT ''
) STRICT;
