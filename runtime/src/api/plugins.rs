//! Plugins: upload, what is there, and the tools that it offers.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::extract::{NoQuery, PathText, Query, read_body};
use super::openapi::{ListProblems, ReadProblems, UploadProblems};
use super::page::{List, ListParams, page_request};
use super::problem::{Problem, ProblemCode};
use crate::model::plugin::{PluginRef, plugin_name_fault, plugin_version_fault};
use crate::model::reader::Fault;
use crate::model::time::Timestamp;
use crate::store::{PluginVersion, VersionStatus};
use crate::tools::{HttpRule, Refusal, Upload, read_request};

// The macro that makes the document takes an alias for the type that it is.
type PluginList = List<PluginView>;
type ToolList = List<ToolView>;

/// Most versions that the answer to one plugin lists.
const VERSIONS_MAX: u32 = 100;

/// A version of a plugin.
#[derive(Serialize, ToSchema)]
#[schema(as = Plugin)]
pub(super) struct PluginView {
    /// What people call it.
    name: String,
    version: String,
    /// What it is: the SHA-256 of its component. Revisions of workflows pin it.
    digest: String,
    /// Bytes of the component.
    size_bytes: u64,
    /// What it is, in its own words.
    description: Option<String>,
    /// Whether it is what its name means.
    status: PluginStatusView,
    /// What it asks for, a line each; whether it is granted is at `/plugins/{plugin}/grant`.
    asks: Vec<String>,
    /// The interfaces that it imports.
    imports: Vec<String>,
    /// Names of its tools.
    tools: Vec<String>,
    /// Who signed it: the name of a key in `plugin_trusted_keys`, or the key itself where that is not there (any more).
    #[schema(required = true)]
    signed_by: Option<String>,
    created_at: Timestamp,
}

/// Where a version of a plugin stands.
#[derive(Serialize, ToSchema)]
#[schema(as = PluginStatus)]
#[serde(rename_all = "lowercase")]
pub(super) enum PluginStatusView {
    /// It is what the name means.
    Active,
    /// Definitions can name it with its version.
    Inactive,
    /// It asks for more than is granted, and becomes active with a grant.
    Waiting,
    /// No definition can name it any more.
    Retired,
}

impl From<VersionStatus> for PluginStatusView {
    fn from(status: VersionStatus) -> Self {
        match status {
            VersionStatus::Active => Self::Active,
            VersionStatus::Inactive => Self::Inactive,
            VersionStatus::Waiting => Self::Waiting,
            VersionStatus::Retired => Self::Retired,
        }
    }
}

/// A version of a plugin, with the others.
#[derive(Serialize, ToSchema)]
#[schema(as = PluginDetail)]
pub(super) struct PluginDetailView {
    #[serde(flatten)]
    plugin: PluginView,
    /// The versions of the same name, newest first.
    versions: Vec<VersionView>,
}

/// What a version of a plugin is.
#[derive(Serialize, ToSchema)]
#[schema(as = PluginVersion)]
pub(super) struct VersionView {
    version: String,
    digest: String,
    status: PluginStatusView,
    created_at: Timestamp,
}

/// A tool, as the Model Context Protocol describes it.
#[derive(Serialize, ToSchema)]
#[serde(transparent)]
#[schema(as = Tool, value_type = Object)]
pub(super) struct ToolView(Value);

/// How to name a plugin.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its schema is used: `PluginRef` reads the path")]
pub(super) struct PluginParam {
    /// Its name (the active version), `name@version`, or its digest.
    #[param(pattern = "^([A-Za-z0-9][A-Za-z0-9_-]{0,63}(@[A-Za-z0-9.+-]{1,64})?|sha256:[0-9A-Fa-f]{64})$")]
    plugin: String,
}

/// A WebAssembly binary.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only its schema is used: `upload` reads the body")]
pub(super) struct Wasm(Vec<u8>);

/// What people call an upload, where the component does not say it.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its schema is used: `upload` reads the query")]
pub(super) struct UploadParams {
    /// Name of the plugin. A component that says its name needs none; another one is refused then.
    #[param(required = false, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    name: String,
    /// Version of the plugin.
    #[param(required = false, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9.+-]+$")]
    version: String,
    /// Whether it becomes what its name means, at once or with a grant. Default: true.
    #[param(required = false)]
    activate: bool,
}

/// Who vouches for an upload.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only its schema is used: `signature` reads the header")]
pub(super) struct SignatureHeader {
    /// Its signature, as `weir plugin sign` writes it.
    #[param(rename = "weir-plugin-signature", required = false, min_length = 88, max_length = 88)]
    signature: String,
}

/// The signature of an upload, if it has one.
fn signature(request: &Request) -> Option<String> {
    // What is no text is no signature either, and is refused as one.
    request.headers().get("weir-plugin-signature").map(|value| value.to_str().unwrap_or_default().to_owned())
}

pub(super) async fn view(api: &Api, plugin: PluginVersion) -> Result<PluginView, Problem> {
    let request = read_request(&plugin).map_err(Problem::internal)?;
    let tools = api.store.plugin_tools(plugin.digest).await?;
    let name = |tool: &Value| tool.get("name").and_then(Value::as_str).map(str::to_owned);
    Ok(PluginView {
        name: plugin.name,
        version: plugin.version,
        digest: plugin.digest.to_string(),
        size_bytes: plugin.size_bytes,
        description: request.description.clone(),
        status: plugin.status.into(),
        asks: request.http.iter().map(HttpRule::to_string).collect(),
        imports: plugin.imports,
        tools: tools.iter().filter_map(name).collect(),
        signed_by: plugin.signed_by.map(|key| api.tools.signer(&key)),
        created_at: plugin.created_at,
    })
}

pub(super) async fn find(api: &Api, text: &str) -> Result<PluginVersion, Problem> {
    let plugin = PluginRef::parse(text).map_err(|message| Problem::parameter("plugin", message))?;
    let found = api.store.plugin(&plugin).await?;
    found.ok_or_else(|| gone(&plugin))
}

/// The answer for a plugin that is not there, or not any more.
pub(super) fn gone(plugin: &impl std::fmt::Display) -> Problem {
    Problem::new(ProblemCode::PluginNotFound, format!("no plugin of this server is `{plugin}`"))
}

/// Upload a plugin
///
/// The body is a WebAssembly component, or a core module with embedded component types, which is wrapped. It is
/// compiled and asked for its tools, in a sandbox without any access, before anything is kept. A version that asks for no
/// more than the active version of its name is granted takes over that grant and is active at once; one that asks for
/// more waits for a grant. Workflows that were saved before keep the version that they were saved with.
#[utoipa::path(post, operation_id = "upload_plugin", path = "/plugins", tag = "plugins", params(UploadParams, SignatureHeader),
    request_body(content((Wasm = "application/wasm"), (Wasm = "application/octet-stream"))),
    responses(
        (status = 201, body = PluginView, description = "It is stored", headers(("Location" = String))),
        (status = 200, body = PluginView, description = "The same content was stored under this version before"),
        UploadProblems,
    ))]
pub(super) async fn upload(State(api): State<Api>, mut query: Query, request: Request) -> Result<Response, Problem> {
    let named = |fault: fn(&str) -> Option<String>| move |text: &str| fault(text).map_or(Ok(text.to_owned()), Err);
    let name = query.take("name", named(plugin_name_fault));
    let version = query.take("version", named(plugin_version_fault));
    let activate = query.take("activate", |text| match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be `true` or `false`".to_owned()),
    });
    let kind = request.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default().to_owned());
    let signature = signature(&request);
    // First of all: whoever is still sending is told what is wrong, and not that the connection broke.
    let body = read_body(request.into_body(), api.config.plugin_max_bytes, "plugin_max_bytes").await?;
    query.finish()?;
    let is_wasm = |kind: &String| {
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        ["application/wasm", "application/octet-stream"].contains(&kind.as_str())
    };
    if kind.is_some_and(|kind| !is_wasm(&kind)) {
        return Err(Problem::new(ProblemCode::UnsupportedMediaType, "send the plugin as `application/wasm`"));
    }
    let upload = Upload { bytes: body.to_vec(), name, version, activate: activate.unwrap_or(true), signature };
    let uploaded = api.tools.upload(upload).await.map_err(refused)?;
    let view = view(&api, uploaded.plugin).await?;
    if !uploaded.is_new {
        return Ok(Json(view).into_response());
    }
    // Names and versions have only characters that stand in a path as they are.
    let location = HeaderValue::try_from(format!("/plugins/{}@{}", view.name, view.version));
    let location = location.map_err(Problem::internal)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)).into_response())
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Invalid(message) => Problem::new(ProblemCode::InvalidPlugin, message),
        Refusal::Named(parameter, message) => {
            Problem::faulty(ProblemCode::InvalidRequest, vec![Fault { pointer: parameter.to_owned(), message }])
        }
        Refusal::Signature(message) => Problem::new(ProblemCode::InvalidPluginSignature, message),
        Refusal::Unsigned => Problem::new(
            ProblemCode::PluginSignatureRequired,
            "this server takes signed plugins only: send the signature in `weir-plugin-signature`",
        ),
        Refusal::VersionTaken(message) => Problem::new(ProblemCode::PluginVersionTaken, message),
        Refusal::Store(error) => error.into(),
    }
}

/// List plugins, each in its active version (where none is active, its newest), newest first
#[utoipa::path(get, operation_id = "list_plugins", path = "/plugins", tag = "plugins", params(ListParams),
    responses((status = 200, body = PluginList), ListProblems))]
pub(super) async fn list(State(api): State<Api>, mut query: Query) -> Result<Response, Problem> {
    let request = page_request(&mut query);
    query.finish()?;
    let page = api.store.plugins(request).await?;
    let mut items = Vec::with_capacity(page.items.len());
    for plugin in page.items {
        items.push(view(&api, plugin).await?);
    }
    Ok(Json(List::of(crate::store::Page { items, next: page.next }, |view| view)).into_response())
}

/// Get a plugin
///
/// By its name (its active version; where none is active, its newest), as `name@version`, or by its digest.
#[utoipa::path(get, operation_id = "get_plugin", path = "/plugins/{plugin}", tag = "plugins", params(PluginParam),
    responses((status = 200, body = PluginDetailView), ReadProblems))]
pub(super) async fn get(
    State(api): State<Api>,
    PathText(plugin): PathText,
    _: NoQuery,
) -> Result<Json<PluginDetailView>, Problem> {
    let plugin = find(&api, &plugin).await?;
    let versions = api.store.plugin_versions(&plugin.name, VERSIONS_MAX).await?;
    let version = |version: PluginVersion| VersionView {
        version: version.version,
        digest: version.digest.to_string(),
        status: version.status.into(),
        created_at: version.created_at,
    };
    let versions = versions.into_iter().map(version).collect();
    Ok(Json(PluginDetailView { plugin: view(&api, plugin).await?, versions }))
}

/// List the tools of a plugin
///
/// Each as the Model Context Protocol describes it: name, description, inputSchema, and what else the plugin says.
#[utoipa::path(get, operation_id = "list_plugin_tools", path = "/plugins/{plugin}/tools", tag = "plugins", params(PluginParam),
    responses((status = 200, body = ToolList), ReadProblems))]
pub(super) async fn tools(State(api): State<Api>, PathText(plugin): PathText, _: NoQuery) -> Result<Response, Problem> {
    let plugin = find(&api, &plugin).await?;
    let tools = api.store.plugin_tools(plugin.digest).await?;
    Ok(Json(List::whole(tools.into_iter().map(ToolView).collect())).into_response())
}
