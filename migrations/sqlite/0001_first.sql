-- The tables of Weir. Times are microseconds since the Unix epoch; JSON is kept as bytes, because a NUL character is
-- valid JSON and one bad value must not fail a whole batch.

CREATE TABLE workflows (
    id          BLOB    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL,
    is_active   INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    revision    INTEGER NOT NULL CHECK (revision >= 1),   -- the current one
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) WITHOUT ROWID;

-- A revision never changes: runs in flight keep the one that they started with.
CREATE TABLE revisions (
    workflow_id BLOB    NOT NULL REFERENCES workflows (id),
    number      INTEGER NOT NULL CHECK (number >= 1),
    name        TEXT    NOT NULL,
    definition  BLOB    NOT NULL,                         -- JSON, as it was sent
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (workflow_id, number)
) WITHOUT ROWID;

CREATE TABLE endpoints (
    id              BLOB    NOT NULL PRIMARY KEY,
    workflow_id     BLOB    NOT NULL REFERENCES workflows (id),
    path            TEXT    NOT NULL,
    is_active       INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    secret          BLOB    NOT NULL,                     -- sealed with the master key
    previous_secret BLOB,                                 -- sealed; valid until previous_until
    previous_until  INTEGER,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL
) WITHOUT ROWID;

-- Serves the trigger, and makes a path unique.
CREATE UNIQUE INDEX endpoints_path ON endpoints (path);
-- Serves the list of a workflow's endpoints.
CREATE INDEX endpoints_workflow ON endpoints (workflow_id, id);

CREATE TABLE runs (
    id          BLOB    NOT NULL PRIMARY KEY,             -- UUID version 7: inserts do not scatter
    workflow_id BLOB    NOT NULL,
    revision    INTEGER NOT NULL,
    input       BLOB    NOT NULL,                         -- JSON
    idem_key    TEXT,
    idem_hash   BLOB,                                     -- SHA-256 of the body that came with the key
    created_at  INTEGER NOT NULL,
    due_at      INTEGER,                                  -- when someone must look at it; NULL: it is finished
    claim       BLOB,                                     -- token of whoever may advance it
    lease_until INTEGER,
    started_at  INTEGER,
    seq         INTEGER NOT NULL DEFAULT 0,               -- appends so far
    inbox       INTEGER NOT NULL DEFAULT 0,               -- messages so far, read or not
    interrupts  INTEGER NOT NULL DEFAULT 0,               -- claims in a row that ended without progress
    step_index  INTEGER NOT NULL DEFAULT 0,               -- top-level steps done
    outcome     TEXT CHECK (outcome IN ('SUCCEEDED', 'FAILED', 'CANCELED')),
    finished_at INTEGER,
    error       BLOB,                                     -- JSON
    CHECK ((outcome IS NULL) = (due_at IS NOT NULL)),
    CHECK (outcome IS NULL OR claim IS NULL),
    CHECK ((claim IS NULL) = (lease_until IS NULL))
) WITHOUT ROWID;

-- Serves the claim of due runs; its size is the number of unfinished runs, never of finished ones.
CREATE INDEX runs_due ON runs (due_at) WHERE due_at IS NOT NULL;
-- Serves the list of a workflow's runs.
CREATE INDEX runs_list ON runs (workflow_id, id);
-- Serves the list of runs that went wrong.
CREATE INDEX runs_failed ON runs (workflow_id, id) WHERE outcome IN ('FAILED', 'CANCELED');
-- Serves idempotent creation.
CREATE UNIQUE INDEX runs_idem ON runs (workflow_id, idem_key) WHERE idem_key IS NOT NULL;

-- One row for each append, holding its events. Append-only.
CREATE TABLE journal (
    run_id BLOB    NOT NULL,
    seq    INTEGER NOT NULL,                              -- 1 for the first append
    claim  BLOB    NOT NULL,                              -- token under which it was written
    events BLOB    NOT NULL,                              -- JSON array
    PRIMARY KEY (run_id, seq)
) WITHOUT ROWID;

-- What arrived from outside. Read by whoever holds the claim.
CREATE TABLE inbox (
    run_id  BLOB    NOT NULL,
    n       INTEGER NOT NULL,                             -- 1 for the first message
    message BLOB    NOT NULL,                             -- JSON
    PRIMARY KEY (run_id, n)
) WITHOUT ROWID;

-- For people who look with a shell.
CREATE VIEW runs_readable AS
SELECT lower(hex(id)) AS id,
       lower(hex(workflow_id)) AS workflow_id,
       revision,
       CASE WHEN outcome IS NOT NULL THEN outcome
            WHEN claim IS NOT NULL THEN 'RUNNING'
            WHEN seq = 0 THEN 'QUEUED'
            ELSE 'WAITING' END AS status,
       step_index,
       CAST(input AS TEXT) AS input,
       strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1e6, 'unixepoch') AS created_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', due_at / 1e6, 'unixepoch') AS due_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', finished_at / 1e6, 'unixepoch') AS finished_at,
       CAST(error AS TEXT) AS error
FROM runs;

CREATE VIEW journal_readable AS
SELECT lower(hex(run_id)) AS run_id, seq, CAST(events AS TEXT) AS events FROM journal;
