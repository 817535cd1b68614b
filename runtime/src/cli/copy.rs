//! `weir copy`: a whole database into an empty one.

use anyhow::{Context as _, bail};

use super::print;
use crate::config::Config;
use crate::store::{self, Location};

pub(super) async fn run(from: &str, to: &str, config: &Config) -> anyhow::Result<()> {
    if from == to {
        bail!("--from and --to name the same database");
    }
    let (from, to) = (config.database("--from", from)?, config.database("--to", to)?);
    let tell = |table: &'static str, rows: i64| {
        // Progress only: whoever does not read it wants the copy all the same.
        let _ = print(&format!("{table:<16} {rows:>12} rows\n"));
    };
    let copied = store::copy(&from, &to, tell).await;
    copied.context("nothing was copied, and the target is as it was")?;
    let key = match (&from, &to) {
        (Location::Embedded { .. }, Location::Cluster { .. }) => {
            "Give all processes on the copy the master key of the source: the text in its file (`weir.key` in the data \
             directory), in WEIR_MASTER_KEY or in their `master_key_file`."
        }
        _ => "Start a server on the copy with the master key of the source (WEIR_MASTER_KEY or `master_key_file`).",
    };
    print(&format!(
        "Every table of the copy has as many rows as that of the source.\nThe secrets of endpoints and of requests are sealed with the master key, \
         which is not in the database. {key}\n"
    ))
}
