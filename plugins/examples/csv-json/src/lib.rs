//! Tables between CSV (RFC 4180) and JSON, in both directions.
//!
//! Fields are texts in both: what looks like a number may be a postcode. What does not fit is told with its line.

use std::collections::HashSet;

use csv::{ReaderBuilder, StringRecord, Terminator, WriterBuilder};
use weir_sdk::prelude::*;
use weir_sdk::serde_json::Map;

/// A table as text.
#[weir_sdk::input]
struct Read {
    /// The text.
    text: String,
    /// The character between two fields.
    #[serde(default = "comma")]
    delimiter: char,
    /// Whether the first line names the columns. Rows are objects then, and lists of texts otherwise.
    #[serde(default = "yes")]
    header: bool,
    /// Leave out white space around fields.
    #[serde(default)]
    trim: bool,
}

/// A table as a list.
#[weir_sdk::input]
struct Write {
    /// Objects, or lists of fields. A field is a text, a number, a boolean, or null for an empty one.
    rows: Vec<Row>,
    /// The columns, in their order. Without it, they are the members of the first object; lists have no columns then.
    columns: Option<Vec<String>>,
    /// The character between two fields.
    #[serde(default = "comma")]
    delimiter: char,
}

/// One row of a table.
#[weir_sdk::input]
#[serde(untagged)]
enum Row {
    /// Fields by their columns. A column that is missing is empty.
    Named(Map<String, Value>),
    /// Fields in the order of the columns.
    Listed(Vec<Value>),
}

/// The table that was read.
#[weir_sdk::output]
struct Table {
    /// The names of the columns; none without a header.
    columns: Option<Vec<String>>,
    /// Objects, or lists of texts without a header.
    rows: Vec<Value>,
}

fn comma() -> char {
    ','
}

fn yes() -> bool {
    true
}

weir_sdk::plugin! {
    /// Reads a table from CSV. All fields are texts. Every line must have as many as the first.
    #[tool(title = "CSV to JSON", read_only, idempotent, open_world = false)]
    fn csv_to_json(input: Read, _cx: &Context) -> Result<Json<Table>, ToolError> {
        let text = input.text.trim_start_matches('\u{feff}');
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter(input.delimiter)?)
            .has_headers(input.header)
            .trim(if input.trim { csv::Trim::All } else { csv::Trim::None })
            .from_reader(text.as_bytes());
        let columns = match input.header {
            true => Some(named(reader.headers().map_err(|error| unreadable(&error))?)?),
            false => None,
        };
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|error| unreadable(&error))?;
            rows.push(match &columns {
                Some(columns) => columns.iter().zip(&record).map(|(name, field)| (name.clone(), json!(field))).collect(),
                None => record.iter().map(|field| json!(field)).collect(),
            });
        }
        Ok(Json(Table { columns, rows }))
    }

    /// Writes a table as CSV, with a first line that names the columns where there are any.
    #[tool(title = "JSON to CSV", read_only, idempotent, open_world = false)]
    fn json_to_csv(input: Write, _cx: &Context) -> Result<Text, ToolError> {
        let columns = input.columns.or_else(|| match input.rows.first() {
            Some(Row::Named(row)) => Some(row.keys().cloned().collect()),
            _ => None,
        });
        let mut writer = WriterBuilder::new()
            .delimiter(delimiter(input.delimiter)?)
            .terminator(Terminator::CRLF)
            .from_writer(Vec::new());
        if let Some(columns) = &columns {
            let columns = StringRecord::from(columns.as_slice());
            writer.write_record(&named(&columns)?)?;
        }
        let mut width = columns.as_ref().map(Vec::len);
        for (n, row) in input.rows.iter().enumerate() {
            let fields = fields(row, columns.as_deref()).map_err(|what| misfit(n, &what))?;
            let width = *width.get_or_insert(fields.len());
            if fields.len() != width || fields.is_empty() {
                return Err(misfit(n, &format!("has {} fields, and not {width}", fields.len())));
            }
            writer.write_record(&fields)?;
        }
        Ok(Text(String::from_utf8(writer.into_inner().map_err(csv::IntoInnerError::into_error)?)?))
    }
}

/// A character that may stand between two fields.
fn delimiter(delimiter: char) -> Result<u8, ToolError> {
    match u8::try_from(delimiter) {
        Ok(byte) if byte.is_ascii() && !b"\"\r\n\0".contains(&byte) => Ok(byte),
        _ => Err(ToolError::invalid_arguments(format!("/delimiter: {delimiter:?} cannot stand between two fields"))),
    }
}

/// The names of columns, each of which is there once.
fn named(columns: &StringRecord) -> Result<Vec<String>, ToolError> {
    let mut seen = HashSet::new();
    if let Some(twice) = columns.iter().find(|name| !seen.insert(*name)) {
        let message = format!("line 1: there are two columns named {twice:?}");
        return Err(ToolError::invalid_arguments(message).with_code("csv_column_twice"));
    }
    Ok(columns.iter().map(str::to_owned).collect())
}

/// Why a text is no table.
fn unreadable(error: &csv::Error) -> ToolError {
    let line = error.position().map(|at| format!("line {}: ", at.line())).unwrap_or_default();
    let (what, code) = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            (format!("there are {len} fields, and not {expected_len} as in the first line"), "csv_fields")
        }
        _ => (error.to_string(), "csv_unreadable"),
    };
    ToolError::invalid_arguments(format!("{line}{what}")).with_code(code)
}

/// Why a row cannot be written.
fn misfit(n: usize, what: &str) -> ToolError {
    ToolError::invalid_arguments(format!("/rows/{n}: {what}")).with_code("csv_row")
}

/// The fields of a row, in the order of the columns.
fn fields(row: &Row, columns: Option<&[String]>) -> Result<Vec<String>, String> {
    match (row, columns) {
        (Row::Listed(fields), _) => fields.iter().map(field).collect(),
        (Row::Named(row), Some(columns)) => {
            if let Some(other) = row.keys().find(|name| !columns.contains(name)) {
                return Err(format!("there is no column {other:?}"));
            }
            columns.iter().map(|name| row.get(name).map_or(Ok(String::new()), field)).collect()
        }
        (Row::Named(_), None) => Err("is an object, and the first row is a list: say the `columns`".to_owned()),
    }
}

fn field(value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Array(_) | Value::Object(_) => Err("a field is no list and no object".to_owned()),
    }
}

#[cfg(test)]
mod tests;
