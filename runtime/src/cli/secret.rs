//! `weir secret`: the secrets that a server sends along with requests. A value is never on a command line.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::rights::value;
use super::server::{Server, all, text};
use super::{print, printable};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Set a secret, in place of one with the same name. Its value is typed, unseen, or comes from standard input or a file.
    Set {
        /// Its name, as plugins and definitions say it.
        #[arg(value_name = "NAME")]
        name: String,

        /// Where it may go: `api.example.com`, `*.example.com`, `http://10.0.0.7:8080`. Can be given more than once.
        #[arg(long = "host", value_name = "HOST", required = true)]
        hosts: Vec<String>,

        /// The file with its value.
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,

        #[command(flatten)]
        server: Server,
    },

    /// Show the names of all secrets, where they may go, and when they were set. Nobody is shown a value.
    List {
        #[command(flatten)]
        server: Server,
    },

    /// Delete a secret. Requests that need it fail from then on.
    Delete {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,

        #[command(flatten)]
        server: Server,
    },
}

pub(super) async fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Set { name, hosts, from_file, server } => {
            let client = server.client()?;
            let secret = match from_file {
                Some(file) => std::fs::read_to_string(file).with_context(|| file.display().to_string())?,
                None => typed(name)?,
            };
            let url = client.url(&["secrets", name])?;
            let body = json!({"value": value(&secret), "hosts": hosts});
            let (status, set) = client.json(Method::PUT, url, &body).await?;
            let done = if status == StatusCode::CREATED { "set" } else { "set anew" };
            print(&printable(&format!("the secret `{name}` is {done}; it may go to {}\n", joined(&set["hosts"]))))
        }
        Command::List { server } => {
            let secrets = all(&server.client()?, "secrets").await?;
            let line = |secret: &Value| {
                format!("{}  {}  {}\n", text(secret, "updated_at"), text(secret, "name"), joined(&secret["hosts"]))
            };
            print(&printable(&secrets.iter().map(line).collect::<String>()))
        }
        Command::Delete { name, server } => {
            let client = server.client()?;
            client.delete(client.url(&["secrets", name])?).await?;
            print(&printable(&format!("the secret `{name}` is deleted\n")))
        }
    }
}

/// The value from standard input; from a terminal without showing it.
fn typed(name: &str) -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        return Ok(rpassword::prompt_password(format!("value of `{name}`: "))?);
    }
    let mut value = String::new();
    std::io::stdin().read_to_string(&mut value).context("standard input")?;
    if value.is_empty() {
        bail!("there is no value on standard input");
    }
    Ok(value)
}

fn joined(list: &Value) -> String {
    let texts: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    texts.join(", ")
}
