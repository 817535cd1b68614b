-- What plugins ask for and are granted, the secrets of their requests, and which version a name means.

-- What the component says it wants: JSON, its section weir:request. NULL: nothing, it came before requests did.
ALTER TABLE plugins ADD COLUMN request BLOB;

-- A name means its active version. NULL: it is not that one.
ALTER TABLE plugin_versions ADD COLUMN activated_at INTEGER;
-- When it was retired: no definition may name it any more.
ALTER TABLE plugin_versions ADD COLUMN retired_at INTEGER;
-- 1: it wants more than was granted when it came, and becomes active when it is granted something.
ALTER TABLE plugin_versions ADD COLUMN waits INTEGER NOT NULL DEFAULT 0;

-- Until now a name meant its newest version.
UPDATE plugin_versions SET activated_at = created_at
 WHERE id = (SELECT n.id FROM plugin_versions n WHERE n.name = plugin_versions.name ORDER BY n.id DESC LIMIT 1);

-- Serves what a name means.
CREATE INDEX plugin_versions_active ON plugin_versions (name, activated_at);

-- What a plugin may do.
CREATE TABLE plugin_grants (
    digest      BLOB    NOT NULL PRIMARY KEY REFERENCES plugins (digest),
    rights      BLOB    NOT NULL,                         -- JSON: rules, settings, limits
    granted_at  INTEGER NOT NULL
) WITHOUT ROWID;

-- What plugins did with their rights, and what they were denied; written now and then.
CREATE TABLE plugin_uses (
    digest      BLOB    NOT NULL REFERENCES plugins (digest),
    what        TEXT    NOT NULL,                         -- such as: rule GET https://api.example.com/
    count       INTEGER NOT NULL,
    last_at     INTEGER NOT NULL,
    PRIMARY KEY (digest, what)
) WITHOUT ROWID;

-- Some of the last calls of a plugin, to try another version with.
CREATE TABLE plugin_calls (
    digest      BLOB    NOT NULL REFERENCES plugins (digest),
    id          BLOB    NOT NULL,                         -- UUID version 7: later calls sort behind
    call        BLOB    NOT NULL,                         -- JSON: arguments, requests with their responses, outcome
    PRIMARY KEY (digest, id)
) WITHOUT ROWID;

-- Secrets of requests, sealed with the master key.
CREATE TABLE secrets (
    name        TEXT    NOT NULL PRIMARY KEY,
    sealed      BLOB    NOT NULL,
    origins     BLOB    NOT NULL,                         -- JSON: where it may go
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) WITHOUT ROWID;

-- Serves the question whether any revision pins a plugin.
CREATE INDEX revisions_with_tools ON revisions (workflow_id, number) WHERE tool_lock IS NOT NULL;
