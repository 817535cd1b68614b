//! The one way out: an HTTP client that dials only addresses which the [`Policy`] admits.
//!
//! The guard sits where the connection is made: a name is resolved once, **every** address it resolved to is checked
//! together with the port, and exactly these addresses are dialled, so a name cannot change its mind in between
//! (DNS rebinding). A URL with a literal address is checked before it is sent. Redirects are followed here, hop by
//! hop, through the same checks. No proxy of the environment is used: it would dial on the caller's behalf.
//!
//! Secrets take the place of their placeholders here, at the last moment, and are taken out of what comes back.

mod automaton;
mod client;
mod origin;
mod policy;
mod scrub;
mod secrets;
mod units;

pub use client::{Broken, Egress, EgressError, EgressSettings, Incoming, Request, Response};
pub use origin::{HostError, HostPattern, Origin, Scheme};
pub use policy::{Denied, Policy, RuleError, is_public};
pub use secrets::{Placeholders, Secret, Withheld};
