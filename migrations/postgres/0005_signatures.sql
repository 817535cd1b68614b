-- Who vouches for a component. A table of its own: a column behind a large component is read through all of its pages.
CREATE TABLE plugin_signatures (
    digest      bytea   NOT NULL PRIMARY KEY REFERENCES plugins (digest),
    signature   bytea   NOT NULL,                         -- ed25519, 64 bytes
    signed_by   bytea   NOT NULL,                         -- the public key, 32 bytes
    created_at  bigint  NOT NULL
);
