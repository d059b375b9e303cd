-- Schema 7: sessions of people who have signed in, by the hash of their cookie.

CREATE TABLE sessions (
  id      TEXT    PRIMARY KEY,
  hash    BLOB    NOT NULL UNIQUE,
  person  TEXT    NOT NULL,
  subject TEXT    NOT NULL,
  claims  TEXT    NOT NULL,
  address TEXT    NOT NULL,
  started INTEGER NOT NULL,
  seen    INTEGER NOT NULL,
  expires INTEGER NOT NULL
) STRICT;
