//! The macros of `weir-sdk`. Use them through that crate: what they write names its items.

mod plugin;
mod request;

use proc_macro::TokenStream;
use quote::quote;
use syn::{Fields, Item};

/// Makes a type one that can be read from JSON, and whose JSON Schema is known; and a struct with named members the
/// arguments of a tool (`weir_sdk::Arguments`). Other types can be members of such a struct.
///
/// Members that the type does not have are refused, unless the type flattens another one. A struct that serde reads as
/// another type (`transparent`, `from`, `try_from`) is the arguments of a tool only where the crate says so, with
/// `impl weir_sdk::Arguments for ...`.
#[proc_macro_attribute]
pub fn input(_: TokenStream, item: TokenStream) -> TokenStream {
    let item = syn::parse_macro_input!(item as Item);
    let named = match &item {
        Item::Struct(item) => Some(item).filter(|item| matches!(item.fields, Fields::Named(_))),
        _ => None,
    };
    let strict =
        named.filter(|item| !item.fields.iter().flat_map(|field| &field.attrs).any(|it| says(it, &["flatten"])));
    let strict = strict.map(|_| quote!(, deny_unknown_fields));
    let arguments = named.filter(|item| !item.attrs.iter().any(|it| says(it, &["transparent", "from", "try_from"])));
    let arguments = arguments.map(|item| {
        let (name, (generics, arguments, bounds)) = (&item.ident, item.generics.split_for_impl());
        let bounds = bounds.map(|bounds| &bounds.predicates);
        quote! {
            impl #generics ::weir_sdk::Arguments for #name #arguments
            where
                Self: ::weir_sdk::schemars::JsonSchema + ::weir_sdk::serde::de::DeserializeOwned,
                #bounds
            {
            }
        }
    });
    quote! {
        #[derive(::weir_sdk::serde::Deserialize, ::weir_sdk::schemars::JsonSchema)]
        #[serde(crate = "::weir_sdk::serde" #strict)]
        #[schemars(crate = "::weir_sdk::schemars")]
        #item

        #arguments
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

/// Whether an attribute of serde says one of these.
fn says(attribute: &syn::Attribute, names: &[&str]) -> bool {
    let mut found = false;
    if attribute.path().is_ident("serde") {
        // What cannot be read here is for serde to complain about.
        let _ = attribute.parse_nested_meta(|meta| {
            found |= names.iter().any(|name| meta.path.is_ident(name));
            // The rest of one that has a value, such as `default = "..."`.
            if meta.input.peek(syn::Token![=]) {
                meta.value()?.parse::<syn::Expr>()?;
            }
            Ok(())
        });
    }
    found
}
