//! The attributes that say how a call is carried: each becomes fields of a `PolicyConfig`.

mod fields;
mod reader;
#[cfg(test)]
mod tests;
mod value;

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::quote;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Lit, LitStr, Meta, Path, Result};

use self::fields::{
    BULKHEAD, CACHED, CIRCUIT_BREAKER, FALLBACK, HEALTH_CHECK, HEDGE, Kind, RATE_LIMIT, RETRY,
    TIMEOUT, VERSION,
};
use self::reader::{Found, Reader};
use self::value::{leading_versions, names_in, span_of_time};
use super::method::Verb;
use super::parameter::{Parameter, Place, QueryKind};
use super::{Mistakes, hint};

/// What the attributes of a method say.
#[derive(Default)]
pub(crate) struct Policy {
    /// Assignments to the fields of `policy`, in a block where `rt` is the runtime.
    pub(crate) fields: Vec<TokenStream>,
    /// Sends a key with every call.
    pub(crate) keyed: bool,
    /// Answers in place of an error.
    pub(crate) instead: Option<Path>,
    /// Makes the key under which an answer is kept.
    pub(crate) key: Option<Path>,
    pub(crate) retries: bool,
    /// Parameters that a key, tags or `vary_on` of the cache name.
    named: Vec<LitStr>,
    seen: Vec<(String, Span)>,
}

/// Attributes of policies.
pub(super) const NAMES: [&str; 11] = [
    "timeout",
    "retry",
    "circuit_breaker",
    "bulkhead",
    "fallback",
    "idempotent",
    "cached",
    "rate_limit",
    "hedge",
    "health_check",
    "version",
];

pub(super) fn is_policy(attribute: &Attribute) -> bool {
    NAMES.iter().any(|name| attribute.path().is_ident(name))
}

impl Policy {
    pub(super) fn add(&mut self, attribute: &Attribute) -> Result<()> {
        let path = attribute.path();
        let name = path
            .get_ident()
            .map(ToString::to_string)
            .unwrap_or_default();
        if self.seen.iter().any(|(known, _)| *known == name) {
            return Err(Error::new_spanned(
                path,
                format!("`{name}` stands there already: put both into one"),
            ));
        }
        self.seen.push((name.clone(), path.span()));
        let table = match name.as_str() {
            "timeout" => TIMEOUT,
            "retry" => RETRY,
            "circuit_breaker" => CIRCUIT_BREAKER,
            "bulkhead" => BULKHEAD,
            "fallback" => FALLBACK,
            "rate_limit" => RATE_LIMIT,
            "hedge" => HEDGE,
            "version" => VERSION,
            "cached" => CACHED,
            "health_check" => HEALTH_CHECK,
            _ => return self.idempotent(attribute),
        };
        self.retries |= name == "retry";
        if name == "health_check" {
            self.fields
                .push(quote!(policy.health_check.enabled = ::core::option::Option::Some(true);));
            // It says enough by standing there.
            if let Meta::Path(_) = &attribute.meta {
                return Ok(());
            }
        }
        let tokens = match &attribute.meta {
            Meta::List(list) if !list.tokens.is_empty() => list.tokens.clone(),
            _ => {
                let keys: Vec<&str> = table.iter().map(|field| field.key).collect();
                return Err(Error::new_spanned(
                    attribute,
                    format!("`{name}` says nothing: give one of {}", keys.join(", ")),
                ));
            }
        };
        if name == "timeout"
            && let Ok(total) = syn::parse2::<Lit>(tokens.clone())
        {
            let value = span_of_time(&total, false)?;
            self.fields
                .push(quote!(policy.timeout.total = ::core::option::Option::Some(#value);));
            return Ok(());
        }
        let mut short = None;
        let read = |input: ParseStream<'_>| {
            if name == "version" && input.peek(LitStr) {
                short = Some(leading_versions(input)?);
            }
            Reader {
                table,
                attribute: &name,
                found: Vec::new(),
            }
            .read(input, "")
        };
        let mut given: Vec<&str> = Vec::new();
        let found = read.parse2(tokens)?;
        if let Some(order) = short {
            given.push("order");
            self.fields
                .push(quote!(policy.versions.order = ::core::option::Option::Some(#order);));
        }
        for Found { field, span, value } in found {
            if given.contains(&field.key) {
                return Err(Error::new(
                    span,
                    format!("`{}` stands there already", field.key),
                ));
            }
            given.push(field.key);
            if matches!(field.kind, Kind::Key | Kind::Patterns | Kind::Varying) {
                collect_names(field.kind, value.clone(), &mut self.named);
            }
            if let Kind::Key = field.kind
                && let Ok(function) = syn::parse2(value.clone())
            {
                self.key = Some(function);
                continue;
            }
            if let Kind::Function = field.kind {
                self.instead = Some(syn::parse2(value)?);
                continue;
            }
            let target: TokenStream = field.path.parse()?;
            self.fields
                .push(quote!(policy.#target = ::core::option::Option::Some(#value);));
        }
        Ok(())
    }

    /// Where an attribute stands.
    pub(crate) fn place_of(&self, name: &str) -> Option<Span> {
        let seen = self.seen.iter().find(|(known, _)| known == name);
        seen.map(|(_, span)| *span)
    }

    fn idempotent(&mut self, attribute: &Attribute) -> Result<()> {
        let Meta::Path(_) = &attribute.meta else {
            return Err(Error::new_spanned(
                attribute,
                "`#[idempotent]` takes nothing: each call gets a key of its own; `call.idempotency_key(…)` gives it another one",
            ));
        };
        self.keyed = true;
        Ok(())
    }

    /// What can be said only with the rest of the method.
    pub(super) fn check(&self, verb: Verb, parameters: &[Parameter], mistakes: &mut Mistakes) {
        let place = |name: &str| self.place_of(name);
        if let Some(span) = place("cached")
            && verb != Verb::Get
        {
            mistakes.at(
                span,
                "only answers to GET are kept: `cached` has no effect here",
            );
        }
        let mut known = Vec::new();
        let mut flattened = false;
        for parameter in parameters {
            match &parameter.place {
                Place::Path { name } | Place::Query { name, .. } => known.push(name.as_str()),
                // Its fields are not known here.
                Place::Fields => flattened = true,
                Place::Header { .. } | Place::Body(_) => {}
            }
        }
        for named in self.named.iter().filter(|_| !flattened) {
            let name = named.value();
            if !known.contains(&name.as_str()) {
                let near = hint(&name, known.iter().copied());
                let text = format!("the path and the query have no parameter `{name}`{near}");
                mistakes.at(named.span(), text);
            }
        }
        if let Some(span) = place("health_check") {
            check_health_check(span, verb, parameters, mistakes);
        }
        if let Some(span) = place("idempotent") {
            if verb == Verb::Get {
                mistakes.at(span, "a GET is idempotent by itself and needs no key");
            }
            let key = |parameter: &&Parameter| matches!(&parameter.place, Place::Header { name, .. } if name == "idempotency-key");
            if let Some(parameter) = parameters.iter().find(key) {
                mistakes.add(
                    &parameter.name,
                    "`#[idempotent]` makes the key: leave one of them out",
                );
            }
        }
    }
}

/// A check knows no arguments: whatever it asks for must be there without them.
fn check_health_check(span: Span, verb: Verb, parameters: &[Parameter], mistakes: &mut Mistakes) {
    if verb != Verb::Get {
        let verb = verb.as_str();
        let text =
            format!("a check is made over and over: it stands at a GET, and this is a {verb}");
        mistakes.at(span, text);
        return;
    }
    for Parameter { name, place, .. } in parameters {
        let needed = match place {
            Place::Path { .. } => Some("it stands in the path: check a method without it"),
            Place::Query {
                kind: QueryKind::Once,
                ..
            }
            | Place::Header {
                optional: false, ..
            } => Some("make it an `Option`, with a default if the check shall send one"),
            Place::Fields => Some("what is in it cannot be seen here: write the parameters out"),
            Place::Query { .. } | Place::Header { .. } | Place::Body(_) => None,
        };
        if let Some(way) = needed {
            let text =
                format!("`#[health_check]` asks without arguments, and needs this one; {way}");
            mistakes.add(name, text);
        }
    }
}

/// Every name of a parameter in the texts of a value, where the text stands.
fn collect_names(kind: Kind, value: TokenStream, found: &mut Vec<LitStr>) {
    for token in value {
        match token {
            TokenTree::Group(group) => collect_names(kind, group.stream(), found),
            TokenTree::Literal(literal) => {
                let Ok(text) = syn::parse2::<LitStr>(TokenTree::from(literal).into()) else {
                    continue;
                };
                let names = match kind {
                    Kind::Varying if text.value().starts_with("header:") => Vec::new(),
                    Kind::Varying => vec![text.value()],
                    _ => names_in(&text.value()).unwrap_or_default(),
                };
                let named = names.iter().map(|name| LitStr::new(name, text.span()));
                found.extend(named);
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}
