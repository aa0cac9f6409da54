//! What a policy may not say, all of it at once.

use std::fmt;
use std::time::Duration;

use trunkline_core::Error;

use super::PolicyConfig;
use crate::cache::Pattern;

/// One value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, seen from the policy: `retry.max_attempts`.
    pub path: &'static str,
    /// What is there, as text.
    pub value: String,
    /// What would be right.
    pub allowed: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} is not allowed; allowed is {}",
            self.path, self.value, self.allowed
        )
    }
}

/// A policy holds values that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPolicy {
    /// Every one of them; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the policy cannot be used")?;
        for (index, problem) in self.problems.iter().enumerate() {
            f.write_str(if index == 0 { ": " } else { "; " })?;
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidPolicy {}

impl From<InvalidPolicy> for Error {
    fn from(invalid: InvalidPolicy) -> Self {
        Self::config(invalid.to_string()).with_source(invalid)
    }
}

/// A year: longer spans are mistakes, and points in time that far ahead cannot always be represented.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

impl PolicyConfig {
    /// Every value out of its range, each with its path. Empty when the policy can be used.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Found(Vec::new());
        self.check_timeouts(&mut found);
        self.check_retry(&mut found);
        self.check_breaker(&mut found);
        self.check_bulkhead(&mut found);
        self.check_rate_limit(&mut found);
        self.check_concurrency(&mut found);
        self.check_chaos(&mut found);
        self.check_hedge(&mut found);
        self.check_versions(&mut found);
        self.check_cache(&mut found);
        self.check_health_check(&mut found);
        found.0
    }

    fn check_timeouts(&self, found: &mut Found) {
        found.span("timeout.connection", self.timeout.connection);
        found.span("timeout.read", self.timeout.read);
        found.span("timeout.first_byte", self.timeout.first_byte);
        found.span("timeout.total", self.timeout.total);
        found.span_or_zero("timeout.pool", self.timeout.pool);
        found.span_or_zero("timeout.floor", self.timeout.floor);
        found.span_or_zero("timeout.fair", self.timeout.fair);
        found.span("request_timeout", self.request_timeout);
    }

    fn check_retry(&self, found: &mut Found) {
        let retry = &self.retry;
        found.whole("retry.max_attempts", retry.max_attempts, 1, 100, "1 to 100");
        found.span_or_zero("retry.delay", retry.delay);
        found.span_or_zero("retry.max_delay", retry.max_delay);
        found.number("retry.backoff", retry.backoff, 1.0, 100.0, "1 to 100");
        found.span("retry.max_elapsed", retry.max_elapsed);
        found.number(
            "retry.budget.percent",
            retry.budget.percent,
            0.0,
            1000.0,
            "0 to 1000",
        );
        found.whole(
            "retry.budget.min_per_second",
            retry.budget.min_per_second,
            0,
            100_000,
            "0 to 100000",
        );
        for status in retry.on_status.iter().flatten() {
            if !(100..=599).contains(status) {
                found.add("retry.on_status", status, "an HTTP status, 100 to 599");
            }
        }
        found.methods("retry.methods", retry.methods.as_deref());
    }

    fn check_hedge(&self, found: &mut Found) {
        let hedge = &self.hedge;
        found.span("hedge.delay", hedge.delay);
        found.number(
            "hedge.percentile",
            hedge.percentile,
            50.0,
            99.9,
            "50 to 99.9",
        );
        found.span_or_zero("hedge.min_delay", hedge.min_delay);
        found.whole(
            "hedge.minimum_calls",
            hedge.minimum_calls,
            1,
            1_000_000,
            "1 to 1000000",
        );
        found.whole("hedge.max_hedges", hedge.max_hedges, 1, 5, "1 to 5");
        found.methods("hedge.methods", hedge.methods.as_deref());
    }

    fn check_health_check(&self, found: &mut Found) {
        let check = &self.health_check;
        found.span("health_check.interval", check.interval);
        found.span("health_check.timeout", check.timeout);
        found.whole(
            "health_check.failure_threshold",
            check.failure_threshold,
            1,
            u32::MAX,
            "1 or more",
        );
    }

    fn check_versions(&self, found: &mut Found) {
        let versions = &self.versions;
        if let Some(order) = &versions.order {
            if order.is_empty() || order.len() > 8 {
                let shown = format!("[{}]", order.join(", "));
                found.add("versions.order", shown, "1 to 8 versions");
            }
            for (place, version) in order.iter().enumerate() {
                if !is_version(version) {
                    let allowed = "a version such as v2: letters, digits, `.`, `-` and `_`";
                    found.add("versions.order", version, allowed);
                } else if order.iter().take(place).any(|known| known == version) {
                    found.add("versions.order", version, "each version once");
                }
            }
        }
        let named = versions.name.as_ref();
        if let Some(name) = named.filter(|name| name.is_empty() || !name.bytes().all(is_token)) {
            let allowed = "the name of a header or of a parameter";
            found.add("versions.name", format!("{name:?}"), allowed);
        }
        let written = versions.value.as_ref();
        if let Some(value) = written.filter(|value| !names_version(value)) {
            let allowed = "a text with {version} in it that can stand in a header";
            found.add("versions.value", format!("{value:?}"), allowed);
        }
        for status in versions.on_status.iter().flatten() {
            if !(400..=599).contains(status) {
                let allowed = "an HTTP status of an error, 400 to 599";
                found.add("versions.on_status", status, allowed);
            }
        }
    }

    fn check_breaker(&self, found: &mut Found) {
        let breaker = &self.circuit_breaker;
        for (path, threshold) in [
            (
                "circuit_breaker.failure_threshold",
                breaker.failure_threshold,
            ),
            (
                "circuit_breaker.success_threshold",
                breaker.success_threshold,
            ),
            (
                "circuit_breaker.half_open_max_calls",
                breaker.half_open_max_calls,
            ),
            (
                "circuit_breaker.window.minimum_calls",
                breaker.window.minimum_calls,
            ),
        ] {
            found.whole(path, threshold, 1, u32::MAX, "1 or more");
        }
        found.span("circuit_breaker.recovery_timeout", breaker.recovery_timeout);
        found.span("circuit_breaker.probe_timeout", breaker.probe_timeout);
        found.whole(
            "circuit_breaker.window.size",
            breaker.window.size,
            1,
            100_000,
            "1 to 100000",
        );
        found.span("circuit_breaker.window.duration", breaker.window.duration);
        found.number(
            "circuit_breaker.window.failure_percent",
            breaker.window.failure_percent,
            1.0,
            100.0,
            "1 to 100",
        );
        found.span(
            "circuit_breaker.slow_call.duration",
            breaker.slow_call.duration,
        );
        found.number(
            "circuit_breaker.slow_call.percent",
            breaker.slow_call.percent,
            1.0,
            100.0,
            "1 to 100",
        );
    }

    fn check_bulkhead(&self, found: &mut Found) {
        let bulkhead = &self.bulkhead;
        found.whole(
            "bulkhead.max_concurrent",
            bulkhead.max_concurrent,
            1,
            1_000_000,
            "1 to 1000000",
        );
        found.whole(
            "bulkhead.max_queue",
            bulkhead.max_queue,
            0,
            1_000_000,
            "0 to 1000000",
        );
        found.span_or_zero("bulkhead.max_wait", bulkhead.max_wait);
        found.span_or_zero("fallback.reserve", self.fallback.reserve);
        if self.fallback.service.as_ref().is_some_and(String::is_empty) {
            found.add("fallback.service", "\"\"", "the name of a service");
        }
    }

    fn check_rate_limit(&self, found: &mut Found) {
        let limit = &self.rate_limit;
        let most = (1, 1_000_000, "1 to 1000000");
        found.whole("rate_limit.limit", limit.limit, most.0, most.1, most.2);
        found.whole("rate_limit.burst", limit.burst, most.0, most.1, most.2);
        found.span("rate_limit.per", limit.per);
        found.span_or_zero("rate_limit.max_wait", limit.max_wait);
    }

    fn check_concurrency(&self, found: &mut Found) {
        let limit = &self.concurrency;
        for (path, value) in [
            ("concurrency.initial", limit.initial),
            ("concurrency.min", limit.min),
            ("concurrency.max", limit.max),
        ] {
            found.whole(path, value, 1, 1_000_000, "1 to 1000000");
        }
        if let (Some(min), Some(max)) = (limit.min, limit.max)
            && min > max
        {
            found.add("concurrency.min", min, "at most concurrency.max");
        }
        found.number(
            "concurrency.tolerance",
            limit.tolerance,
            1.0,
            10.0,
            "1 to 10",
        );
        found.span("concurrency.baseline", limit.baseline);
        found.span("concurrency.recheck", limit.recheck);
        found.span("concurrency.max_latency", limit.max_latency);
        for (path, share) in [
            ("concurrency.low_percent", limit.low_percent),
            ("concurrency.normal_percent", limit.normal_percent),
            ("concurrency.high_percent", limit.high_percent),
        ] {
            found.whole(path, share, 1, 100, "1 to 100");
        }
    }

    fn check_chaos(&self, found: &mut Found) {
        let chaos = &self.chaos;
        for (path, percent) in [
            ("chaos.latency.percent", chaos.latency.percent),
            ("chaos.error.percent", chaos.error.percent),
            ("chaos.abort.percent", chaos.abort.percent),
        ] {
            found.number(path, percent, 0.0, 100.0, "0 to 100");
        }
        found.span_or_zero("chaos.latency.delay", chaos.latency.delay);
        for endpoint in chaos.only.endpoints.iter().flatten() {
            if endpoint.is_empty() {
                let allowed = "an endpoint such as GET /users/{id}, or GET /users/*";
                found.add("chaos.only.endpoints", "\"\"", allowed);
            }
        }
        for attempt in chaos.only.attempts.iter().flatten() {
            if *attempt == 0 {
                found.add(
                    "chaos.only.attempts",
                    attempt,
                    "1 or more, the first being 1",
                );
            }
        }
    }

    fn check_cache(&self, found: &mut Found) {
        let cache = &self.cache;
        found.span("cache.ttl", cache.ttl);
        found.span("cache.error_ttl", cache.error_ttl);
        found.span_or_zero("cache.stale_while_revalidate", cache.stale_while_revalidate);
        found.span_or_zero("cache.stale_if_error", cache.stale_if_error);
        let pattern = "text with the names of parameters in braces, product:{product_id}";
        if let Some(key) = cache.key.as_ref().filter(|key| !Pattern::fits(key)) {
            found.add("cache.key", key, pattern);
        }
        for tag in cache.tags.iter().flatten() {
            if !Pattern::fits(tag) {
                found.add("cache.tags", tag, pattern);
            }
        }
        for name in cache.vary_on.iter().flatten() {
            if name.strip_prefix("header:").unwrap_or(name).is_empty() {
                let allowed = "the name of a parameter, or header:<name>";
                found.add("cache.vary_on", format_args!("`{name}`"), allowed);
            }
        }
    }
}

/// What can stand in a path, a header and a query alike.
fn is_version(text: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(sound) && !text.bytes().all(|b| b == b'.')
}

/// What a name in a header may consist of.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn names_version(text: &str) -> bool {
    text.contains("{version}") && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, path: &'static str, value: impl fmt::Display, allowed: &'static str) {
        self.0.push(Problem {
            path,
            value: value.to_string(),
            allowed,
        });
    }

    fn methods(&mut self, path: &'static str, methods: Option<&[String]>) {
        for method in methods.unwrap_or_default() {
            if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphabetic()) {
                self.add(path, method, "an HTTP method such as GET");
            }
        }
    }

    fn span(&mut self, path: &'static str, span: Option<Duration>) {
        if span.is_some_and(|span| span.is_zero()) {
            self.add(path, "0s", "a span longer than zero");
        }
        self.span_or_zero(path, span);
    }

    fn span_or_zero(&mut self, path: &'static str, span: Option<Duration>) {
        if let Some(span) = span.filter(|span| *span > LONGEST) {
            let text = trunkline_core::duration::format(span);
            self.add(path, text, "at most one year, 365d");
        }
    }

    fn whole(
        &mut self,
        path: &'static str,
        value: Option<u32>,
        least: u32,
        most: u32,
        allowed: &'static str,
    ) {
        if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
            self.add(path, value, allowed);
        }
    }

    fn number(
        &mut self,
        path: &'static str,
        value: Option<f64>,
        least: f64,
        most: f64,
        allowed: &'static str,
    ) {
        // Written so that NaN, which is in no range, is found too.
        if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
            self.add(path, value, allowed);
        }
    }
}
