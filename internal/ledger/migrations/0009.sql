-- Schema 9: requests that carried an idempotency key, and the answers to them. Key and answer are only readable with the key
-- itself and a secret of the vault.

CREATE TABLE keyed_requests (
  seq     INTEGER PRIMARY KEY AUTOINCREMENT,
  id      BLOB    NOT NULL UNIQUE, -- a MAC of the key
  who     BLOB    NOT NULL,        -- a MAC of the principal
  request BLOB    NOT NULL,        -- a MAC of principal, route and body
  at      INTEGER NOT NULL,
  answer  BLOB                     -- NULL: it has not ended; empty: it was too long to keep
) STRICT;
CREATE INDEX keyed_requests_who ON keyed_requests (who, seq);
