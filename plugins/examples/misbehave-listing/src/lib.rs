//! A plugin that takes all memory when it is asked what it offers. It never gets in.

use weir_sdk::prelude::*;
use weir_sdk::schemars::{JsonSchema, Schema, SchemaGenerator};

/// Arguments whose schema is made of memory.
#[derive(weir_sdk::serde::Deserialize)]
#[serde(crate = "weir_sdk::serde")]
struct Hog {}

impl JsonSchema for Hog {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Hog".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut taken = Vec::new();
        loop {
            taken.push(std::hint::black_box(vec![1_u8; 1 << 20]));
        }
    }
}

impl weir_sdk::Arguments for Hog {}

weir_sdk::plugin! {
    /// Is never listed.
    fn hog(_input: Hog, _cx: &Context) -> Result<Text, ToolError> {
        Ok(Text(String::new()))
    }
}
