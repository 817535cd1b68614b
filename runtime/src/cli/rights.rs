//! What a tool may reach when it is called without a server: nothing, unless the command line says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use weir_host::egress::Secret;
use weir_host::plugin::{Flaw, Grant, Reach, Request, Uses, read_json};

use super::printable;
use crate::model::names::secret_value_fault;
use crate::telemetry::one_line;

/// Rights of a call.
#[derive(Args)]
pub(super) struct Rights {
    /// Grant everything that the plugin asks for. Without it, and without --grant, it reaches nothing.
    #[arg(long, conflicts_with = "grant")]
    allow: bool,

    /// Grant what this file says: JSON, as `PUT /plugins/{plugin}/grant` takes it.
    #[arg(long, value_name = "FILE")]
    grant: Option<PathBuf>,

    /// Set a setting that the plugin knows. Can be given more than once.
    #[arg(long = "setting", value_name = "NAME=VALUE", value_parser = pair)]
    settings: Vec<(String, String)>,

    /// Give a secret that the plugin asks for: the file has its value. Can be given more than once.
    ///
    /// It goes to the hosts of those rules of the plugin that name it, and needs --allow or --grant.
    #[arg(long = "secret", value_name = "NAME=FILE", value_parser = pair)]
    secrets: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=...")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A secret, as a file or a pipe has it: an end of the line at its end does not belong to it.
pub(super) fn value(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

impl Rights {
    /// Whether a secret is given.
    pub(super) fn brings_secrets(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// What is granted to a plugin that asks for `request`: what the flags say, in place of `before`. Settings that they
    /// do not name stay.
    ///
    /// # Errors
    /// When the file of the grant cannot be read.
    pub(super) fn grant(&self, request: &Request, before: Grant) -> anyhow::Result<Grant> {
        let mut grant = match &self.grant {
            Some(file) => read(file, request).with_context(|| file.display().to_string())?,
            None if self.allow => Grant { settings: before.settings, ..Grant::all_of(request) },
            None => before,
        };
        grant.settings.extend(self.settings.iter().cloned().collect::<BTreeMap<_, _>>());
        Ok(grant)
    }

    /// What the tools of a plugin that asks for `request` may reach.
    ///
    /// # Errors
    /// What cannot be granted, or read.
    pub(super) fn reach(&self, request: Option<&Request>) -> anyhow::Result<Arc<Reach>> {
        let request = request.cloned().unwrap_or_default();
        let grant = self.grant(&request, Grant::default())?;
        let grant = Grant::read(&json!(grant), &request).map_err(|flaws| refused(&flaws))?;
        if !self.secrets.is_empty() && !self.allow && self.grant.is_none() {
            bail!("--secret needs --allow or --grant: without a grant no secret goes anywhere");
        }
        let mut secrets = Vec::new();
        for (name, file) in &self.secrets {
            let rules = request.http.iter().filter(|rule| rule.secrets.contains(name));
            let origins: Vec<_> = rules.map(weir_host::plugin::HttpRule::origin).collect();
            if origins.is_empty() {
                bail!("--secret {name}: no rule of the plugin names such a secret");
            }
            let text = std::fs::read_to_string(file).with_context(|| format!("--secret {name}={file}"))?;
            let text = value(&text);
            // A server does not take another one either.
            if let Some(message) = secret_value_fault(text) {
                bail!("--secret {name}={file}: {message}");
            }
            secrets.push(Arc::new(Secret::new(name.clone(), text.to_owned(), origins)));
        }
        Ok(Arc::new(Reach { request, grant, secrets }))
    }
}

fn read(file: &Path, request: &Request) -> anyhow::Result<Grant> {
    Grant::read(&clear(&std::fs::read(file)?)?, request).map_err(|flaws| refused(&flaws))
}

/// JSON in which no member is twice: there it would be unclear what somebody decided.
///
/// # Errors
/// When it is none.
pub(super) fn clear(json: &[u8]) -> anyhow::Result<Value> {
    let (value, twice) = read_json(json)?;
    if twice.is_empty() { Ok(value) } else { Err(refused(&twice)) }
}

fn refused(flaws: &[Flaw]) -> anyhow::Error {
    let told: Vec<String> = flaws.iter().map(|Flaw { pointer, message }| format!("{pointer}: {message}")).collect();
    anyhow::anyhow!(printable(&told.join("\n  ")))
}

/// What a call did with its rights and was denied, for a person.
pub(super) fn told(uses: &Uses) -> String {
    let mut text = String::new();
    for (origin, used) in &uses.hosts {
        let (requests, sent, received) = (used.requests, used.sent_bytes, used.received_bytes);
        text += &format!("reached {origin}: {requests} requests, {sent} bytes sent, {received} received\n");
    }
    for denial in &uses.denied {
        text += &one_line(&format!("denied {}: {}", denial.wanted, denial.why));
        text += "\n";
    }
    printable(&text)
}
