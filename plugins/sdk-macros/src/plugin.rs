//! `plugin!`: the functions stay what they are; beside them come the table of tools, what the host calls, and what
//! tests call.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned as _;
use syn::{Attribute, Error, Expr, ExprLit, FnArg, ItemFn, Lit, LitBool, LitStr, Meta, Result};

use crate::request;

/// What stands in `plugin!`.
pub(crate) struct Functions(Vec<ItemFn>);

impl Parse for Functions {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut functions = Vec::new();
        while !input.is_empty() {
            functions.push(input.parse()?);
        }
        if functions.is_empty() {
            return Err(input.error("a plugin has at least one function"));
        }
        Ok(Self(functions))
    }
}

pub(crate) fn expand(functions: &Functions) -> Result<TokenStream> {
    let mut kept = Vec::new();
    let mut entries = Vec::new();
    for function in &functions.0 {
        entries.push(entry(function)?);
        let mut function = function.clone();
        function.attrs.retain(|attribute| !attribute.path().is_ident("tool"));
        kept.push(function);
    }
    let request::Found { json: request, file } = request::read()?;
    // So that the crate is built again when the file changes.
    let watched = file.map(|file| {
        quote!(
            const _: &[u8] = ::core::include_bytes!(#file);
        )
    });
    Ok(quote! {
        #(#kept)*

        #watched

        #[doc(hidden)]
        pub static WEIR_TOOLS: &[::weir_sdk::tool::Tool] = &[#(#entries),*];

        #[cfg(target_arch = "wasm32")]
        ::weir_sdk::export_plugin!(WEIR_TOOLS, #request);

        /// Calls the tools of this crate as a host would, natively.
        #[cfg(test)]
        #[allow(dead_code)]
        mod testing {
            /// Calls a tool.
            pub(crate) fn call(
                tool: &str,
                arguments: ::weir_sdk::serde_json::Value,
            ) -> ::std::result::Result<::weir_sdk::Answer, ::weir_sdk::ToolError> {
                call_with(&::weir_sdk::Context::fake(), tool, arguments)
            }

            /// Calls a tool with a context that was prepared, and can be asked afterwards.
            pub(crate) fn call_with(
                context: &::weir_sdk::Context,
                tool: &str,
                arguments: ::weir_sdk::serde_json::Value,
            ) -> ::std::result::Result<::weir_sdk::Answer, ::weir_sdk::ToolError> {
                ::weir_sdk::tool::call_as(#request, super::WEIR_TOOLS, context, tool, &arguments.to_string())
            }

            /// A context that knows what this plugin asks for, for functions that are called without `call_with`.
            pub(crate) fn context() -> ::weir_sdk::Context {
                let context = ::weir_sdk::Context::fake();
                context.know(#request);
                context
            }
        }
    })
}

fn entry(function: &ItemFn) -> Result<TokenStream> {
    let signature = &function.sig;
    if signature.asyncness.is_some() || !signature.generics.params.is_empty() {
        return Err(Error::new(signature.span(), "a tool is a plain function: neither async nor generic"));
    }
    if signature.inputs.len() != 2 || signature.inputs.iter().any(|input| matches!(input, FnArg::Receiver(_))) {
        return Err(Error::new(signature.inputs.span(), "a tool takes its arguments and a `&Context`"));
    }
    let (ident, name) = (&signature.ident, signature.ident.unraw().to_string());
    let description = description(&function.attrs);
    let said = Said::read(&function.attrs)?;
    let (title, icon) = (option(said.title), option(said.icon));
    let [read_only, destructive, idempotent, open_world] = said.hints.map(option);
    // The span of the function, so that a wrong type is shown where it stands.
    Ok(quote_spanned! {ident.span()=>
        ::weir_sdk::tool::Tool {
            name: #name,
            title: #title,
            icon: #icon,
            description: #description,
            hints: ::weir_sdk::tool::Hints {
                read_only: #read_only,
                destructive: #destructive,
                idempotent: #idempotent,
                open_world: #open_world,
            },
            input_schema: || ::weir_sdk::tool::input_schema(#ident),
            output_schema: || ::weir_sdk::tool::output_schema(#ident),
            call: |arguments, context| ::weir_sdk::tool::run(#ident, arguments, context),
        }
    })
}

/// The doc comment, as one text.
fn description(attributes: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attribute in attributes {
        if let Meta::NameValue(meta) = &attribute.meta
            && meta.path.is_ident("doc")
            && let Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) = &meta.value
        {
            let line = line.value();
            lines.push(line.strip_prefix(' ').map_or(line.clone(), str::to_owned));
        }
    }
    lines.join("\n").trim().to_owned()
}

/// What `#[tool(...)]` says.
#[derive(Default)]
struct Said {
    title: Option<LitStr>,
    icon: Option<LitStr>,
    /// `read_only`, `destructive`, `idempotent`, `open_world`.
    hints: [Option<LitBool>; 4],
}

impl Said {
    fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut said = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("tool")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("title") {
                    said.title = Some(meta.value()?.parse()?);
                    return Ok(());
                }
                if meta.path.is_ident("icon") {
                    said.icon = Some(meta.value()?.parse()?);
                    return Ok(());
                }
                let names = ["read_only", "destructive", "idempotent", "open_world"];
                let Some(at) = names.iter().position(|name| meta.path.is_ident(name)) else {
                    let known = "a tool has title, icon, read_only, destructive, idempotent and open_world";
                    return Err(meta.error(known));
                };
                let alone = LitBool::new(true, meta.path.span());
                said.hints[at] = Some(if meta.input.peek(syn::Token![=]) { meta.value()?.parse()? } else { alone });
                Ok(())
            })?;
        }
        Ok(said)
    }
}

fn option<T: quote::ToTokens>(value: Option<T>) -> TokenStream {
    match value {
        Some(value) => quote!(::std::option::Option::Some(#value)),
        None => quote!(::std::option::Option::None),
    }
}
