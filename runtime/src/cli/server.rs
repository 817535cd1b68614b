//! The server that a command talks to.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;
use url::Url;

use crate::client::Client;

/// Where the server is, and who asks.
#[derive(Args)]
pub(super) struct Server {
    /// The server.
    #[arg(long, value_name = "URL", env = "WEIR_SERVER", default_value = "http://127.0.0.1:8000")]
    server: Url,

    /// A file with the API key, which is otherwise in the variable WEIR_API_KEY, where the server wants one.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

impl Server {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// When the key cannot be read or sent.
    #[expect(clippy::disallowed_methods, reason = "this is where the environment comes in, and a key is no setting")]
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let from =
            self.api_key_file.as_ref().map_or_else(|| "WEIR_API_KEY".to_owned(), |file| file.display().to_string());
        let key = match &self.api_key_file {
            Some(file) => Some(std::fs::read_to_string(file).with_context(|| from.clone())?),
            None => std::env::var("WEIR_API_KEY").ok(),
        };
        let key = key.as_deref().map(str::trim).filter(|key| !key.is_empty());
        if key.is_some_and(|key| key.lines().count() > 1) {
            bail!("{from} has more than one line: it must have the key alone");
        }
        // Whoever names a server means it, wherever it is.
        Client::new(self.server.clone(), &["0.0.0.0/0", "::/0"], key, 1)
    }
}

/// All items of a list, page by page.
///
/// # Errors
/// When the server refuses, or does not answer.
pub(super) async fn all(client: &Client, list: &str) -> anyhow::Result<Vec<Value>> {
    let (mut items, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut url = client.url(&[list])?;
        if let Some(cursor) = &cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        let mut page = client.get(url.clone()).await?;
        match (page.get_mut("items").map(Value::take), page.get_mut("next_cursor").map(Value::take)) {
            (Some(Value::Array(more)), Some(Value::String(next))) if !more.is_empty() => {
                items.extend(more);
                cursor = Some(next);
            }
            (Some(Value::Array(more)), Some(Value::Null)) => {
                items.extend(more);
                return Ok(items);
            }
            _ => bail!("{url} answered, and not as a server of Weir does: is it one?"),
        }
    }
}

/// A text member of an answer; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}
