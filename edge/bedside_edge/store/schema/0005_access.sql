-- Who may ask. Secrets are not here: of sessions, tokens and links only the SHA-256 is kept, of
-- passwords what Argon2id made of them. Times are milliseconds since 1970, UTC; 0 is never.

CREATE TABLE accounts (
  account_id TEXT NOT NULL PRIMARY KEY,
  login TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,                   -- DICOM person name of a member of staff
  roles TEXT NOT NULL,                  -- words, space between
  disabled INTEGER NOT NULL,
  created INTEGER NOT NULL,
  password TEXT NOT NULL                -- encoded hash; '' until one is set
) STRICT;

CREATE TABLE account_links (
  account_id TEXT NOT NULL PRIMARY KEY REFERENCES accounts ON DELETE CASCADE,
  digest BLOB NOT NULL UNIQUE,
  setup INTEGER NOT NULL,
  expires INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
  digest BLOB NOT NULL PRIMARY KEY,
  session_id TEXT NOT NULL UNIQUE,
  account_id TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE,
  address TEXT NOT NULL,
  created INTEGER NOT NULL,
  seen INTEGER NOT NULL,
  expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_of_account ON sessions (account_id);

CREATE TABLE tokens (
  token_id TEXT NOT NULL PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE,
  label TEXT NOT NULL,
  owner TEXT NOT NULL,                  -- account id; '' for a system
  actions TEXT NOT NULL,                -- words, space between
  created INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  last_used INTEGER NOT NULL,
  revoked INTEGER NOT NULL
) STRICT;

-- Failed log-ins by hashed login name or address.
CREATE TABLE login_tries (
  key TEXT NOT NULL PRIMARY KEY,
  failures INTEGER NOT NULL,
  last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The latest time this table was told: a clock set back shows against it.
CREATE TABLE access_clock (
  one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
  latest INTEGER NOT NULL
) STRICT;
INSERT INTO access_clock VALUES (1, 0);
