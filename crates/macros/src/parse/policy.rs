//! The attributes that say how a call is carried: each becomes fields of a `PolicyConfig`.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Ident, Lit, LitStr, Meta, Path, Result, Token};

use super::method::Verb;
use super::parameter::{Parameter, Place};
use super::{Mistakes, duration, hint};

/// What the attributes of a method say.
#[derive(Default)]
pub(crate) struct Policy {
    /// Assignments to the fields of `policy`, in a block where `rt` is the runtime.
    pub(crate) fields: Vec<TokenStream>,
    /// Sends a key with every call.
    pub(crate) keyed: bool,
    /// Answers in place of an error.
    pub(crate) instead: Option<Path>,
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

/// Those that this version does not carry out: refused, never ignored.
const NOT_SERVED: [&str; 1] = ["health_check"];

pub(super) fn is_policy(attribute: &Attribute) -> bool {
    NAMES.iter().any(|name| attribute.path().is_ident(name))
}

/// What a field takes.
#[derive(Clone, Copy)]
enum Kind {
    /// A span of time, longer than zero.
    Span,
    /// A span of time, zero as well.
    SpanOrZero,
    Whole(u64, u64),
    Number(f64, f64),
    Switch,
    /// The name of a service.
    Text,
    /// The name of a header or of a parameter.
    Name,
    /// A text with `{version}` in it.
    Written,
    /// Versions, the preferred one first.
    Versions,
    /// A text that may name parameters: `product:{product_id}`.
    Pattern,
    /// Several of them.
    Patterns,
    /// Parameters of the query, and headers as `header:accept-language`.
    Varying,
    Statuses,
    Methods,
    /// One of these words.
    Word(&'static Words),
    /// Several of these words.
    Words(&'static Words),
    /// Anything that is JSON.
    Json,
    /// A function.
    Function,
}

/// The words of a type of the runtime, each with its variant.
struct Words {
    ty: &'static str,
    variants: &'static [(&'static str, &'static str)],
}

const WINDOWS: Words = Words {
    ty: "WindowKind",
    variants: &[
        ("consecutive", "Consecutive"),
        ("count", "Count"),
        ("time", "Time"),
    ],
};

const STRATEGIES: Words = Words {
    ty: "Strategy",
    variants: &[
        ("fixed", "Fixed"),
        ("linear", "Linear"),
        ("exponential", "Exponential"),
        ("decorrelated", "Decorrelated"),
    ],
};

const KINDS: Words = Words {
    ty: "RetryableKind",
    variants: &[
        ("unavailable", "Unavailable"),
        ("timeout", "Timeout"),
        ("rate_limited", "RateLimited"),
        ("rejected", "Rejected"),
        ("conflict", "Conflict"),
        ("exhausted", "Exhausted"),
        ("internal", "Internal"),
    ],
};

const CACHE_MODES: Words = Words {
    ty: "CacheMode",
    variants: &[("private", "Private"), ("shared", "Shared")],
};

const VERSION_PLACES: Words = Words {
    ty: "VersionPlace",
    variants: &[("path", "Path"), ("header", "Header"), ("query", "Query")],
};

const VERSION_FAILURES: Words = Words {
    ty: "VersionFailure",
    variants: &[
        ("unavailable", "Unavailable"),
        ("timeout", "Timeout"),
        ("rejected", "Rejected"),
        ("rate_limited", "RateLimited"),
        ("not_found", "NotFound"),
        ("conflict", "Conflict"),
        ("unauthenticated", "Unauthenticated"),
        ("denied", "Denied"),
        ("invalid", "Invalid"),
        ("unsupported", "Unsupported"),
        ("exhausted", "Exhausted"),
        ("internal", "Internal"),
    ],
};

impl Words {
    fn read(&self, literal: &Lit) -> Result<TokenStream> {
        let known = || self.variants.iter().map(|(word, _)| *word);
        let near = match literal {
            Lit::Str(text) => {
                let word = text.value();
                let found = self.variants.iter().find(|(known, _)| *known == word);
                if let Some((_, variant)) = found {
                    let (ty, variant) = (format_ident!("{}", self.ty), format_ident!("{variant}"));
                    return Ok(quote!(rt::#ty::#variant));
                }
                hint(&word, known())
            }
            _ => String::new(),
        };
        let known: Vec<String> = known().map(|word| format!("\"{word}\"")).collect();
        let text = format!("give one of {}{near}", known.join(", "));
        Err(Error::new(literal.span(), text))
    }
}

struct Field {
    key: &'static str,
    /// Where it goes, behind `policy.`.
    path: &'static str,
    kind: Kind,
}

const fn field(key: &'static str, path: &'static str, kind: Kind) -> Field {
    Field { key, path, kind }
}

const TIMEOUT: &[Field] = &[
    field("total", "timeout.total", Kind::Span),
    field("request", "request_timeout", Kind::Span),
    field("connection", "timeout.connection", Kind::Span),
    field("read", "timeout.read", Kind::Span),
    field("pool", "timeout.pool", Kind::SpanOrZero),
    field("floor", "timeout.floor", Kind::SpanOrZero),
    field("fair", "timeout.fair", Kind::SpanOrZero),
];

const RETRY: &[Field] = &[
    field("enabled", "retry.enabled", Kind::Switch),
    field("max_attempts", "retry.max_attempts", Kind::Whole(1, 100)),
    field("strategy", "retry.strategy", Kind::Word(&STRATEGIES)),
    field("delay", "retry.delay", Kind::SpanOrZero),
    field("backoff", "retry.backoff", Kind::Number(1.0, 100.0)),
    field("max_delay", "retry.max_delay", Kind::SpanOrZero),
    field("jitter", "retry.jitter", Kind::Switch),
    field("max_elapsed", "retry.max_elapsed", Kind::Span),
    field("on_status", "retry.on_status", Kind::Statuses),
    field("on_error", "retry.on_error", Kind::Words(&KINDS)),
    field("methods", "retry.methods", Kind::Methods),
    field("budget.enabled", "retry.budget.enabled", Kind::Switch),
    field(
        "budget.percent",
        "retry.budget.percent",
        Kind::Number(0.0, 1000.0),
    ),
    field(
        "budget.min_per_second",
        "retry.budget.min_per_second",
        Kind::Whole(0, 100_000),
    ),
];

const CIRCUIT_BREAKER: &[Field] = &[
    field("enabled", "circuit_breaker.enabled", Kind::Switch),
    field(
        "failure_threshold",
        "circuit_breaker.failure_threshold",
        Kind::Whole(1, U32),
    ),
    field(
        "success_threshold",
        "circuit_breaker.success_threshold",
        Kind::Whole(1, U32),
    ),
    field(
        "recovery_timeout",
        "circuit_breaker.recovery_timeout",
        Kind::Span,
    ),
    field(
        "half_open_max_calls",
        "circuit_breaker.half_open_max_calls",
        Kind::Whole(1, U32),
    ),
    field("probe_timeout", "circuit_breaker.probe_timeout", Kind::Span),
    field(
        "window.type",
        "circuit_breaker.window.kind",
        Kind::Word(&WINDOWS),
    ),
    field(
        "window.size",
        "circuit_breaker.window.size",
        Kind::Whole(1, 100_000),
    ),
    field(
        "window.duration",
        "circuit_breaker.window.duration",
        Kind::Span,
    ),
    field(
        "window.minimum_calls",
        "circuit_breaker.window.minimum_calls",
        Kind::Whole(1, U32),
    ),
    field(
        "window.failure_percent",
        "circuit_breaker.window.failure_percent",
        Kind::Number(1.0, 100.0),
    ),
    field(
        "slow_call.enabled",
        "circuit_breaker.slow_call.enabled",
        Kind::Switch,
    ),
    field(
        "slow_call.duration",
        "circuit_breaker.slow_call.duration",
        Kind::Span,
    ),
    field(
        "slow_call.percent",
        "circuit_breaker.slow_call.percent",
        Kind::Number(1.0, 100.0),
    ),
];

const BULKHEAD: &[Field] = &[
    field("enabled", "bulkhead.enabled", Kind::Switch),
    field(
        "max_concurrent",
        "bulkhead.max_concurrent",
        Kind::Whole(1, 1_000_000),
    ),
    field("max_queue", "bulkhead.max_queue", Kind::Whole(0, 1_000_000)),
    field("max_wait", "bulkhead.max_wait", Kind::SpanOrZero),
];

const RATE_LIMIT: &[Field] = &[
    field("enabled", "rate_limit.enabled", Kind::Switch),
    field("limit", "rate_limit.limit", Kind::Whole(1, 1_000_000)),
    field("per", "rate_limit.per", Kind::Span),
    field("burst", "rate_limit.burst", Kind::Whole(1, 1_000_000)),
    field("max_wait", "rate_limit.max_wait", Kind::SpanOrZero),
];

const HEDGE: &[Field] = &[
    field("enabled", "hedge.enabled", Kind::Switch),
    field("delay", "hedge.delay", Kind::Span),
    field("percentile", "hedge.percentile", Kind::Number(50.0, 99.9)),
    field("min_delay", "hedge.min_delay", Kind::SpanOrZero),
    field(
        "minimum_calls",
        "hedge.minimum_calls",
        Kind::Whole(1, 1_000_000),
    ),
    field("max_hedges", "hedge.max_hedges", Kind::Whole(1, 5)),
    field("methods", "hedge.methods", Kind::Methods),
];

const FALLBACK: &[Field] = &[
    field("service", "fallback.service", Kind::Text),
    field("value", "fallback.value", Kind::Json),
    field("reserve", "fallback.reserve", Kind::SpanOrZero),
    field("with", "", Kind::Function),
];

const CACHED: &[Field] = &[
    field("enabled", "cache.enabled", Kind::Switch),
    field("mode", "cache.mode", Kind::Word(&CACHE_MODES)),
    field("ttl", "cache.ttl", Kind::Span),
    field("cache_on_error", "cache.cache_on_error", Kind::Switch),
    field("error_ttl", "cache.error_ttl", Kind::Span),
    field("key", "cache.key", Kind::Pattern),
    field("vary_on", "cache.vary_on", Kind::Varying),
    field("tags", "cache.tags", Kind::Patterns),
    field("public", "cache.public", Kind::Switch),
    field("respect_no_store", "cache.respect_no_store", Kind::Switch),
    field(
        "stale_while_revalidate",
        "cache.stale_while_revalidate",
        Kind::SpanOrZero,
    ),
    field("stale_if_error", "cache.stale_if_error", Kind::SpanOrZero),
];

const VERSION: &[Field] = &[
    field("order", "versions.order", Kind::Versions),
    field("enabled", "versions.enabled", Kind::Switch),
    field("by", "versions.by", Kind::Word(&VERSION_PLACES)),
    field("name", "versions.name", Kind::Name),
    field("value", "versions.value", Kind::Written),
    field(
        "on_error",
        "versions.on_error",
        Kind::Words(&VERSION_FAILURES),
    ),
    field("on_status", "versions.on_status", Kind::Statuses),
];

const U32: u64 = u32::MAX as u64;

impl Policy {
    pub(super) fn add(&mut self, attribute: &Attribute) -> Result<()> {
        let path = attribute.path();
        let name = path
            .get_ident()
            .map(ToString::to_string)
            .unwrap_or_default();
        if NOT_SERVED.contains(&name.as_str()) {
            return Err(Error::new_spanned(
                path,
                format!(
                    "`#[{name}]` is not served by this version: remove it, it would have no effect"
                ),
            ));
        }
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
            _ => return self.idempotent(attribute),
        };
        self.retries |= name == "retry";
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
            if matches!(field.kind, Kind::Pattern | Kind::Patterns | Kind::Varying) {
                collect_names(field.kind, value.clone(), &mut self.named);
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

struct Found {
    field: &'static Field,
    span: Span,
    value: TokenStream,
}

/// Reads `key = value, section(key = value)`.
struct Reader<'a> {
    table: &'static [Field],
    attribute: &'a str,
    found: Vec<Found>,
}

impl Reader<'_> {
    fn read(mut self, input: ParseStream<'_>, section: &str) -> Result<Vec<Found>> {
        self.fields(input, section)?;
        Ok(self.found)
    }

    fn fields(&mut self, input: ParseStream<'_>, section: &str) -> Result<()> {
        while !input.is_empty() {
            if !input.peek(Ident::peek_any) {
                return Err(input.error(format!(
                    "`{}` takes names and values: `{}`",
                    self.attribute,
                    self.example()
                )));
            }
            let word = Ident::parse_any(input)?;
            let key = match section {
                "" => word.unraw().to_string(),
                section => format!("{section}.{}", word.unraw()),
            };
            if input.peek(syn::token::Paren) {
                let inner;
                syn::parenthesized!(inner in input);
                let prefix = format!("{key}.");
                if !self
                    .table
                    .iter()
                    .any(|field| field.key.starts_with(&prefix))
                {
                    return Err(self.unknown(&word, &key));
                }
                self.fields(&inner, &key)?;
            } else {
                let Some(field) = self.table.iter().find(|field| field.key == key) else {
                    return Err(self.unknown(&word, &key));
                };
                input.parse::<Token![=]>()?;
                let value = value(field, input)?;
                self.found.push(Found {
                    field,
                    span: word.span(),
                    value,
                });
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(())
    }

    fn unknown(&self, word: &Ident, key: &str) -> Error {
        let keys: Vec<&str> = self.table.iter().map(|field| field.key).collect();
        let text = format!(
            "`{}` has no `{key}`{}; known are {}",
            self.attribute,
            hint(key, keys.iter().copied()),
            keys.join(", ")
        );
        Error::new(word.span(), text)
    }

    fn example(&self) -> &'static str {
        match self.attribute {
            "timeout" => "total = \"5s\"",
            "retry" => "max_attempts = 3",
            "circuit_breaker" => "failure_threshold = 5",
            "bulkhead" => "max_concurrent = 10",
            "version" => "by = \"header\"",
            "cached" => "ttl = \"5m\"",
            _ => "service = \"other-service\"",
        }
    }
}

fn value(field: &Field, input: ParseStream<'_>) -> Result<TokenStream> {
    let key = field.key;
    match field.kind {
        Kind::Span => span_of_time(&literal(input, "a span of time such as \"5s\"")?, false),
        Kind::SpanOrZero => span_of_time(&literal(input, "a span of time such as \"5s\"")?, true),
        Kind::Whole(least, most) => whole(&literal(input, "a whole number")?, key, least, most),
        Kind::Number(least, most) => number(&literal(input, "a number")?, key, least, most),
        Kind::Switch => match literal(input, "true or false")? {
            Lit::Bool(switch) => Ok(quote!(#switch)),
            other => Err(Error::new(
                other.span(),
                format!("`{key}` is true or false"),
            )),
        },
        Kind::Text => match literal(input, "a text")? {
            Lit::Str(text) if !text.value().is_empty() => {
                Ok(quote!(::std::string::String::from(#text)))
            }
            other => Err(Error::new(
                other.span(),
                format!("`{key}` is the name of a service"),
            )),
        },
        Kind::Name => match literal(input, "a text")? {
            Lit::Str(text) if is_token(&text.value()) => {
                Ok(quote!(::std::string::String::from(#text)))
            }
            other => Err(Error::new(
                other.span(),
                format!(
                    "`{key}` is the name of a header or of a parameter, such as \"API-Version\""
                ),
            )),
        },
        Kind::Written => match literal(input, "a text")? {
            Lit::Str(text) if is_written(&text.value()) => {
                Ok(quote!(::std::string::String::from(#text)))
            }
            other => Err(Error::new(
                other.span(),
                format!("`{key}` is a text with {{version}} in it that can stand in a header"),
            )),
        },
        Kind::Pattern => pattern(&literal(input, "a text")?),
        Kind::Patterns => {
            let found = list(input)?;
            let found = found.iter().map(pattern);
            let found = found.collect::<Result<Vec<_>>>()?;
            Ok(quote!(::std::vec![#(#found),*]))
        }
        Kind::Varying => {
            let found = list(input)?;
            let found = found.iter().map(|one| match one {
                Lit::Str(text) if !text.value().is_empty() => {
                    Ok(quote!(::std::string::String::from(#text)))
                }
                other => Err(Error::new(
                    other.span(),
                    "name a parameter of the query, or a header: `\"header:accept-language\"`",
                )),
            });
            let found = found.collect::<Result<Vec<_>>>()?;
            Ok(quote!(::std::vec![#(#found),*]))
        }
        Kind::Versions => {
            let place = input.span();
            let list = list(input)?;
            versions(place, &list)
        }
        Kind::Statuses => {
            let list = list(input)?;
            let numbers = list.iter().map(|one| match one {
                Lit::Int(number) => match number.base10_parse::<u16>() {
                    Ok(status) if (100..=599).contains(&status) => Ok(quote!(#status)),
                    _ => Err(Error::new(number.span(), "an HTTP status is 100 to 599")),
                },
                other => Err(Error::new(other.span(), "an HTTP status is 100 to 599")),
            });
            let numbers = numbers.collect::<Result<Vec<_>>>()?;
            Ok(quote!(::std::vec![#(#numbers),*]))
        }
        Kind::Methods => {
            let list = list(input)?;
            let names = list.iter().map(|one| match one {
                Lit::Str(name) if is_method(name) => Ok(quote!(::std::string::String::from(#name))),
                other => Err(Error::new(
                    other.span(),
                    "this is no method of HTTP such as \"POST\"",
                )),
            });
            let names = names.collect::<Result<Vec<_>>>()?;
            Ok(quote!(::std::vec![#(#names),*]))
        }
        Kind::Word(words) => words.read(&literal(input, "a text")?),
        Kind::Words(words) => {
            let found = list(input)?;
            let found = found.iter().map(|one| words.read(one));
            let found = found.collect::<Result<Vec<_>>>()?;
            Ok(quote!(::std::vec![#(#found),*]))
        }
        Kind::Json => {
            let one: TokenTree = input.parse()?;
            match &one {
                TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {
                    Err(Error::new(
                        group.span(),
                        "write the value as JSON: `value = {\"id\": 0}`",
                    ))
                }
                TokenTree::Punct(sign) if sign.as_char() == '-' => {
                    let number: TokenTree = input.parse()?;
                    Ok(quote!(rt::json!(#sign #number)))
                }
                one => Ok(quote!(rt::json!(#one))),
            }
        }
        Kind::Function => {
            let path: Path = input.parse().map_err(|error| {
                Error::new(
                    error.span(),
                    "`with` names a function that is given the error: `with = offline`",
                )
            })?;
            Ok(quote!(#path))
        }
    }
}

/// A text with balanced `{name}`s.
fn pattern(literal: &Lit) -> Result<TokenStream> {
    if let Lit::Str(text) = literal
        && let Some(names) = names_in(&text.value())
        && names.iter().all(|name| !name.is_empty())
        && !text.value().is_empty()
    {
        return Ok(quote!(::std::string::String::from(#text)));
    }
    Err(Error::new(
        literal.span(),
        "give a text that may name parameters, such as \"product:{product_id}\"",
    ))
}

/// The names in braces; `None` where they are not closed.
fn names_in(text: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(['{', '}']) {
        let behind = rest.get(start..)?.strip_prefix('{')?;
        let (name, after) = behind.split_once('}')?;
        if name.contains('{') {
            return None;
        }
        names.push(name.to_owned());
        rest = after;
    }
    Some(names)
}

/// `"v2", "v1"` before what has a name.
fn leading_versions(input: ParseStream<'_>) -> Result<TokenStream> {
    let place = input.span();
    let mut found = Vec::new();
    while input.peek(LitStr) {
        found.push(input.parse::<Lit>()?);
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    versions(place, &found)
}

fn versions(place: Span, list: &[Lit]) -> Result<TokenStream> {
    let mut names: Vec<String> = Vec::new();
    for one in list {
        let text = match one {
            Lit::Str(text) => text.value(),
            _ => String::new(),
        };
        if !is_version(&text) {
            return Err(Error::new(
                one.span(),
                "a version is written such as \"v2\": letters, digits, `.`, `-` and `_`",
            ));
        }
        if names.contains(&text) {
            return Err(Error::new(one.span(), "each version stands once"));
        }
        names.push(text);
    }
    match (1..=8).contains(&names.len()) {
        true => Ok(quote!(
            ::std::vec![#(::std::string::String::from(#names)),*]
        )),
        false => Err(Error::new(
            place,
            "give 1 to 8 versions, the preferred one first",
        )),
    }
}

fn is_version(text: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !text.is_empty() && text.bytes().all(sound) && !matches!(text, "." | "..")
}

fn is_token(text: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(sound)
}

fn is_written(text: &str) -> bool {
    text.contains("{version}") && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn is_method(name: &LitStr) -> bool {
    let text = name.value();
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

fn literal(input: ParseStream<'_>, expected: &str) -> Result<Lit> {
    if input.peek(Token![-]) {
        return Err(input.error(format!(
            "a negative value is not allowed here: give {expected}"
        )));
    }
    input
        .parse()
        .map_err(|error: Error| Error::new(error.span(), format!("give {expected}")))
}

fn list(input: ParseStream<'_>) -> Result<Vec<Lit>> {
    if !input.peek(syn::token::Bracket) {
        return Err(input.error("give a list: `[…]`"));
    }
    let inner;
    syn::bracketed!(inner in input);
    let mut found = Vec::new();
    while !inner.is_empty() {
        found.push(literal(&inner, "a value")?);
        if !inner.is_empty() {
            inner.parse::<Token![,]>()?;
        }
    }
    Ok(found)
}

fn span_of_time(literal: &Lit, zero: bool) -> Result<TokenStream> {
    let nanos = match literal {
        Lit::Str(text) => duration::parse(&text.value()),
        Lit::Int(number) => number
            .base10_parse()
            .ok()
            .and_then(duration::seconds_to_nanos),
        Lit::Float(number) => number
            .base10_parse()
            .ok()
            .and_then(duration::seconds_to_nanos),
        _ => None,
    };
    let wrong = |what| Err(Error::new(literal.span(), what));
    match nanos {
        None => wrong(
            "this is no span of time; write \"30s\", \"250ms\", \"1m30s\" or a number of seconds",
        ),
        Some(0) if !zero => wrong("0s is not allowed; allowed is a span longer than zero"),
        Some(nanos) if nanos > duration::LONGEST => wrong("at most one year, 365d, is allowed"),
        Some(nanos) => Ok(quote!(::core::time::Duration::from_nanos(#nanos))),
    }
}

fn whole(literal: &Lit, key: &str, least: u64, most: u64) -> Result<TokenStream> {
    let allowed = match most {
        U32 => format!("{least} or more"),
        most => format!("{least} to {most}"),
    };
    if let Lit::Int(number) = literal
        && let Ok(value) = number.base10_parse::<u64>()
        && (least..=most).contains(&value)
        && let Ok(value) = u32::try_from(value)
    {
        return Ok(quote!(#value));
    }
    Err(Error::new(
        literal.span(),
        format!("`{key}` is a whole number, {allowed}"),
    ))
}

fn number(literal: &Lit, key: &str, least: f64, most: f64) -> Result<TokenStream> {
    let value = match literal {
        Lit::Int(number) => number.base10_parse::<f64>().ok(),
        Lit::Float(number) => number.base10_parse::<f64>().ok(),
        _ => None,
    };
    match value.filter(|value| (least..=most).contains(value)) {
        Some(value) => Ok(quote!(#value)),
        None => Err(Error::new(
            literal.span(),
            format!("`{key}` is a number, {least} to {most}"),
        )),
    }
}
