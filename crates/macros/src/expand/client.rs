//! The client.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::Type;

use super::{kind, problem, runtime, runtime_at};
use crate::parse::{
    BodyKind, Contract, Method, Parameter, Place, QueryKind, Segment, default_tokens, kept_item,
    span_of,
};

pub(super) fn expand(contract: &Contract) -> TokenStream {
    let rt = runtime(contract);
    let Contract {
        krate,
        visibility,
        name,
        service,
        base_path,
        ..
    } = contract;
    // Where the crate was built without a cache, it says so at the word.
    let needs = contract
        .methods
        .iter()
        .filter_map(|method| method.policy.place_of("cached"))
        .map(|span| quote_spanned!(span=> #krate::__private_needs_cache!();));
    let client = format_ident!("{name}Client");
    let title = format!("Calls `{service}`: the client of [`{name}`].");
    let operations = contract
        .methods
        .iter()
        .map(|method| operation(contract, method));
    let own = contract
        .methods
        .iter()
        .enumerate()
        .map(|(index, method)| call(contract, index, method));
    let common = contract
        .methods
        .iter()
        .map(|method| through(contract, method));
    let interface_name = name.to_string();
    quote! {
        #[doc = #title]
        ///
        /// Each method gives a call that is sent when it is awaited; what one call asks for is set on it before.
        /// Cloning copies pointers; clones share circuits, budgets and connections.
        #[derive(::core::clone::Clone, ::core::fmt::Debug)]
        #visibility struct #client {
            caller: #rt::Caller,
        }

        impl #rt::ServiceClient for #client {
            const INTERFACE: &'static #rt::Interface = {
                use #rt as rt;
                static OPERATIONS: &[rt::Operation] = &[#(#operations),*];
                static INTERFACE: rt::Interface = rt::Interface {
                    name: #interface_name,
                    service: #service,
                    base_path: #base_path,
                    operations: OPERATIONS,
                };
                &INTERFACE
            };

            fn from_caller(caller: #rt::Caller) -> Self {
                Self { caller }
            }
        }

        #[allow(
            dead_code,
            clippy::needless_pass_by_value,
            clippy::too_many_arguments,
            reason = "generated: what the interface does not need is there all the same"
        )]
        impl #client {
            /// A client over an HTTP client, which leads to the service. Nothing is connected yet.
            #[must_use]
            #visibility fn new(client: #rt::EnhancedHttpClient) -> Self {
                let interface = <Self as #rt::ServiceClient>::INTERFACE;
                Self { caller: #rt::Caller::over(interface, &client) }
            }

            /// A clone whose calls all ask for this, where they do not say otherwise.
            #[must_use]
            #visibility fn with_options(&self, options: #rt::CallOptions) -> Self {
                Self { caller: self.caller.with_options(options) }
            }

            /// A clone whose calls all send this header.
            ///
            /// # Errors
            /// `Invalid` when the header cannot be sent.
            #visibility fn with_header(&self, name: &str, value: &str) -> #rt::Result<Self> {
                ::core::result::Result::Ok(Self { caller: self.caller.with_header(name, value)? })
            }

            /// Calls another service, which methods of the interface name, by this client.
            #[must_use]
            #visibility fn with_service(self, name: &str, client: &#rt::EnhancedHttpClient) -> Self {
                Self { caller: self.caller.with_service(name, client) }
            }

            /// The HTTP client below.
            ///
            /// # Errors
            /// Why the service cannot be called.
            #visibility fn http_client(&self) -> #rt::Result<&#rt::EnhancedHttpClient> {
                self.caller.http_client()
            }

            /// The circuits of the endpoints that were called.
            #[must_use]
            #visibility fn circuit_states(&self) -> ::std::vec::Vec<#rt::CircuitStatus> {
                self.caller.circuit_states()
            }

            /// How each instance of the service is, as far as it is known: its own word, checks from here (those of
            /// methods that are marked `health_check` among them), and whether requests to it keep failing.
            ///
            /// # Errors
            /// Why the service cannot be called.
            #visibility fn service_health(&self) -> #rt::Result<#rt::ServiceHealth> {
                self.caller.service_health()
            }

            #krate::__private_clear_cache!(#visibility fn);

            #(#own)*
        }

        #(#needs)*

        #[allow(clippy::needless_pass_by_value, clippy::too_many_arguments, reason = "generated")]
        impl #name for #client {
            #(#common)*
        }
    }
}

/// What is known of a method before the first call.
fn operation(contract: &Contract, method: &Method) -> TokenStream {
    let verb = method.verb.as_str();
    let name = format!("{}::{}", contract.name, method.name);
    let template = &method.template.text;
    let endpoint = format!("{verb} {}{template}", contract.base_path);
    let also = match template.as_str() {
        "" => endpoint.clone(),
        template => format!("{verb} {template}"),
    };
    let service = match &method.service {
        Some(service) => quote!(::core::option::Option::Some(#service)),
        None => quote!(::core::option::Option::None),
    };
    let policy = match method.policy.fields.as_slice() {
        [] => quote!(rt::PolicyConfig::default),
        fields => quote!(|| {
            let mut policy = rt::PolicyConfig::default();
            #(#fields)*
            policy
        }),
    };
    let check = match method.policy.place_of("health_check") {
        Some(_) => check(method),
        None => quote!(::core::option::Option::None),
    };
    let (keyed, verb) = (method.policy.keyed, format_ident!("{verb}"));
    let line = quote_spanned!(method.name.span()=> ::core::line!());
    quote! {
        rt::Operation {
            name: #name,
            method: rt::Method::#verb,
            endpoint: #endpoint,
            also: #also,
            service: #service,
            place: ::core::concat!(::core::file!(), ":", #line),
            policy: #policy,
            keyed: #keyed,
            check: #check,
        }
    }
}

/// What the function that makes a key is given: whatever stands in the path or in the query, borrowed.
fn key_argument(parameter: &Parameter) -> Option<TokenStream> {
    let Parameter {
        name, ty, place, ..
    } = parameter;
    let optional = |kind: &QueryKind| matches!(kind, QueryKind::Optional | QueryKind::OptionalList);
    match place {
        Place::Header { .. } | Place::Body(_) => None,
        // What is borrowed already is copied, in an `Option` as well.
        Place::Query { kind, .. }
            if optional(kind) && matches!(kept_item(ty), Type::Reference(_)) =>
        {
            Some(quote!(#name))
        }
        _ if matches!(ty, Type::Reference(_)) => Some(quote!(#name)),
        _ => Some(quote!(&#name)),
    }
}

/// What a check of a method asks for: the path, and the parameters that have a default.
fn check(method: &Method) -> TokenStream {
    let path = &method.template.text;
    let parameters = method.parameters.iter().filter_map(|parameter| {
        let (function, name, default) = match &parameter.place {
            Place::Query { name, default, .. } => ("query", name, default),
            Place::Header { name, default, .. } => ("header", name, default),
            Place::Path { .. } | Place::Fields | Place::Body(_) => return None,
        };
        let default = default_tokens(default)?;
        let (function, ty) = (format_ident!("{function}"), kept_item(&parameter.ty));
        Some(quote_spanned!(span_of(&parameter.ty)=> {
            let value: #ty = #default;
            check.#function(#name, &value);
        }))
    });
    quote! {
        ::core::option::Option::Some(|check: &mut rt::Check| {
            check.literal(#path);
            #(#parameters)*
        })
    }
}

/// The client's own function.
fn call(contract: &Contract, index: usize, method: &Method) -> TokenStream {
    let rt = runtime(contract);
    let Method {
        name, docs, error, ..
    } = method;
    let visibility = &contract.visibility;
    let parameters = parameters(method);
    let kind = kind(contract, method);
    let problem = problem(contract, method);
    let path = path(method);
    let rest = method
        .parameters
        .iter()
        .map(|parameter| add(contract, parameter));
    let instead = method.policy.instead.as_ref().map(|function| {
        let span = span_of(function);
        quote_spanned!(span=> .or_else(#function))
    });
    // Before the arguments go their ways.
    let key = method.policy.key.as_ref().map(|function| {
        let given = method.parameters.iter().filter_map(key_argument);
        let span = span_of(function);
        quote_spanned!(span=> let key: ::std::string::String = #function(#(#given),*);)
    });
    let keyed = key.as_ref().map(|_| quote!(.cache_key(key)));
    let notes = notes(contract, method);
    quote! {
        #(#docs)*
        #(#[doc = #notes])*
        #visibility fn #name(&self #(, #parameters)*) -> #rt::Call<'_, #kind, #error, #problem> {
            #key
            let mut making = self.caller.begin(#index);
            #(#path)*
            #(#rest)*
            making.done() #instead #keyed
        }
    }
}

/// The same through the trait: where a call is sent, and so where the compiler asks of its types what they have to be.
fn through(contract: &Contract, method: &Method) -> TokenStream {
    let Method {
        name, ok, error, ..
    } = method;
    let typed = parameters(method);
    let names = method.parameters.iter().map(|parameter| &parameter.name);
    let rt = runtime_at(contract, span_of(ok));
    let outcome = quote_spanned!(span_of(ok)=> let outcome = #rt::Call::outcome(call).await;);
    let rt = runtime_at(contract, span_of(error));
    let settle = quote_spanned!(span_of(error)=> #rt::settle(outcome));
    quote! {
        async fn #name(&self #(, #typed)*) -> ::core::result::Result<#ok, #error> {
            let call = Self::#name(self #(, #names)*);
            #outcome
            #settle
        }
    }
}

fn parameters(method: &Method) -> Vec<TokenStream> {
    let each = method
        .parameters
        .iter()
        .map(|Parameter { name, ty, .. }| quote!(#name: #ty));
    each.collect()
}

fn notes(contract: &Contract, method: &Method) -> Vec<String> {
    let mut notes = vec![
        String::new(),
        format!(
            " `{} {}{}`",
            method.verb.as_str(),
            contract.base_path,
            method.template.text
        ),
    ];
    let keyed = method.policy.keyed;
    if method.verb.is_unsafe_to_repeat() && method.policy.retries && !keyed {
        notes.push(String::new());
        notes.push(
            " Repeated only where it provably was not processed: it carries no idempotency key. `#[idempotent]` gives it one."
                .to_owned(),
        );
    }
    if keyed {
        notes.push(String::new());
        notes.push(
            " Carries an idempotency key of its own, which makes a repetition safe.".to_owned(),
        );
    }
    notes
}

/// The statements that put the path together.
fn path(method: &Method) -> Vec<TokenStream> {
    let mut statements = Vec::new();
    let mut literal = String::new();
    for segment in &method.template.segments {
        literal.push('/');
        let (name, function) = match segment {
            Segment::Literal(text) => {
                literal.push_str(text);
                continue;
            }
            Segment::Parameter(name) => (name, format_ident!("path")),
            Segment::Rest(name) => (name, format_ident!("path_rest")),
        };
        let text = std::mem::take(&mut literal);
        statements.push(quote!(making.literal(#text);));
        let own = method
            .parameters
            .iter()
            .find(|parameter| matches!(&parameter.place, Place::Path { name: own } if own == name));
        if let Some(Parameter {
            name: value, ty, ..
        }) = own
        {
            let span = span_of(ty);
            statements.push(quote_spanned!(span=> making.#function(#name, &#value);));
        }
    }
    if !literal.is_empty() {
        statements.push(quote!(making.literal(#literal);));
    }
    statements
}

/// The statement that puts a parameter where it goes.
fn add(contract: &Contract, parameter: &Parameter) -> TokenStream {
    let rt = runtime(contract);
    let Parameter {
        name: value,
        ty,
        place,
        ..
    } = parameter;
    let span = span_of(ty);
    match place {
        Place::Path { .. } => TokenStream::new(),
        Place::Query {
            name,
            kind,
            default,
        } => match (kind, default_tokens(default)) {
            (QueryKind::Once, _) => quote_spanned!(span=> making.query(#name, &#value);),
            (QueryKind::Optional, None) => {
                quote_spanned!(span=> making.query_optional(#name, #value);)
            }
            (QueryKind::Optional, Some(default)) => {
                quote_spanned!(span=> making.query(#name, &#value.unwrap_or_else(|| #default));)
            }
            (QueryKind::List, _) => quote_spanned!(span=> making.query_list(#name, #value.iter());),
            (QueryKind::OptionalList, _) => {
                quote_spanned!(span=> making.query_list(#name, #value.iter().flat_map(|list| list.iter()));)
            }
        },
        Place::Fields => quote_spanned!(span=> making.query_fields(&#value);),
        Place::Header {
            name,
            optional,
            default,
        } => match (optional, default_tokens(default)) {
            (false, _) => quote_spanned!(span=> making.header(#name, &#value);),
            (true, None) => quote_spanned!(span=> making.header_optional(#name, #value);),
            (true, Some(default)) => {
                quote_spanned!(span=> making.header(#name, &#value.unwrap_or_else(|| #default));)
            }
        },
        Place::Body(kind) => {
            let check = contract
                .halves
                .validate
                .map(|_| quote_spanned!(span=> #rt::validate::before(&mut making, &#value);));
            let send = match kind {
                BodyKind::Json => quote_spanned!(span=> making.json(&#value);),
                BodyKind::Form => quote_spanned!(span=> making.form(&#value);),
                BodyKind::MessagePack => quote_spanned!(span=> making.msgpack(&#value);),
                BodyKind::Stream => return quote_spanned!(span=> making.stream(#value);),
                BodyKind::Multipart => return quote_spanned!(span=> making.multipart(#value);),
            };
            quote!(#check #send)
        }
    }
}
