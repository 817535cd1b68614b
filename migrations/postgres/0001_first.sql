-- The tables of Weir, as in ../sqlite. Times are microseconds since the Unix epoch; JSON is kept as bytes, because a NUL
-- character is valid JSON, `jsonb` refuses it, and one bad value must not fail a whole batch.

CREATE TABLE workflows (
    id          uuid    NOT NULL PRIMARY KEY,
    name        text    NOT NULL,
    is_active   boolean NOT NULL,
    revision    bigint  NOT NULL CHECK (revision >= 1),   -- the current one
    created_at  bigint  NOT NULL,
    updated_at  bigint  NOT NULL
);

-- A revision never changes: runs in flight keep the one that they started with.
CREATE TABLE revisions (
    workflow_id uuid    NOT NULL REFERENCES workflows (id),
    number      bigint  NOT NULL CHECK (number >= 1),
    name        text    NOT NULL,
    definition  bytea   NOT NULL,                         -- JSON, as it was sent
    created_at  bigint  NOT NULL,
    PRIMARY KEY (workflow_id, number)
);

CREATE TABLE endpoints (
    id              uuid    NOT NULL PRIMARY KEY,
    workflow_id     uuid    NOT NULL REFERENCES workflows (id),
    path            text    NOT NULL,
    is_active       boolean NOT NULL,
    secret          bytea   NOT NULL,                     -- sealed with the master key
    previous_secret bytea,                                -- sealed; valid until previous_until
    previous_until  bigint,
    created_at      bigint  NOT NULL,
    updated_at      bigint  NOT NULL
);

-- Serves the trigger, and makes a path unique.
CREATE UNIQUE INDEX endpoints_path ON endpoints (path);
-- Serves the list of a workflow's endpoints.
CREATE INDEX endpoints_workflow ON endpoints (workflow_id, id);

-- Room in every page, so that an update of columns without an index stays in the page and touches no index.
CREATE TABLE runs (
    id          uuid    NOT NULL PRIMARY KEY,             -- UUID version 7: inserts do not scatter
    workflow_id uuid    NOT NULL,
    revision    bigint  NOT NULL,
    input       bytea   NOT NULL,                         -- JSON
    idem_key    text,
    idem_hash   bytea,                                    -- SHA-256 of the body that came with the key
    created_at  bigint  NOT NULL,
    due_at      bigint,                                   -- when someone must look at it; NULL: it is finished
    claim       uuid,                                     -- token of whoever may advance it
    lease_until bigint,
    started_at  bigint,
    seq         bigint  NOT NULL DEFAULT 0,               -- appends so far
    inbox       bigint  NOT NULL DEFAULT 0,               -- messages so far, read or not
    interrupts  bigint  NOT NULL DEFAULT 0,               -- claims in a row that ended without progress
    step_index  bigint  NOT NULL DEFAULT 0,               -- top-level steps done
    outcome     text    CHECK (outcome IN ('SUCCEEDED', 'FAILED', 'CANCELED')),
    finished_at bigint,
    error       bytea,                                    -- JSON
    CHECK ((outcome IS NULL) = (due_at IS NOT NULL)),
    CHECK (outcome IS NULL OR claim IS NULL),
    CHECK ((claim IS NULL) = (lease_until IS NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

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
    run_id uuid   NOT NULL,
    seq    bigint NOT NULL,                               -- 1 for the first append
    claim  uuid   NOT NULL,                               -- token under which it was written
    events bytea  NOT NULL,                               -- JSON array
    PRIMARY KEY (run_id, seq)
);

-- What arrived from outside. Read by whoever holds the claim.
CREATE TABLE inbox (
    run_id  uuid   NOT NULL,
    n       bigint NOT NULL,                              -- 1 for the first message
    message bytea  NOT NULL,                              -- JSON
    PRIMARY KEY (run_id, n)
);

-- For people who look with psql.
CREATE VIEW runs_readable AS
SELECT id,
       workflow_id,
       revision,
       CASE WHEN outcome IS NOT NULL THEN outcome
            WHEN claim IS NOT NULL THEN 'RUNNING'
            WHEN seq = 0 THEN 'QUEUED'
            ELSE 'WAITING' END AS status,
       step_index,
       convert_from(input, 'UTF8') AS input,
       to_timestamp(created_at / 1e6) AS created_at,
       to_timestamp(due_at / 1e6) AS due_at,
       to_timestamp(finished_at / 1e6) AS finished_at,
       convert_from(error, 'UTF8') AS error
FROM runs;

CREATE VIEW journal_readable AS
SELECT run_id, seq, convert_from(events, 'UTF8') AS events FROM journal;
