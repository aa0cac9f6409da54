//! The OpenAPI document.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{Attribute, Expr, ExprLit, Lit, Meta};

use super::runtime;
use crate::parse::{
    Answer, BodyKind, Contract, Method, Owned, Parameter, Part, Place, QueryKind, Segment,
    default_tokens, kept_item, span_of,
};

pub(super) fn expand(contract: &Contract) -> TokenStream {
    let rt = runtime(contract);
    let Contract {
        visibility,
        name,
        methods,
        ..
    } = contract;
    let openapi = format_ident!("{name}OpenApi");
    let client = format_ident!("{name}Client");
    let title = format!("The OpenAPI document of [`{name}`].");
    let about = documentation(&contract.attributes);
    let operations = methods.iter().map(|method| operation(contract, method));
    quote! {
        #[doc = #title]
        #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
        #visibility struct #openapi;

        #[allow(dead_code, reason = "generated")]
        impl #openapi {
            /// The document (OpenAPI 3.1), with the schemas of all types. Title and version are the service's name and
            /// `1.0.0`: replace what the service says of itself.
            #[must_use]
            #visibility fn document() -> #rt::JsonValue {
                let interface = <#client as #rt::ServiceClient>::INTERFACE;
                let mut document = #rt::openapi::Document::new(interface, #about);
                #(#operations)*
                document.finish()
            }
        }
    }
}

fn operation(contract: &Contract, method: &Method) -> TokenStream {
    let rt = runtime(contract);
    let (verb, id) = (method.verb.as_str(), method.name.to_string());
    let mut about = documentation(&method.docs);
    if method.verb.is_unsafe_to_repeat() && method.policy.retries && !method.policy.keyed {
        about.push_str("\n\nRepeated by clients only where it provably was not processed.");
    }
    let mut path = contract.base_path.clone();
    for segment in &method.template.segments {
        match segment {
            Segment::Literal(text) => path.extend(["/", text.as_str()]),
            Segment::Parameter(name) | Segment::Rest(name) => {
                path.extend(["/{", name.as_str(), "}"]);
            }
        }
    }
    if path.is_empty() {
        path.push('/');
    }
    let parameters = method
        .parameters
        .iter()
        .map(|parameter| describe(&rt, parameter));
    let keyed = method.policy.keyed.then(|| quote!(entry.keyed();));
    let answer = match &method.answer {
        Answer::Value(ty) => {
            let span = span_of(ty);
            quote_spanned!(span=> entry.answer::<#ty>(false);)
        }
        Answer::Maybe(ty) => {
            let span = span_of(ty);
            quote_spanned!(span=> entry.answer::<#ty>(true);)
        }
        Answer::Raw | Answer::Stream => quote!(entry.stream();),
        Answer::Nothing => quote!(entry.nothing();),
    };
    let error = match &method.problem {
        Some(ty) => {
            let span = span_of(ty);
            quote_spanned!(span=> entry.error::<#ty>();)
        }
        None => quote!(entry.problem();),
    };
    quote! {
        {
            let mut entry = document.operation(#verb, #path, #id, #about);
            #(#parameters)*
            #keyed
            #answer
            #error
        }
    }
}

fn describe(rt: &TokenStream, parameter: &Parameter) -> TokenStream {
    let Parameter { ty, place, .. } = parameter;
    let (span, owned) = (span_of(ty), Owned::of(ty).ty);
    let default = |default| match default_tokens(default) {
        Some(value) => quote!(::core::option::Option::Some(#rt::json!(#value))),
        None => quote!(::core::option::Option::None),
    };
    match place {
        Place::Path { name } => {
            quote_spanned!(span=> entry.parameter::<#owned>(#rt::openapi::In::Path, #name, true, ::core::option::Option::None);)
        }
        Place::Query {
            name,
            kind,
            default: value,
        } => {
            let value = default(value);
            let (ty, required) = match kind {
                QueryKind::Once => (owned, true),
                QueryKind::List => (owned, false),
                QueryKind::Optional | QueryKind::OptionalList => (kept_item(&owned), false),
            };
            quote_spanned!(span=> entry.parameter::<#ty>(#rt::openapi::In::Query, #name, #required, #value);)
        }
        Place::Header {
            name,
            optional,
            default: value,
        } => {
            let value = default(value);
            let ty = if *optional { kept_item(&owned) } else { owned };
            let required = !optional;
            quote_spanned!(span=> entry.parameter::<#ty>(#rt::openapi::In::Header, #name, #required, #value);)
        }
        Place::Fields => quote_spanned!(span=> entry.fields::<#owned>();),
        Place::Body(BodyKind::Json) => {
            quote_spanned!(span=> entry.body::<#owned>("application/json");)
        }
        Place::Body(BodyKind::Form) => {
            quote_spanned!(span=> entry.body::<#owned>("application/x-www-form-urlencoded");)
        }
        Place::Body(BodyKind::MessagePack) => {
            quote_spanned!(span=> entry.body::<#owned>("application/msgpack");)
        }
        Place::Body(BodyKind::Stream) => quote!(entry.streamed_body();),
        Place::Body(BodyKind::Multipart) => {
            let parts = parameter.parts.iter().map(|part| {
                let Part { name, is_file } = part;
                quote!((#name, #is_file))
            });
            quote!(entry.multipart_body(&[#(#parts),*]);)
        }
    }
}

/// What the comments say.
fn documentation(attributes: &[Attribute]) -> String {
    let lines = attributes
        .iter()
        .filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                Expr::Lit(ExprLit {
                    lit: Lit::Str(text),
                    ..
                }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        });
    let lines: Vec<String> = lines
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).to_owned())
        .collect();
    lines.join("\n")
}
