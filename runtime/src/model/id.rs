//! Typed ids, so that a run can never be taken for a workflow.

/// Declares an id type around a UUID.
macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl From<uuid::Uuid> for $name {
            fn from(id: uuid::Uuid) -> Self {
                Self(id)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

typed_id!(
    /// A workflow: a name that revisions belong to.
    WorkflowId
);
typed_id!(
    /// One execution of a revision. Version 7, so ids sort by creation.
    RunId
);
typed_id!(
    /// A webhook endpoint.
    EndpointId
);
typed_id!(
    /// The fence of a claim: random for each claim and compared on every append.
    ///
    /// A counter would not do: a claim that did not wait for the disk can be lost with a database crash, and the
    /// next claimer would get the same number.
    ClaimToken
);
