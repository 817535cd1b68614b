//! Secrets that requests carry: set, list, delete. There is no route that reads one.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::extract::{JsonBody, NoQuery, PathText, Query, read_members};
use super::openapi::{CommandProblems, ListProblems, WriteProblems};
use super::page::{List, limit};
use super::problem::{Problem, ProblemCode};
use crate::model::names::secret_value_fault;
use crate::model::reader::{Members, join};
use crate::model::time::Timestamp;
use crate::store::SealedSecret;
use crate::tools::{HostPattern, Origin, name_fault};

type SecretList = List<SecretView>;

/// Most places that a secret may go to.
const HOSTS_MAX: usize = 32;

/// Longest text that says where, in bytes.
const HOST_MAX_BYTES: usize = 200;

/// A secret, without its value.
#[derive(Serialize, ToSchema)]
#[schema(as = Secret)]
pub(super) struct SecretView {
    name: String,
    /// Where it may go: scheme, host and port.
    hosts: Vec<String>,
    created_at: Timestamp,
    /// When it was set last.
    updated_at: Timestamp,
}

impl From<SealedSecret> for SecretView {
    fn from(secret: SealedSecret) -> Self {
        let SealedSecret { name, origins, created_at, updated_at, .. } = secret;
        Self { name, hosts: origins, created_at, updated_at }
    }
}

/// A secret to keep.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetSecret {
    /// Its value: 8 to 4096 visible ASCII characters.
    #[schema(min_length = 8, max_length = 4096, pattern = "^[!-~]([ -~]*[!-~])?$", write_only)]
    value: String,
    /// Where it may go: `api.example.com` (https), `https://*.example.com`, `http://127.0.0.1:8080`.
    #[schema(min_items = 1, max_items = 32, value_type = Vec<HostText>)]
    hosts: Vec<Origin>,
}

/// A host, with scheme and port where they are not those of https.
#[derive(ToSchema)]
#[schema(as = SecretHost, value_type = String, max_length = 200,
    pattern = r"^(https?://)?(\*\.)?[a-z][a-z0-9]{0,20}(\.[a-z][a-z0-9]{0,20}){0,4}(:[1-9][0-9]{0,3})?$")]
#[expect(dead_code, reason = "only its schema is used: an origin is read by the room that knows them")]
pub(super) struct HostText(String);

/// What a secret is called.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its schema is used: `name` reads the path")]
pub(super) struct SecretParam {
    /// Letters, digits, `_`, `-` and dots. An `http` step names it as `secrets.name`; one with a `-` or a dot as
    /// `secrets["my-name"]`.
    #[param(min_length = 1, max_length = 64, pattern = "^[A-Za-z][A-Za-z0-9_.-]*$")]
    name: String,
}

/// How many, and behind which name.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its schema is used: `list` reads the query")]
pub(super) struct SecretsParams {
    /// Most items of the answer.
    #[param(required = false, minimum = 1, maximum = 100, default = 20)]
    limit: u32,
    /// `next_cursor` of the page before.
    #[param(required = false, min_length = 1, max_length = 64, pattern = "^[A-Za-z][A-Za-z0-9_.-]*$")]
    cursor: String,
}

fn name(text: String) -> Result<String, Problem> {
    name_fault(&text).map_or(Ok(text), |message| Err(Problem::parameter("name", message)))
}

fn read_value(members: &Members<'_>, value: &Value) -> Option<String> {
    let text = members.string("value", value)?;
    if let Some(message) = secret_value_fault(text) {
        members.fault("value", message);
        return None;
    }
    Some(text.to_owned())
}

/// Set a secret
///
/// Kept sealed, in place of one with the same name; no route shows its value. It reaches other processes within 5 seconds.
#[utoipa::path(put, operation_id = "set_secret", path = "/secrets/{name}", tag = "secrets", params(SecretParam),
    request_body = SetSecret,
    responses((status = 200, body = SecretView, description = "It replaced one"),
        (status = 201, body = SecretView, description = "It is new", headers(("Location" = String))), WriteProblems))]
pub(super) async fn put(
    State(api): State<Api>,
    PathText(text): PathText,
    _: NoQuery,
    body: JsonBody,
) -> Result<Response, Problem> {
    let name = name(text)?;
    let set = read_members(&body, |members, faults| {
        let value = members.require("value").and_then(|value| read_value(members, value));
        let hosts = members.require("hosts").and_then(|value| {
            let items = value.as_array().filter(|items| (1..=HOSTS_MAX).contains(&items.len()));
            let Some(items) = items else {
                members.fault("hosts", format!("must be a list of 1 to {HOSTS_MAX} hosts"));
                return None;
            };
            let mut hosts = Vec::with_capacity(items.len());
            for (n, item) in items.iter().enumerate() {
                let text = item.as_str().filter(|text| text.len() <= HOST_MAX_BYTES);
                let parsed = text.ok_or_else(|| format!("must be a string of up to {HOST_MAX_BYTES} bytes"));
                let parsed = parsed.and_then(Origin::parse);
                match parsed {
                    Ok(origin) if origin.host == HostPattern::Any => {
                        faults
                            .add(&join("/hosts", &n.to_string()), "must name a host: a secret does not go everywhere");
                    }
                    // Two ways to write one place.
                    Ok(origin) if hosts.contains(&origin) => {}
                    Ok(origin) => hosts.push(origin),
                    Err(message) => faults.add(&join("/hosts", &n.to_string()), message),
                }
            }
            Some(hosts)
        });
        Some(SetSecret { value: value?, hosts: hosts? })
    })?;
    let (secret, is_new) = api.tools.secrets.put(&name, &set.value, &set.hosts).await?;
    api.tools.changed();
    tracing::info!(secret = name, "a secret was set");
    let view = Json(SecretView::from(secret));
    if !is_new {
        return Ok(view.into_response());
    }
    let location = HeaderValue::try_from(format!("/secrets/{name}")).map_err(Problem::internal)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], view).into_response())
}

/// List secrets, by name, without their values
#[utoipa::path(get, operation_id = "list_secrets", path = "/secrets", tag = "secrets", params(SecretsParams),
    responses((status = 200, body = SecretList), ListProblems))]
pub(super) async fn list(State(api): State<Api>, mut query: Query) -> Result<Response, Problem> {
    let limit = limit(&mut query);
    let after = query.take("cursor", |text| name_fault(text).map_or(Ok(text.to_owned()), Err));
    query.finish()?;
    let secrets = api.store.secrets(&after.unwrap_or_default(), limit + 1).await?;
    let mut items: Vec<SecretView> = secrets.into_iter().map(Into::into).collect();
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(|last| last.name.clone());
    Ok(Json(List::named(items, next)).into_response())
}

/// Delete a secret
#[utoipa::path(delete, operation_id = "delete_secret", path = "/secrets/{name}", tag = "secrets", params(SecretParam),
    responses((status = 204, description = "It is gone"), CommandProblems))]
pub(super) async fn delete(
    State(api): State<Api>,
    PathText(text): PathText,
    _: NoQuery,
) -> Result<StatusCode, Problem> {
    let name = name(text)?;
    if !api.tools.secrets.delete(&name).await? {
        return Err(Problem::new(ProblemCode::SecretNotFound, format!("no secret is called `{name}`")));
    }
    api.tools.changed();
    tracing::info!(secret = name, "a secret was deleted");
    Ok(StatusCode::NO_CONTENT)
}
