//! Writes the halves of an interface.

mod client;
mod contract;
mod mock;
mod openapi;
mod server;

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};

use crate::parse::{Contract, Method, may_have_rules, span_of};

/// Everything that was asked for.
pub(crate) fn all(contract: &Contract) -> TokenStream {
    let krate = &contract.krate;
    let traits = contract::expand(contract);
    let client = client::expand(contract);
    let server = contract.halves.server.map(|_| server::expand(contract));
    let mock = contract.halves.mock.map(|_| mock::expand(contract));
    let openapi = contract.halves.openapi.map(|_| openapi::expand(contract));
    // Where the crate was built without what a half needs, it says so at the half's word.
    let validate = contract.halves.validate;
    let validate = validate.map(|span| quote_spanned!(span=> #krate::__private_needs_validate!();));
    quote!(#traits #client #server #mock #openapi #validate)
}

/// The path of what generated code may name.
fn runtime(contract: &Contract) -> TokenStream {
    let krate = &contract.krate;
    quote!(#krate::__private)
}

/// The same where the compiler shall point at a place of the trait: it points at where a path begins.
fn runtime_at(contract: &Contract, place: Span) -> TokenStream {
    let tokens = runtime(contract).into_iter().map(|mut token| {
        token.set_span(token.span().located_at(place));
        token
    });
    tokens.collect()
}

/// What an answer with an error status is read as.
fn problem(contract: &Contract, method: &Method) -> TokenStream {
    let rt = runtime(contract);
    match &method.problem {
        Some(ty) => quote!(#ty),
        None => quote!(#rt::Problem),
    }
}

/// The kind of answer of a method; where its type cannot be one, the compiler points at the type.
fn kind(contract: &Contract, method: &Method) -> TokenStream {
    let span = span_of(&method.ok);
    let rt = runtime_at(contract, span);
    let mut kind = method.answer.kind(&rt);
    if contract.halves.validate.is_none() {
        return kind;
    }
    if method.answer.is_checked() {
        kind = quote_spanned!(span=> #rt::validate::Sound<#kind>);
    }
    match &method.problem {
        Some(problem) if may_have_rules(problem) => {
            let rt = runtime_at(contract, span_of(problem));
            quote_spanned!(span_of(problem)=> #rt::validate::SoundProblem<#kind, #problem>)
        }
        _ => kind,
    }
}
