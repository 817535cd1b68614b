//! What a call used of its rights, and what it was denied. It decides nothing.

use std::collections::{BTreeMap, BTreeSet};

/// Denials of one call that are kept.
const DENIALS_MAX: usize = 16;

/// A request that may be made, as it is counted.
pub(super) struct Sending {
    pub(super) origin: String,
    /// The rule that lets it, as [`super::HttpRule::exercise`] writes it.
    pub(super) rule: String,
    pub(super) secrets: BTreeSet<String>,
    pub(super) bytes: u64,
}

/// Something that a plugin wanted and did not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What: `POST https://api.example.com/path`, or `the secret x`.
    pub wanted: String,
    /// Which rule is missing.
    pub why: String,
}

/// What a call sent to a host, and received from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostUse {
    /// Requests that were sent.
    pub requests: u32,
    /// Bytes of their bodies.
    pub sent_bytes: u64,
    /// Bytes of the bodies that came back.
    pub received_bytes: u64,
}

/// What a call really used of its rights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// By origin, such as `https://api.example.com`.
    pub hosts: BTreeMap<String, HostUse>,
    /// Methods of the grant's rules, as [`super::HttpRule::exercise`] writes them.
    pub rules: BTreeSet<String>,
    /// Names of secrets that left with a request.
    pub secrets: BTreeSet<String>,
    /// Names of settings that were read.
    pub settings: BTreeSet<String>,
    /// What was denied, up to 16.
    pub denied: Vec<Denial>,
    /// How many requests used each rule and each secret. A rule has a space in it, and the name of a secret none.
    requests: BTreeMap<String, u32>,
}

impl Uses {
    pub(super) fn deny(&mut self, wanted: String, why: String) {
        if self.denied.len() < DENIALS_MAX {
            self.denied.push(Denial { wanted, why });
        }
    }

    /// Counts a request that is on its way: before that is certain, so that it is counted when the call ends meanwhile.
    pub(super) fn leaves(&mut self, sending: &Sending) {
        let host = self.hosts.entry(sending.origin.clone()).or_default();
        host.requests = host.requests.saturating_add(1);
        host.sent_bytes = host.sent_bytes.saturating_add(sending.bytes);
        self.rules.insert(sending.rule.clone());
        self.secrets.extend(sending.secrets.iter().cloned());
        for used in sending.secrets.iter().chain([&sending.rule]) {
            *self.requests.entry(used.clone()).or_default() += 1;
        }
    }

    /// Takes back a request that [left](Self::leaves) and was stopped: nothing of it was sent.
    pub(super) fn stays(&mut self, sending: &Sending) {
        if let Some(host) = self.hosts.get_mut(&sending.origin) {
            host.requests = host.requests.saturating_sub(1);
            host.sent_bytes = host.sent_bytes.saturating_sub(sending.bytes);
            if host.requests == 0 {
                self.hosts.remove(&sending.origin);
            }
        }
        for used in sending.secrets.iter().chain([&sending.rule]) {
            let left = self.requests.get_mut(used).map_or(0, |count| {
                *count = count.saturating_sub(1);
                *count
            });
            if left == 0 {
                self.rules.remove(used);
                self.secrets.remove(used);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stopped_was_not_used() {
        let sending = |origin: &str, bytes| {
            let (rule, secrets) = (format!("GET {origin}/"), BTreeSet::from(["token".to_owned()]));
            Sending { origin: origin.to_owned(), rule, secrets, bytes }
        };
        let (one, other) = (sending("https://a", 7), sending("https://b", 3));
        let mut uses = Uses::default();
        uses.leaves(&one);
        let before = uses.clone();
        for sending in [&other, &one] {
            uses.leaves(sending);
            uses.stays(sending);
        }
        assert_eq!((&uses.hosts, &uses.rules, &uses.secrets), (&before.hosts, &before.rules, &before.secrets));
        uses.stays(&one);
        assert!(uses.hosts.is_empty() && uses.rules.is_empty() && uses.secrets.is_empty());
    }
}
