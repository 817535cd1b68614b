//! Every table and column of both databases, for whoever copies one whole.

/// What a column holds.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Uuid,
    Int,
    Text,
    Bytes,
    Bool,
}

use Kind::{Bool, Bytes, Int, Text, Uuid as Id};

/// A table of both databases.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// How many of its columns are its primary key; they come first.
    pub(super) key: usize,
    pub(super) columns: &'static [(&'static str, Kind)],
    /// Rows that are held at once.
    pub(super) page: usize,
}

/// Every table, those that others refer to first. A claim is not copied (`runs.claim` and `runs.lease_until`): nobody
/// holds a run of the copy. The run is due when it was, and what made it a suspect still counts.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "workflows",
        key: 1,
        columns: &[
            ("id", Id),
            ("name", Text),
            ("is_active", Bool),
            ("revision", Int),
            ("created_at", Int),
            ("updated_at", Int),
        ],
        page: 500,
    },
    Table {
        name: "revisions",
        key: 2,
        columns: &[
            ("workflow_id", Id),
            ("number", Int),
            ("name", Text),
            ("definition", Bytes),
            ("created_at", Int),
            ("tool_lock", Bytes),
        ],
        page: 100,
    },
    Table {
        name: "endpoints",
        key: 1,
        columns: &[
            ("id", Id),
            ("workflow_id", Id),
            ("path", Text),
            ("is_active", Bool),
            ("secret", Bytes),
            ("previous_secret", Bytes),
            ("previous_until", Int),
            ("created_at", Int),
            ("updated_at", Int),
        ],
        page: 500,
    },
    Table {
        name: "runs",
        key: 1,
        columns: &[
            ("id", Id),
            ("workflow_id", Id),
            ("revision", Int),
            ("input", Bytes),
            ("idem_key", Text),
            ("idem_hash", Bytes),
            ("created_at", Int),
            ("due_at", Int),
            ("started_at", Int),
            ("seq", Int),
            ("inbox", Int),
            ("interrupts", Int),
            ("step_index", Int),
            ("outcome", Text),
            ("finished_at", Int),
            ("error", Bytes),
        ],
        page: 200,
    },
    Table {
        name: "journal",
        key: 2,
        columns: &[("run_id", Id), ("seq", Int), ("claim", Id), ("events", Bytes)],
        page: 100,
    },
    Table {
        name: "inbox",
        key: 2,
        columns: &[("run_id", Id), ("n", Int), ("message", Bytes), ("answers", Text)],
        page: 500,
    },
    Table {
        name: "plugins",
        key: 1,
        columns: &[
            ("digest", Bytes),
            ("size", Int),
            ("imports", Bytes),
            ("created_at", Int),
            ("component", Bytes),
            ("request", Bytes),
        ],
        page: 1,
    },
    Table {
        name: "plugin_tools",
        key: 2,
        columns: &[("digest", Bytes), ("n", Int), ("name", Text), ("tool", Bytes)],
        page: 100,
    },
    Table {
        name: "plugin_versions",
        key: 1,
        columns: &[
            ("id", Id),
            ("name", Text),
            ("version", Text),
            ("digest", Bytes),
            ("created_at", Int),
            ("activated_at", Int),
            ("retired_at", Int),
            ("waits", Int),
        ],
        page: 500,
    },
    Table {
        name: "plugin_grants",
        key: 1,
        columns: &[("digest", Bytes), ("rights", Bytes), ("granted_at", Int)],
        page: 500,
    },
    Table {
        name: "plugin_uses",
        key: 2,
        columns: &[("digest", Bytes), ("what", Text), ("count", Int), ("last_at", Int)],
        page: 500,
    },
    Table { name: "plugin_calls", key: 2, columns: &[("digest", Bytes), ("id", Id), ("call", Bytes)], page: 50 },
    Table {
        name: "secrets",
        key: 1,
        columns: &[("name", Text), ("sealed", Bytes), ("origins", Bytes), ("created_at", Int), ("updated_at", Int)],
        page: 500,
    },
    Table {
        name: "plugin_signatures",
        key: 1,
        columns: &[("digest", Bytes), ("signature", Bytes), ("signed_by", Bytes), ("created_at", Int)],
        page: 500,
    },
    Table { name: "api_keys", key: 1, columns: &[("name", Text), ("hash", Bytes), ("created_at", Int)], page: 500 },
    Table { name: "facts", key: 1, columns: &[("name", Text), ("value", Bytes)], page: 500 },
];
