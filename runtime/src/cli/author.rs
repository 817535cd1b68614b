//! `weir plugin new`, `build`, `dev` and `test`: from nothing to a component that does what it should.

use anyhow::{Context as _, bail};
use clap::Subcommand;

use super::build::{self, Sources};
use super::create::{self, Language};
use super::dev::{self, Call};
use super::rights::Rights;
use super::test::{self, EXAMPLES, Test};
use crate::config::Config;
use crate::telemetry;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make the directory of a new plugin, which builds and passes its tests as it is.
    New {
        /// Its name, and the directory's: 1 to 64 of A-Z a-z 0-9 - and _.
        #[arg(value_name = "NAME")]
        name: String,

        /// In which language it is written.
        #[arg(long, value_name = "LANGUAGE", value_enum, default_value = "rust")]
        lang: Language,
    },

    /// Build a plugin, and write its component, as a server would keep it, to NAME.wasm beside its sources.
    ///
    /// What builds it is found, or installed, or it is said what is missing.
    Build {
        #[command(flatten)]
        sources: Sources,
    },

    /// Build a plugin again whenever its sources change, and call a tool of it again, until Ctrl-C.
    Dev {
        #[command(flatten)]
        sources: Sources,

        /// The tool, and its arguments as JSON.
        #[arg(long, num_args = 1..=2, value_names = ["TOOL", "ARGUMENTS"])]
        call: Vec<String>,

        #[command(flatten)]
        rights: Rights,
    },

    /// Make recorded calls of a plugin again, without a network, and tell what is not as it was.
    ///
    /// Every file in the folder of cassettes is a call: its tool, arguments, settings, the names of its secrets (never
    /// their values), its requests with what came back, and how it ended. Each request must be the recorded one, in its
    /// order, and so must the end. A call has the rights that it was recorded with, unless flags say others.
    #[command(after_help = EXAMPLES)]
    Test(Test),
}

pub(super) async fn run(command: &Command, config: &Config) -> anyhow::Result<()> {
    match command {
        Command::New { name, lang } => create::new(name, *lang),
        Command::Build { sources } => build::run(sources, config).await,
        Command::Dev { sources, call, rights } => {
            telemetry::start(&Config { log_level: super::plugin::LOG_LEVEL.to_owned(), ..config.clone() })?;
            let call = match &call[..] {
                [] => None,
                [tool] => Some(Call { tool, arguments: serde_json::json!({}), rights }),
                [tool, arguments] => {
                    let arguments = serde_json::from_str(arguments).context("the arguments are not JSON")?;
                    Some(Call { tool, arguments, rights })
                }
                _ => bail!("--call takes a tool and its arguments"),
            };
            dev::run(sources, call.as_ref(), config).await
        }
        Command::Test(test) => test::run(test, config).await,
    }
}
