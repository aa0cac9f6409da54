//! Which fields each attribute has, and what they take.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Error, Lit, Result};

use super::super::hint;

/// What a field takes.
#[derive(Clone, Copy)]
pub(super) enum Kind {
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
    /// A text that may name parameters, `product:{product_id}`, or a function that is given the arguments.
    Key,
    /// Several such texts.
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
pub(super) struct Words {
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
    #[cfg(test)]
    pub(super) fn known(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.variants.iter().map(|(word, _)| *word)
    }

    pub(super) fn read(&self, literal: &Lit) -> Result<TokenStream> {
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

pub(super) struct Field {
    pub(super) key: &'static str,
    /// Where it goes, behind `policy.`.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
}

const fn field(key: &'static str, path: &'static str, kind: Kind) -> Field {
    Field { key, path, kind }
}

pub(super) const TIMEOUT: &[Field] = &[
    field("total", "timeout.total", Kind::Span),
    field("request", "request_timeout", Kind::Span),
    field("connection", "timeout.connection", Kind::Span),
    field("read", "timeout.read", Kind::Span),
    field("first_byte", "timeout.first_byte", Kind::Span),
    field("pool", "timeout.pool", Kind::SpanOrZero),
    field("floor", "timeout.floor", Kind::SpanOrZero),
    field("fair", "timeout.fair", Kind::SpanOrZero),
];

pub(super) const RETRY: &[Field] = &[
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

pub(super) const CIRCUIT_BREAKER: &[Field] = &[
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

pub(super) const BULKHEAD: &[Field] = &[
    field("enabled", "bulkhead.enabled", Kind::Switch),
    field(
        "max_concurrent",
        "bulkhead.max_concurrent",
        Kind::Whole(1, 1_000_000),
    ),
    field("max_queue", "bulkhead.max_queue", Kind::Whole(0, 1_000_000)),
    field("max_wait", "bulkhead.max_wait", Kind::SpanOrZero),
];

pub(super) const RATE_LIMIT: &[Field] = &[
    field("enabled", "rate_limit.enabled", Kind::Switch),
    field("limit", "rate_limit.limit", Kind::Whole(1, 1_000_000)),
    field("per", "rate_limit.per", Kind::Span),
    field("burst", "rate_limit.burst", Kind::Whole(1, 1_000_000)),
    field("max_wait", "rate_limit.max_wait", Kind::SpanOrZero),
];

pub(super) const HEDGE: &[Field] = &[
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

pub(super) const FALLBACK: &[Field] = &[
    field("enabled", "fallback.enabled", Kind::Switch),
    field("cache", "fallback.cache", Kind::Switch),
    field("service", "fallback.service", Kind::Text),
    field("forward_headers", "fallback.forward_headers", Kind::Switch),
    field("value", "fallback.value", Kind::Json),
    field("reserve", "fallback.reserve", Kind::SpanOrZero),
    field("with", "", Kind::Function),
];

pub(super) const CACHED: &[Field] = &[
    field("enabled", "cache.enabled", Kind::Switch),
    field("mode", "cache.mode", Kind::Word(&CACHE_MODES)),
    field("ttl", "cache.ttl", Kind::Span),
    field("cache_on_error", "cache.cache_on_error", Kind::Switch),
    field("error_ttl", "cache.error_ttl", Kind::Span),
    field("key", "cache.key", Kind::Key),
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

pub(super) const HEALTH_CHECK: &[Field] = &[
    field("enabled", "health_check.enabled", Kind::Switch),
    field("interval", "health_check.interval", Kind::Span),
    field("timeout", "health_check.timeout", Kind::Span),
    field(
        "failure_threshold",
        "health_check.failure_threshold",
        Kind::Whole(1, U32),
    ),
];

pub(super) const VERSION: &[Field] = &[
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

pub(super) const U32: u64 = u32::MAX as u64;
