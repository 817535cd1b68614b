-- Who may come in, and which master key the secrets are sealed with.

-- A key is shown once and kept as its digest: it has 256 random bits, so nobody finds it by trying.
CREATE TABLE api_keys (
    name        TEXT    NOT NULL PRIMARY KEY,
    hash        BLOB    NOT NULL,                         -- SHA-256 of the key
    created_at  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE UNIQUE INDEX api_keys_hash ON api_keys (hash);

-- Facts about this database by name. `master_key`: something known, sealed with the key that all processes must have.
CREATE TABLE facts (
    name        TEXT    NOT NULL PRIMARY KEY,
    value       BLOB    NOT NULL
) WITHOUT ROWID;
