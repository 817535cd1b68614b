//! Forms: the JSON Schema of a type, brought into what the Model Context Protocol (revision 2026-07-28, elicitation) lets
//! a form be: a flat object of texts, numbers, booleans and choices. What does not fit is refused, never left out.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

type Members = Map<String, Value>;

/// What every field may have.
const FIELD: [&str; 4] = ["type", "title", "description", "default"];

/// What says nothing about which values are taken, and is not known in a form.
const REMARKS: [&str; 4] = ["examples", "deprecated", "readOnly", "writeOnly"];

/// Formats of texts.
const FORMATS: [&str; 4] = ["email", "uri", "date", "date-time"];

/// The form that is answered by a `T`.
///
/// # Errors
/// Why there is none.
pub(crate) fn form<T: JsonSchema>() -> Result<Value, String> {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    flat(schema).map_err(|why| format!("`{}` cannot be a form: {why}", T::schema_name()))
}

fn flat(schema: Value) -> Result<Value, String> {
    let Value::Object(mut form) = schema else { return Err("it takes any value".to_owned()) };
    if form.remove("type") != Some(json!("object")) {
        return Err("it is not a struct with named members".to_owned());
    }
    // What refers to them is refused.
    form.remove("$defs");
    let fields = match form.remove("properties") {
        Some(Value::Object(fields)) => fields,
        _ => Members::new(),
    };
    let required = form.remove("required");
    for (name, value) in &form {
        let closed = ["additionalProperties", "unevaluatedProperties"].contains(&name.as_str());
        if !(closed && *value == json!(false) || FIELD.contains(&name.as_str()) || REMARKS.contains(&name.as_str())) {
            return Err(format!("it has `{name}`, and a form is flat"));
        }
    }
    let read = |(name, schema): (String, Value)| match field(schema) {
        Ok(field) => Ok((name, Value::Object(field))),
        Err(why) => Err(format!("its member `{name}` {why}")),
    };
    let fields = fields.into_iter().map(read).collect::<Result<Members, String>>()?;
    let mut flat = Members::from_iter([("type".to_owned(), json!("object")), ("properties".to_owned(), fields.into())]);
    flat.extend(required.map(|required| ("required".to_owned(), required)));
    Ok(Value::Object(flat))
}

/// A field, from the schema of a member.
fn field(schema: Value) -> Result<Members, String> {
    let Value::Object(mut field) = schema else { return Err("takes any value".to_owned()) };
    field.retain(|name, _| !REMARKS.contains(&name.as_str()));
    drop_null(&mut field);
    // Everything else is written out.
    if field.contains_key("$ref") {
        return Err("contains itself".to_owned());
    }
    gather(&mut field, "oneOf")?;
    let kind = field.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let more: &[&str] = match kind.as_str() {
        "string" => &["minLength", "maxLength", "format", "enum", "oneOf"],
        "number" | "integer" => {
            bound(&mut field);
            &["minimum", "maximum"]
        }
        "boolean" => &[],
        "array" => {
            choices(&mut field)?;
            &["minItems", "maxItems", "items"]
        }
        "object" => return Err("is an object, and a form is flat".to_owned()),
        _ => return Err("is neither text, number, boolean nor choice".to_owned()),
    };
    if let Some(format) = field.get("format").filter(|format| !FORMATS.iter().any(|known| *format == known)) {
        return Err(format!("has the format {format}; a form knows {}", FORMATS.join(", ")));
    }
    match field.keys().find(|name| !FIELD.contains(&name.as_str()) && !more.contains(&name.as_str())) {
        Some(name) => Err(format!("has `{name}`, which a form does not know")),
        None => Ok(field),
    }
}

/// What may be left out may be null for serde; in a form it is just not required.
fn drop_null(field: &mut Members) {
    let null = |value: &Value| *value == json!({"type": "null"});
    if let Some(Value::Array(either)) = field.get("anyOf")
        && let [one, other] = &either[..]
        && let Some(Value::Object(some)) = [(one, other), (other, one)].iter().find(|(_, it)| null(it)).map(|it| it.0)
    {
        let some = some.clone();
        field.remove("anyOf");
        for (name, value) in some {
            field.entry(name).or_insert(value);
        }
    }
    if let Some(Value::Array(kinds)) = field.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [kind] = &kinds[..] {
            let kind = kind.clone();
            field.insert("type".to_owned(), kind);
        }
    }
    if let Some(Value::Array(values)) = field.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if field.get("default").is_some_and(Value::is_null) {
        field.remove("default");
    }
}

/// Writes the variants of an enum as choices: under `titled` where any of them has a title or a doc comment.
fn gather(field: &mut Members, titled: &str) -> Result<(), String> {
    const DATA: &str = "is an enum whose variants are more than names";
    if let Some(name) = field.remove("const") {
        field.insert("enum".to_owned(), json!([name]));
    }
    if let Some(variants) = field.remove("oneOf") {
        let (mut options, mut has_titles) = (Vec::new(), false);
        for variant in variants.as_array().into_iter().flatten() {
            let known = ["type", "const", "enum", "title", "description", "deprecated"];
            let variant = variant.as_object().filter(|it| it.keys().all(|name| known.contains(&name.as_str())));
            let variant = variant.ok_or(DATA)?;
            let title = variant.get("title").or(variant.get("description"));
            has_titles |= title.is_some();
            let several = variant.get("enum").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            for name in variant.get("const").into_iter().chain(several) {
                options.push(json!({"const": name, "title": title.unwrap_or(name)}));
            }
        }
        let (member, options) = if has_titles {
            (titled, options)
        } else {
            ("enum", options.iter().map(|option| option["const"].clone()).collect())
        };
        field.insert(member.to_owned(), Value::Array(options));
        field.entry("type").or_insert(json!("string"));
    }
    let named = field.get("enum").into_iter().chain(field.get(titled)).filter_map(Value::as_array).flatten();
    if named.into_iter().any(|option| !option.get("const").unwrap_or(option).is_string()) {
        return Err(DATA.to_owned());
    }
    Ok(())
}

/// Several of the variants of an enum.
fn choices(field: &mut Members) -> Result<(), String> {
    const OTHER: &str = "is a list; in a form only a list of an enum's names can be one";
    field.remove("uniqueItems");
    let mut items = field.get("items").and_then(Value::as_object).cloned().ok_or(OTHER)?;
    gather(&mut items, "anyOf").map_err(|_| OTHER)?;
    // A choice with titles says by them that it is one of texts.
    let items = match (items.remove("anyOf"), items.remove("enum")) {
        (Some(options), _) => json!({"anyOf": options}),
        (None, Some(names)) => json!({"type": "string", "enum": names}),
        (None, None) => return Err(OTHER.to_owned()),
    };
    field.insert("items".to_owned(), items);
    Ok(())
}

/// The formats of numbers say how large they may be. A form says it with bounds, so that nobody answers what the type
/// cannot take.
fn bound(field: &mut Members) {
    let bounds = match field.remove("format").as_ref().and_then(Value::as_str) {
        Some("int32") => (json!(i32::MIN), json!(i32::MAX)),
        Some("uint32") => (json!(0), json!(u32::MAX)),
        _ => return,
    };
    field.entry("minimum").or_insert(bounds.0);
    field.entry("maximum").or_insert(bounds.1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::JsonSchema;

    fn of<T: JsonSchema>() -> Value {
        form::<T>().expect("a form")
    }

    /// A choice.
    #[derive(JsonSchema)]
    #[schemars(rename_all = "snake_case")]
    #[allow(dead_code)]
    enum Plain {
        OneWay,
        Return,
    }

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    enum Told {
        /// At once
        Now,
        Later,
        Never,
    }

    #[test]
    fn members_become_fields() {
        /// All of it.
        #[derive(JsonSchema)]
        #[schemars(deny_unknown_fields)]
        #[allow(dead_code)]
        struct All {
            /// A name.
            #[schemars(length(min = 1, max = 80))]
            name: String,
            mail: Option<Mail>,
            small: u8,
            whole: Option<i32>,
            real: Option<f64>,
            sure: Option<bool>,
            /// How.
            plain: Plain,
            maybe: Option<Plain>,
            told: Told,
            maybe_told: Option<Told>,
            some: Vec<Plain>,
            some_told: Option<Vec<Told>>,
            set: std::collections::BTreeSet<Plain>,
        }
        #[derive(JsonSchema)]
        #[schemars(extend("format" = "email"))]
        #[allow(dead_code)]
        struct Mail(String);

        let titled = json!([{"const": "Now", "title": "At once"}, {"const": "Later", "title": "Later"},
            {"const": "Never", "title": "Never"}]);
        let mut titles = titled.as_array().expect("a list").clone();
        titles.sort_by_key(|option| option["const"].to_string());
        let mut form = of::<All>();
        for member in ["told", "maybe_told"] {
            let options = form["properties"][member]["oneOf"].as_array_mut().expect("options");
            options.sort_by_key(|option| option["const"].to_string());
        }
        let options = form["properties"]["some_told"]["items"]["anyOf"].as_array_mut().expect("options");
        options.sort_by_key(|option| option["const"].to_string());
        let plain = json!(["one_way", "return"]);
        let described = |description: &str| json!({"type": "string", "description": description, "enum": plain});
        let expected = json!({
            "name": {"type": "string", "description": "A name.", "minLength": 1, "maxLength": 80},
            "mail": {"type": "string", "format": "email"},
            "small": {"type": "integer", "minimum": 0, "maximum": 255},
            "whole": {"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX},
            "real": {"type": "number"},
            "sure": {"type": "boolean"},
            "plain": described("How."),
            "maybe": described("A choice."),
            "told": {"type": "string", "oneOf": titles},
            "maybe_told": {"type": "string", "oneOf": titles},
            "some": {"type": "array", "items": {"type": "string", "enum": plain}},
            "some_told": {"type": "array", "items": {"anyOf": titles}},
            "set": {"type": "array", "items": {"type": "string", "enum": plain}},
        });
        assert_eq!(form["properties"], expected);
        assert_eq!(form["required"], json!(["name", "small", "plain", "told", "some", "set"]));
        assert_eq!(form.as_object().expect("an object").len(), 3, "{form}");
    }

    #[test]
    fn defaults_are_kept_and_make_a_field_optional() {
        #[derive(JsonSchema)]
        #[allow(dead_code)]
        struct Defaults {
            #[schemars(default)]
            count: u64,
            #[schemars(default)]
            note: Option<String>,
        }
        let form = of::<Defaults>();
        assert_eq!(form["properties"]["count"], json!({"type": "integer", "minimum": 0, "default": 0}));
        assert_eq!(form["properties"]["note"], json!({"type": "string"}));
        assert_eq!(form.get("required"), None);
        #[derive(JsonSchema)]
        struct Empty {}
        assert_eq!(of::<Empty>(), json!({"type": "object", "properties": {}}));
    }

    #[test]
    fn what_cannot_be_a_field_is_refused() {
        #[derive(JsonSchema)]
        #[schemars(rename = "Holds")]
        #[allow(dead_code)]
        struct Holds<T> {
            it: T,
        }
        #[derive(JsonSchema)]
        #[allow(dead_code)]
        struct Own {
            again: Option<Box<Own>>,
        }
        #[derive(JsonSchema)]
        #[allow(dead_code)]
        enum Data {
            Nothing,
            Number(i32),
        }
        #[derive(JsonSchema)]
        #[allow(dead_code)]
        struct Pattern {
            #[schemars(regex(pattern = "^a$"))]
            it: String,
        }
        #[derive(JsonSchema)]
        #[allow(dead_code)]
        struct Uuid {
            #[schemars(extend("format" = "uuid"))]
            it: String,
        }
        #[derive(JsonSchema)]
        #[allow(dead_code)]
        struct Flat {
            #[schemars(flatten)]
            it: std::collections::BTreeMap<String, i32>,
        }
        for (refused, why) in [
            (form::<Holds<Holds<i32>>>(), "its member `it` is an object, and a form is flat"),
            (form::<Holds<Option<Holds<i32>>>>(), "its member `it` is an object, and a form is flat"),
            (form::<Holds<Vec<String>>>(), "its member `it` is a list; in a form only a list of an enum's names"),
            (form::<Holds<(i32, i32)>>(), "its member `it` is a list"),
            (form::<Holds<Value>>(), "its member `it` takes any value"),
            (form::<Holds<Data>>(), "its member `it` is an enum whose variants are more than names"),
            (form::<Holds<()>>(), "its member `it` is neither text"),
            (form::<Pattern>(), "its member `it` has `pattern`"),
            (form::<Uuid>(), "its member `it` has the format \"uuid\""),
            (form::<Own>(), "`Own` cannot be a form: its member `again` contains itself"),
            (form::<Flat>(), "it has `additionalProperties`"),
            (form::<Plain>(), "`Plain` cannot be a form: it is not a struct with named members"),
            (form::<Value>(), "cannot be a form: it"),
        ] {
            let refused = refused.expect_err(why);
            assert!(refused.contains(why), "{refused}, not {why}");
        }
    }
}
