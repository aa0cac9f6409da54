//! Why cases do not hold or do not apply.

/// One reason, and the cases that it is the reason of.
#[derive(Debug)]
pub(super) struct Known {
    /// A case's name, or with a `*` what the names of several begin and end with.
    pub(super) cases: &'static str,
    why: &'static str,
}

impl Known {
    pub(super) fn speaks_of(&self, case: &str) -> bool {
        match self.cases.split_once('*') {
            Some((beginning, end)) => case.starts_with(beginning) && case.ends_with(end),
            None => case == self.cases,
        }
    }

    pub(super) fn why(&self) -> &'static str {
        self.why
    }
}

pub(super) fn reason(case: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.speaks_of(case))
}

pub(super) fn exempt(case: &str) -> Option<&'static Known> {
    EXEMPT.iter().find(|known| known.speaks_of(case))
}

macro_rules! reasons {
    ($($why:literal: $($cases:literal),+;)*) => {
        &[$($(Known { cases: $cases, why: $why },)+)*]
    };
}

/// Cases for caches of another kind.
static EXEMPT: &[Known] = reasons![
    "asked of caches between users; this one belongs to one client":
        "freshness-s-maxage-shared",
        "freshness-max-age-s-maxage-shared-*",
        "cc-resp-private-shared",
        "stale-close-proxy-revalidate",
        "stale-close-s-maxage=2",
        "other-authorization-must-revalidate",
        "other-authorization-smaxage";
    "what a browser sends when its user reloads a page":
        "cc-resp-immutable-stale";
];

/// Cases that do not hold.
pub(super) static KNOWN: &[Known] = reasons![
    "nothing is guessed: only what says itself how long it holds is kept":
        "heuristic-*-cached";
    "errors and statuses that the rules do not know are kept only where a `ttl` and `cache_on_error` ask for it":
        "status-299-fresh",
        "status-400-fresh",
        "status-499-fresh",
        "status-500-fresh",
        "status-502-fresh",
        "status-503-fresh",
        "status-504-fresh",
        "status-599-fresh";
    "a list of ages cannot be relied on and is taken for old, as the suite's other cases with lists have it":
        "age-parse-prefix";
    "without `Last-Modified` an answer is as new as its `Date`, which here is later than what the request knows (RFC 9111, 4.3.2)":
        "conditional-lm-fresh-no-lm";
    "only GET is kept, and answers HEAD":
        "method-POST";
    "ranges pass by: an answer is kept whole or not at all":
        "partial-*";
    "`Set-Cookie` is for the one who asked first and is never kept":
        "headers-store-Set-Cookie",
        "304-etag-update-response-Set-Cookie";
    "a 304 with another tag speaks of another answer, which is then asked for whole":
        "304-etag-update-response-ETag";
    "the values of headers named in `Vary` are compared as they are":
        "vary-normalise-*";
    "the call fails and nothing is answered from the cache; the suite looks for a header of the server, which was not reached":
        "stale-close-must-revalidate",
        "stale-close-no-cache";
    "who asks is part of the key: another cookie is another identity":
        "other-cookie";
];
