//! The macros of `weir-sdk`. Use them through that crate: what they write names its items.

mod plugin;
mod request;

use proc_macro::TokenStream;
use quote::quote;
use syn::{Fields, Item};

/// Makes a type the arguments of a tool: it can be read from JSON, and its JSON Schema is known.
///
/// Members that the type does not have are refused, unless the type flattens another one.
#[proc_macro_attribute]
pub fn input(_: TokenStream, item: TokenStream) -> TokenStream {
    let item = syn::parse_macro_input!(item as Item);
    let strict = matches!(&item, Item::Struct(item) if matches!(&item.fields, Fields::Named(fields)
        if !fields.named.iter().flat_map(|field| &field.attrs).any(flattens)));
    let strict = strict.then(|| quote!(, deny_unknown_fields));
    quote! {
        #[derive(::weir_sdk::serde::Deserialize, ::weir_sdk::schemars::JsonSchema)]
        #[serde(crate = "::weir_sdk::serde" #strict)]
        #[schemars(crate = "::weir_sdk::schemars")]
        #item
    }
    .into()
}

/// Makes a type the structured result of a tool, in `Json<T>`: it can be written as JSON, and its JSON Schema is known.
#[proc_macro_attribute]
pub fn output(_: TokenStream, item: TokenStream) -> TokenStream {
    let item = syn::parse_macro_input!(item as Item);
    quote! {
        #[derive(::weir_sdk::serde::Serialize, ::weir_sdk::schemars::JsonSchema)]
        #[serde(crate = "::weir_sdk::serde")]
        #[schemars(crate = "::weir_sdk::schemars")]
        #item
    }
    .into()
}

/// Makes tools of functions, and a plugin of the crate. Once in a crate.
///
/// Each function takes its arguments (a type with `#[weir_sdk::input]`) and a `&Context`, and returns
/// `Result<T, ToolError>` where `T` is `Text`, `Json<_>` or `Answer`. Its doc comment is the tool's description. An
/// attribute `#[tool(...)]` says more: `title = "..."`, and the hints `read_only`, `destructive`, `idempotent` and
/// `open_world`, each alone or with `= false`.
#[proc_macro]
pub fn plugin(functions: TokenStream) -> TokenStream {
    let functions = syn::parse_macro_input!(functions as plugin::Functions);
    plugin::expand(&functions).unwrap_or_else(|error| error.to_compile_error()).into()
}

fn flattens(attribute: &syn::Attribute) -> bool {
    let mut found = false;
    if attribute.path().is_ident("serde") {
        // What cannot be read here is for serde to complain about.
        let _ = attribute.parse_nested_meta(|meta| {
            found |= meta.path.is_ident("flatten");
            Ok(())
        });
    }
    found
}
