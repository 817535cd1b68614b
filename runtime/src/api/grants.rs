//! What plugins ask for, what they are granted, and what they used of it.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::extract::{ClearBody, NoQuery, PathText};
use super::openapi::{CommandProblems, ReadProblems, WriteProblems};
use super::page::List;
use super::plugins::{PluginParam, PluginStatusView, find, gone};
use super::problem::{Problem, ProblemCode};
use crate::model::reader::Fault;
use crate::model::time::Timestamp;
use crate::store::{PluginUse, PluginVersion, VersionStatus};
use crate::tools::{Flaw, Grant, HttpRule, Request, read_request};

type CallList = List<CallView>;

/// Which requests: to a host, by some methods, below a path, and with which secrets.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: the rules are those of the sandbox")]
pub(super) struct HttpRuleView {
    /// `api.example.com`, `*.example.com`, an address, or `*`.
    host: String,
    /// `https` (the default) or `http`.
    #[schema(required = false)]
    scheme: String,
    /// Default: the scheme's.
    #[schema(required = false)]
    port: u16,
    /// In upper case.
    methods: Vec<String>,
    /// The path and everything below it, by whole segments. Default: `/`.
    #[schema(required = false)]
    path_prefix: String,
    /// Names of secrets that may travel in the headers or the query of such requests.
    #[schema(required = false)]
    secrets: Vec<String>,
}

/// What a plugin may do.
#[derive(ToSchema)]
#[schema(as = Grant)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: the rules are those of the sandbox")]
pub(super) struct NewGrant {
    /// The requests that it may make. A request is made when the plugin asks for it and it stands here.
    #[schema(required = false)]
    http: Vec<HttpRuleView>,
    /// Values of settings that the plugin knows.
    #[schema(required = false)]
    settings: std::collections::BTreeMap<String, String>,
    /// Linear memory of a call, in bytes. Default: what every tool may use.
    #[schema(required = false, minimum = 65536)]
    memory_max_bytes: u64,
    /// Time of a call. Default: what the step says.
    #[schema(required = false, minimum = 1)]
    timeout_seconds: u32,
}

/// What a plugin asks for, and what of it it may do.
#[derive(Serialize, ToSchema)]
#[schema(as = PluginGrant)]
pub(super) struct GrantView {
    name: String,
    version: String,
    /// The component that this is about. Other versions have grants of their own.
    digest: String,
    /// Whether it is what its name means.
    status: PluginStatusView,
    /// What the plugin asks for, as its author wrote it.
    #[schema(value_type = Object)]
    request: Request,
    /// What it is granted; null: nothing, and nobody decided so.
    #[schema(value_type = Option<NewGrant>)]
    grant: Option<Grant>,
    granted_at: Option<Timestamp>,
    /// What it asks for and is not granted, in words.
    missing: Vec<String>,
    /// What it is granted and never used, in words.
    unused: Vec<String>,
    /// What it did with its rights, and what it was denied.
    uses: Vec<UseView>,
}

/// A call: `tool`, `arguments`, `http` (requests, each with what came back), `outcome` and `fuel`.
#[derive(Serialize, ToSchema)]
#[serde(transparent)]
#[schema(as = PluginCall, value_type = Object)]
pub(super) struct CallView(Value);

/// Something that a plugin did, or was denied.
#[derive(Serialize, ToSchema)]
#[schema(as = PluginUse)]
struct UseView {
    /// Such as `rule GET https://api.example.com/`, `secret token`, `setting colour`, or `denied ...`.
    what: String,
    count: u64,
    last_at: Timestamp,
}

async fn shown(api: &Api, plugin: PluginVersion) -> Result<Json<GrantView>, Problem> {
    let request = read_request(&plugin).map_err(Problem::internal)?;
    let stored = api.store.plugin_grant(plugin.digest).await?;
    let granted_at = stored.as_ref().map(|stored| stored.granted_at);
    let grant: Option<Grant> =
        stored.map(|stored| serde_json::from_value(stored.rights)).transpose().map_err(Problem::internal)?;
    let uses = api.store.plugin_uses(plugin.digest).await?;
    let missing = request.beyond(grant.as_ref().unwrap_or(&Grant::default()));
    Ok(Json(GrantView {
        missing: missing.iter().map(HttpRule::to_string).collect(),
        unused: grant.as_ref().map(|grant| unused(grant, &uses)).unwrap_or_default(),
        uses: uses.into_iter().map(|PluginUse { what, count, last_at }| UseView { what, count, last_at }).collect(),
        name: plugin.name,
        version: plugin.version,
        digest: plugin.digest.to_string(),
        status: plugin.status.into(),
        request,
        grant,
        granted_at,
    }))
}

/// What of a grant was never used: methods of rules, secrets, settings.
fn unused(grant: &Grant, uses: &[PluginUse]) -> Vec<String> {
    let used = |what: &String| uses.iter().any(|one| one.what == *what);
    let rules = grant.http.iter().flat_map(|rule| rule.methods.iter().map(|method| rule.exercise(method)));
    let mut secrets: Vec<&String> = grant.http.iter().flat_map(|rule| &rule.secrets).collect();
    secrets.sort_unstable();
    secrets.dedup();
    let granted = rules
        .map(|rule| format!("rule {rule}"))
        .chain(secrets.into_iter().map(|name| format!("secret {name}")))
        .chain(grant.settings.keys().map(|name| format!("setting {name}")));
    granted.filter(|what| !used(what)).collect()
}

/// Show what a plugin asks for and is granted
#[utoipa::path(get, operation_id = "get_plugin_grant", path = "/plugins/{plugin}/grant", tag = "plugins", params(PluginParam),
    responses((status = 200, body = GrantView), ReadProblems))]
pub(super) async fn get(
    State(api): State<Api>,
    PathText(text): PathText,
    _: NoQuery,
) -> Result<Json<GrantView>, Problem> {
    let plugin = find(&api, &text).await?;
    shown(&api, plugin).await
}

/// Grant a plugin what it may do
///
/// In place of what it was granted before. It holds for this component, for calls that begin from now on (in other
/// processes within 5 seconds). A version that waited for a grant becomes active when something of what it asks for is
/// granted; with a grant of nothing it goes on waiting, and so does one that may not be used here for want of a signature.
#[utoipa::path(put, operation_id = "set_plugin_grant", path = "/plugins/{plugin}/grant", tag = "plugins", params(PluginParam),
    request_body = NewGrant, responses((status = 200, body = GrantView), WriteProblems))]
pub(super) async fn put(
    State(api): State<Api>,
    PathText(text): PathText,
    _: NoQuery,
    body: ClearBody,
) -> Result<Json<GrantView>, Problem> {
    let plugin = find(&api, &text).await?;
    let request = read_request(&plugin).map_err(Problem::internal)?;
    let ClearBody { value, twice: mut faults } = body;
    let read = Grant::read(&value, &request);
    let flaws = read.as_ref().err().into_iter().flatten().cloned();
    faults.extend(flaws.map(|Flaw { pointer, message }| Fault { pointer, message }));
    let grant = match read {
        Ok(grant) if faults.is_empty() => grant,
        _ => return Err(Problem::faulty(ProblemCode::InvalidGrant, faults)),
    };
    let rights = serde_json::to_value(&grant).map_err(Problem::internal)?;
    // Whoever gives it nothing of what it asks for did not mean it to take the place of another version.
    let meant = request.is_given_something(&grant);
    let accepted = api.tools.accepted(plugin.digest).await?;
    if let Err(refused) = &accepted
        && meant
        && plugin.status == VersionStatus::Waiting
    {
        let why = refused.to_string();
        tracing::warn!(plugin.name, plugin.digest = %plugin.digest, why, "a plugin was granted rights, and goes on waiting");
    }
    let activates = meant && accepted.is_ok();
    let activated = api.store.set_plugin_grant(plugin.digest, &rights, activates).await?;
    let activated = activated.ok_or_else(|| gone(&text))?;
    api.tools.changed();
    tracing::info!(plugin.name, plugin.digest = %plugin.digest, ?activated, "a plugin was granted rights");
    let plugin = find(&api, &format!("{}@{}", plugin.name, plugin.version)).await?;
    shown(&api, plugin).await
}

/// List the calls of a plugin that are kept, the latest first
///
/// With arguments, requests and outcome: what `weir plugin rehearse` tries another version with. Always whole.
#[utoipa::path(get, operation_id = "list_plugin_calls", path = "/plugins/{plugin}/calls", tag = "plugins", params(PluginParam),
    responses((status = 200, body = CallList), ReadProblems))]
pub(super) async fn calls(State(api): State<Api>, PathText(text): PathText, _: NoQuery) -> Result<Response, Problem> {
    let plugin = find(&api, &text).await?;
    let calls = api.store.plugin_calls(plugin.digest).await?;
    Ok(Json(List::whole(calls.into_iter().map(CallView).collect())).into_response())
}

/// Take every right from a plugin
///
/// It stays what its name means, if it is; its calls are denied what they were granted.
#[utoipa::path(delete, operation_id = "revoke_plugin_grant", path = "/plugins/{plugin}/grant", tag = "plugins", params(PluginParam),
    responses((status = 204, description = "It has no rights"), CommandProblems))]
pub(super) async fn delete(
    State(api): State<Api>,
    PathText(text): PathText,
    _: NoQuery,
) -> Result<StatusCode, Problem> {
    let plugin = find(&api, &text).await?;
    api.store.revoke_plugin_grant(plugin.digest).await?;
    api.tools.changed();
    tracing::info!(plugin.name, plugin.digest = %plugin.digest, "a plugin was taken its rights");
    Ok(StatusCode::NO_CONTENT)
}
