-- Which account a person of the identity provider has. The subject is hashed with its issuer: the
-- box need not know it, only recognise it.

CREATE TABLE oidc_subjects (
  subject TEXT PRIMARY KEY,
  account_id TEXT NOT NULL REFERENCES accounts (account_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
