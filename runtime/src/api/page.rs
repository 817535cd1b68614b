//! Lists over HTTP: `?limit=&cursor=` in, `{"items", "next_cursor"}` out.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use uuid::Uuid;

use super::extract::{Query, whole_number};
use crate::store::{Page, PageRequest};

const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u32 = 100;

/// A part of a list.
#[derive(Serialize)]
pub(super) struct List<T> {
    /// The items.
    items: Vec<T>,
    /// What to send as `cursor` for the next part; null when there is none.
    next_cursor: Option<String>,
}

/// By hand, because the derive would copy the schema of the items where it should refer to it.
impl<T: ToSchema> PartialSchema for List<T> {
    fn schema() -> RefOr<Schema> {
        let cursor = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
            .description(Some("What to send as `cursor` for the next part; null when there is none"));
        let items = ArrayBuilder::new().items(Ref::from_schema_name(T::name()));
        let list = ObjectBuilder::new().property("items", items).property("next_cursor", cursor);
        list.required("items").required("next_cursor").into()
    }
}

impl<T: ToSchema> ToSchema for List<T> {
    fn name() -> Cow<'static, str> {
        Cow::Owned(format!("{}List", T::name()))
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

/// How to ask for a part of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its schema is used: `page_request` reads the query")]
pub(super) struct ListParams {
    /// Most items.
    #[param(minimum = 1, maximum = 100, default = 20, required = false)]
    limit: u32,
    /// `next_cursor` of the part before.
    #[param(required = false, pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    cursor: String,
}

/// How to ask for a part of a list whose items have numbers.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its schema is used: `number_request` reads the query")]
pub(super) struct NumberedParams {
    /// Most items.
    #[param(minimum = 1, maximum = 100, default = 20, required = false)]
    limit: u32,
    /// `next_cursor` of the part before.
    #[param(required = false, pattern = "^[0-9]{1,10}$")]
    cursor: String,
}

impl<T> List<T> {
    /// A part of a list whose items are addressed by id.
    pub(super) fn of<R>(page: Page<R>, view: impl Fn(R) -> T) -> Self {
        let next_cursor = page.next.map(|id| URL_SAFE_NO_PAD.encode(id.as_bytes()));
        Self { items: page.items.into_iter().map(view).collect(), next_cursor }
    }

    /// A part of a list whose items are addressed by number: `rows` has one more than `limit` when there is more.
    pub(super) fn numbered<R>(rows: Vec<R>, limit: u32, number: impl Fn(&R) -> u64, view: impl Fn(R) -> T) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        let last = rows.get(limit.wrapping_sub(1)).filter(|_| more).map(number);
        let next_cursor = last.map(|number| number.to_string());
        Self { items: rows.into_iter().take(limit).map(view).collect(), next_cursor }
    }

    /// A part of a list whose items are addressed by name.
    pub(super) fn named(items: Vec<T>, next: Option<String>) -> Self {
        Self { items, next_cursor: next }
    }

    /// A list that is always whole.
    pub(super) fn whole(items: Vec<T>) -> Self {
        Self { items, next_cursor: None }
    }
}

/// Reads `limit` of a list.
pub(super) fn limit(query: &mut Query) -> u32 {
    query.take("limit", |text| whole_number(text, 1, LIMIT_MAX)).unwrap_or(LIMIT_DEFAULT)
}

/// Reads `limit` and `cursor` of a list by id.
pub(super) fn page_request(query: &mut Query) -> PageRequest {
    let limit = limit(query);
    let after = query.take("cursor", |text| {
        let id = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| Uuid::from_slice(&bytes).ok());
        id.ok_or_else(|| "must be a `next_cursor` of this list".to_owned())
    });
    PageRequest { limit, after }
}

/// Reads `limit` and `cursor` of a list by number.
pub(super) fn number_request(query: &mut Query) -> (u32, Option<u64>) {
    let limit = limit(query);
    let after = query.take("cursor", |text| {
        let digits = (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits).ok_or_else(|| "must be a `next_cursor` of this list".to_owned())
    });
    (limit, after)
}
