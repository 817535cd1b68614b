-- Who may come in, and which master key the secrets are sealed with.

-- A key is shown once and kept as its digest: it has 256 random bits, so nobody finds it by trying.
CREATE TABLE api_keys (
    name        text    NOT NULL PRIMARY KEY,
    hash        bytea   NOT NULL,                         -- SHA-256 of the key
    created_at  bigint  NOT NULL
);

CREATE UNIQUE INDEX api_keys_hash ON api_keys (hash);

-- Facts about this database by name. `master_key`: something known, sealed with the key that all processes must have.
CREATE TABLE facts (
    name        text    NOT NULL PRIMARY KEY,
    value       bytea   NOT NULL
);
