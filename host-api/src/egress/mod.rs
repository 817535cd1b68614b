//! The one way out: an HTTP client that dials only addresses which the [`Policy`] admits.
//!
//! The guard sits where the connection is made: a name is resolved once, **every** address it resolved to is checked
//! together with the port, and exactly these addresses are dialled, so a name cannot change its mind in between
//! (DNS rebinding). A URL with a literal address is checked before it is sent. Redirects are followed here, hop by
//! hop, through the same checks. No proxy of the environment is used: it would dial on the caller's behalf.

mod client;
mod policy;

pub use client::{Egress, EgressError, EgressSettings, Request, Response};
pub use policy::{Denied, Policy, RuleError, is_public};
