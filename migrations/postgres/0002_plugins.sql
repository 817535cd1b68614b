-- Plugins: components by what they are, and what people call them.

-- A component never changes: its key is the SHA-256 of its bytes.
CREATE TABLE plugins (
    digest      bytea   NOT NULL PRIMARY KEY,
    size        bigint  NOT NULL,                         -- bytes of the component
    imports     bytea   NOT NULL,                         -- JSON: names of interfaces
    created_at  bigint  NOT NULL,
    component   bytea   NOT NULL
);

-- What a component said when it was asked for its tools, once.
CREATE TABLE plugin_tools (
    digest      bytea   NOT NULL REFERENCES plugins (digest),
    n           bigint  NOT NULL,                         -- its place in the list
    name        text    NOT NULL,
    tool        bytea   NOT NULL,                         -- JSON: a Tool of the Model Context Protocol
    PRIMARY KEY (digest, n)
);

-- Serves definitions that name a tool and no plugin.
CREATE INDEX plugin_tools_name ON plugin_tools (name);

-- A version of a name is one component for ever; the newest row of a name is what the name means.
CREATE TABLE plugin_versions (
    id          uuid    NOT NULL PRIMARY KEY,             -- UUID version 7: later uploads sort behind
    name        text    NOT NULL,
    version     text    NOT NULL,
    digest      bytea   NOT NULL REFERENCES plugins (digest),
    created_at  bigint  NOT NULL
);

CREATE UNIQUE INDEX plugin_versions_version ON plugin_versions (name, version);
-- Serves what a name means now.
CREATE INDEX plugin_versions_newest ON plugin_versions (name, id);
-- Serves what a digest is called.
CREATE INDEX plugin_versions_digest ON plugin_versions (digest, id);

-- What the plugins of a revision were when it was saved: JSON, step name to digest. NULL: it calls no tool.
ALTER TABLE revisions ADD COLUMN tool_lock bytea;
