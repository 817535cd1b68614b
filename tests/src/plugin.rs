//! Real plugins: the examples of this repository, as `plugins/build.sh` and `plugins/build-guest.sh` build them, and what
//! tests make of them.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use wasm_encoder::{CustomSection, Section as _};
use weir_host::egress::{Egress, EgressSettings, Policy};
use weir_host::plugin::{GuestLimits, HostLimits, OutboundLimits, PluginHost};

/// The examples, as `cargo` names their files.
pub const EXAMPLES: [&str; 10] = [
    "greet",
    "transform",
    "misbehave",
    "misbehave_listing",
    "approve",
    "csv_json",
    "github_issue",
    "html_text",
    "schema",
    "template",
];

/// The file of an example plugin.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn file(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let target = test.ancestors().nth(3).expect("a target directory");
    let languages = ["python", "javascript"];
    let path = if languages.iter().any(|language| name.ends_with(language)) {
        target.join(format!("guests/{name}.wasm"))
    } else {
        target.join(format!("wasm/wasm32-unknown-unknown/release/{name}.wasm"))
    };
    assert!(path.exists(), "{} is missing: `make plugins` builds it", path.display());
    path
}

/// The bytes of an example plugin.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(file(name)).expect("a plugin")
}

/// `plugin` with every `from` replaced by `to`, which is as long: another plugin, which nobody had to compile.
///
/// # Panics
/// When `from` is not there.
#[must_use]
pub fn patched(plugin: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "a patch moves nothing");
    let (mut patched, mut at, mut found) = (plugin.to_vec(), 0, 0);
    while let Some(next) = patched[at..].windows(from.len()).position(|window| window == from.as_bytes()) {
        patched[at + next..at + next + to.len()].copy_from_slice(to.as_bytes());
        at += next + to.len();
        found += 1;
    }
    assert!(found > 0, "`{from}` is not in the plugin");
    patched
}

/// `plugin`, a core module as the SDK builds it, with another request: it asks for `request`, and is called so.
///
/// # Panics
/// When it has no request.
#[must_use]
pub fn asking(plugin: &[u8], request: &Value) -> Vec<u8> {
    let mut asking = patched(plugin, "weir:request", "weir-request");
    let data = request.to_string().into_bytes();
    CustomSection { name: "weir:request".into(), data: data.into() }.append_to(&mut asking);
    asking
}

/// A client that may call this machine.
///
/// # Panics
/// When the TLS library does not accept its own defaults.
#[must_use]
pub fn egress() -> Egress {
    let settings = EgressSettings {
        policy: Policy::parse(&["127.0.0.1"]).expect("a policy"),
        connect_timeout: Duration::from_secs(5),
        response_max_bytes: 1 << 20,
        redirects_max: 3,
        idle_connections_max: 4,
    };
    Egress::new(settings).expect("a client")
}

/// A sandbox in the process of the test.
///
/// # Panics
/// When the machine does not give one.
#[must_use]
pub fn host() -> PluginHost {
    let guest = GuestLimits { memory_max_bytes: 1 << 26, fuel: 1 << 40, output_max_bytes: 1 << 20 };
    let outbound = OutboundLimits { requests_max: 4, requests_at_once_max: 4, request_max_bytes: 1 << 20 };
    PluginHost::new(HostLimits { guest, outbound, calls: 4, calls_per_plugin: 4 }, egress()).expect("a sandbox")
}
