//! The server's half: a router whose handlers call an implementation of the trait.

use std::collections::HashMap;

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};

use super::{problem, runtime, runtime_at};
use crate::parse::{
    BodyKind, Contract, Method, Owned, Parameter, Place, QueryKind, Segment, default_tokens,
    kept_item as item, span_of,
};

pub(super) fn expand(contract: &Contract) -> TokenStream {
    let rt = runtime(contract);
    let Contract {
        krate,
        visibility,
        name,
        service,
        ..
    } = contract;
    let server = format_ident!("{name}Server");
    let title = format!("The server's half of [`{name}`], which answers for `{service}`.");
    let mut names = Names::default();
    let routes = contract.methods.iter().map(|method| {
        let path = names.path(&contract.base_path, method);
        route(contract, method, &path)
    });
    let routes: Vec<TokenStream> = routes.collect();
    let needs = contract
        .halves
        .server
        .map(|span| quote_spanned!(span=> #krate::__private_needs_server!();));
    quote! {
        #needs

        #[doc = #title]
        #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
        #visibility struct #server;

        #[allow(dead_code, reason = "generated")]
        impl #server {
            /// The routes of the interface, over an implementation of it. Errors are problem documents.
            #visibility fn router<S>(service: S) -> #rt::server::Router
            where
                S: #name + ::core::marker::Send + ::core::marker::Sync + 'static,
            {
                let service = ::std::sync::Arc::new(service);
                let router = #rt::server::Router::new();
                #(#routes)*
                router
            }
        }
    }
}

/// One name for a parameter at one place, whatever the methods call it: a router knows one only.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn path(&mut self, base_path: &str, method: &Method) -> String {
        let (mut path, mut shape) = (base_path.to_owned(), base_path.to_owned());
        for segment in &method.template.segments {
            let (name, rest) = match segment {
                Segment::Literal(text) => {
                    path.extend(["/", text.as_str()]);
                    shape.extend(["/", text.as_str()]);
                    continue;
                }
                Segment::Parameter(name) => (name, false),
                Segment::Rest(name) => (name, true),
            };
            let name = name.replace('-', "_");
            let known = self.0.entry(format!("{shape}/{rest}")).or_insert(name);
            path.push_str(&match rest {
                true => format!("/{{*{known}}}"),
                false => format!("/{{{known}}}"),
            });
            shape.push_str("/{}");
        }
        match path.is_empty() {
            true => "/".to_owned(),
            false => path,
        }
    }
}

fn route(contract: &Contract, method: &Method, path: &str) -> TokenStream {
    let rt = runtime(contract);
    let interface = &contract.name;
    let (name, verb) = (&method.name, format_ident!("{}", method.verb.as_str()));
    let values: Vec<_> = method
        .parameters
        .iter()
        .map(|parameter| &parameter.name)
        .collect();
    let reads = method
        .parameters
        .iter()
        .map(|parameter| read(contract, method, parameter));
    let given = method.parameters.iter().map(|Parameter { name, ty, .. }| {
        let owned = Owned::of(ty);
        match (owned.lent, owned.lent_within) {
            (true, _) => quote!(&#name),
            (_, true) => quote!(#name.as_deref()),
            _ => quote!(#name),
        }
    });
    let kind = method
        .answer
        .kind(&runtime_at(contract, span_of(&method.ok)));
    let (error, problem) = (&method.error, problem(contract, method));
    let span = span_of(error);
    let answer =
        quote_spanned!(span=> #rt::server::answer::<#kind, #error, #problem>(result, packed));
    quote! {
        let router = #rt::server::route(router, #rt::Method::#verb, #path, {
            let service = ::std::sync::Arc::clone(&service);
            move |mut input: #rt::server::Input| {
                let service = ::std::sync::Arc::clone(&service);
                async move {
                    let packed = input.wants_msgpack();
                    #(#reads)*
                    if !input.is_sound() {
                        return input.refused();
                    }
                    let (#(::core::option::Option::Some(#values),)*) = (#(#values,)*) else {
                        return input.refused();
                    };
                    let result = #interface::#name(&*service #(, #given)*).await;
                    #answer
                }
            }
        });
    }
}

/// The statement that reads a parameter: an `Option` of its value.
fn read(contract: &Contract, method: &Method, parameter: &Parameter) -> TokenStream {
    let rt = runtime(contract);
    let Parameter {
        name: value,
        ty,
        place,
        ..
    } = parameter;
    let Owned {
        ty: owned,
        lent,
        lent_within,
    } = Owned::of(ty);
    let span = span_of(ty);
    // What is lent to the method is kept here.
    let default_of = |default: &Option<Box<syn::Expr>>| {
        let value = default_tokens(default)?;
        Some(match lent || lent_within {
            true => quote!(::std::borrow::ToOwned::to_owned(#value)),
            false => value,
        })
    };
    let read = match place {
        Place::Path { name } => {
            let place = method.template.names().position(|known| known == name);
            let place = place.unwrap_or_default();
            quote_spanned!(span=> input.path::<#owned>(#place, #name))
        }
        Place::Query {
            name,
            kind,
            default,
        } => match (kind, default_of(default)) {
            (QueryKind::Once, None) => quote_spanned!(span=> input.query::<#owned>(#name)),
            (QueryKind::Once, Some(default)) => {
                quote_spanned!(span=> input.query_or::<#owned>(#name, || #default))
            }
            (QueryKind::Optional, None) => {
                let item = item(&owned);
                quote_spanned!(span=> input.query_optional::<#item>(#name))
            }
            (QueryKind::Optional, Some(default)) => {
                let item = item(&owned);
                quote_spanned!(span=> input.query_or::<#item>(#name, || #default).map(::core::option::Option::Some))
            }
            (QueryKind::List, _) => {
                let item = item(&owned);
                quote_spanned!(span=> input.query_list::<#item>(#name))
            }
            (QueryKind::OptionalList, _) => {
                let item = item(&item(&owned));
                quote_spanned!(span=> input.query_optional_list::<#item>(#name))
            }
        },
        Place::Fields => quote_spanned!(span=> input.query_fields::<#owned>()),
        Place::Header {
            name,
            optional,
            default,
        } => match (optional, default_of(default)) {
            (false, None) => quote_spanned!(span=> input.header::<#owned>(#name)),
            (false, Some(default)) => {
                quote_spanned!(span=> input.header_or::<#owned>(#name, || #default))
            }
            (true, None) => {
                let item = item(&owned);
                quote_spanned!(span=> input.header_optional::<#item>(#name))
            }
            (true, Some(default)) => {
                let item = item(&owned);
                quote_spanned!(span=> input.header_or::<#item>(#name, || #default).map(::core::option::Option::Some))
            }
        },
        Place::Body(BodyKind::Json) => quote_spanned!(span=> input.json::<#owned>().await),
        Place::Body(BodyKind::Form) => quote_spanned!(span=> input.form::<#owned>().await),
        Place::Body(BodyKind::MessagePack) => {
            quote_spanned!(span=> input.msgpack::<#owned>().await)
        }
        Place::Body(BodyKind::Stream) => quote_spanned!(span=> input.stream()),
        Place::Body(BodyKind::Multipart) => quote_spanned!(span=> input.multipart().await),
    };
    let check = match place {
        Place::Body(kind) if kind.is_value() => contract.halves.validate.map(|_| {
            quote_spanned! {span=>
                if let ::core::option::Option::Some(value) = &#value {
                    for (field, what) in #rt::validate::violations(value) {
                        input.refuse(field, what);
                    }
                }
            }
        }),
        _ => None,
    };
    quote!(let #value = #read; #check)
}
