//! The one place that maps what Redis and its driver say to our errors.

use redis::{ErrorKind as Kind, RedisError};
use trunkline_core::{Error, ErrorKind, Retry};

/// The connection is gone, or the server has answered with an error.
pub(crate) fn mapped(error: RedisError) -> Error {
    let (kind, retry, text) = classify(&error);
    Error::new(kind, text).with_retry(retry).with_source(error)
}

/// Whether a group or stream is not there.
pub(crate) fn is_no_group(error: &RedisError) -> bool {
    says(error, "NOGROUP")
}

/// Whether the server does not know a script.
pub(crate) fn is_no_script(error: &RedisError) -> bool {
    says(error, "NOSCRIPT")
}

/// Whether another server has to be asked from now on: this one is no master any more.
pub(crate) fn is_elsewhere(error: &RedisError) -> bool {
    ["READONLY", "MASTERDOWN", "MOVED", "ASK", "CLUSTERDOWN"]
        .iter()
        .any(|word| says(error, word))
}

/// Errors that a script raises itself carry the code near the beginning of their text; further on there may be names of
/// users. What is more than one word is looked for everywhere.
fn says(error: &RedisError, word: &str) -> bool {
    let within = |detail: &str| {
        if word.contains(' ') {
            return detail.contains(word);
        }
        detail.split_whitespace().take(3).any(|part| part == word)
    };
    error.code() == Some(word) || error.detail().is_some_and(within)
}

fn classify(error: &RedisError) -> (ErrorKind, Retry, &'static str) {
    use ErrorKind::{
        Config, Conflict, Denied, Exhausted, Internal, Unauthenticated, Unavailable, Unsupported,
    };
    let answers: [(&[&str], ErrorKind, Retry, &'static str); 8] = [
        (
            &["WRONGPASS", "NOAUTH", "invalid username-password"],
            Unauthenticated,
            Retry::Never,
            "Redis refuses user name and password",
        ),
        (
            &["NOPERM"],
            Denied,
            Retry::Never,
            "the user may not do this in Redis",
        ),
        (
            &["OOM", "MISCONF"],
            Exhausted,
            Retry::Safe,
            "Redis has no room",
        ),
        (
            &[
                "LOADING",
                "BUSY",
                "MASTERDOWN",
                "READONLY",
                "CLUSTERDOWN",
                "TRYAGAIN",
                "NOREPLICAS",
            ],
            Unavailable,
            Retry::Safe,
            "Redis cannot serve now",
        ),
        (
            &["MOVED", "ASK", "CROSSSLOT"],
            Config,
            Retry::Safe,
            "this is a node of a Redis Cluster that does not have the keys; set `cluster: true`",
        ),
        (
            &["WRONGTYPE"],
            Conflict,
            Retry::Never,
            "a key of another kind is in the way in Redis",
        ),
        (
            &["max number of clients"],
            Exhausted,
            Retry::Safe,
            "Redis takes no more connections",
        ),
        (
            &["unknown command", "Unknown subcommand"],
            Unsupported,
            Retry::Never,
            "this server is too old, or no Redis; 7.0 or newer is needed",
        ),
    ];
    if error.kind() == Kind::AuthenticationFailed {
        let (_, kind, retry, text) = answers[0];
        return (kind, retry, text);
    }
    for (words, kind, retry, text) in answers {
        if words.iter().any(|word| says(error, word)) {
            return (kind, retry, text);
        }
    }
    match error.kind() {
        Kind::Io => (
            Unavailable,
            Retry::IfIdempotent,
            "the connection to Redis was lost",
        ),
        Kind::RESP3NotSupported => (
            Unsupported,
            Retry::Never,
            "this server is too old, or no Redis; 7.0 or newer is needed",
        ),
        Kind::InvalidClientConfig => (Config, Retry::Never, "the settings of Redis"),
        _ if error.is_unrecoverable_error() => (
            Unavailable,
            Retry::IfIdempotent,
            "the connection to Redis was lost",
        ),
        _ => (Internal, Retry::Never, "Redis answers with an error"),
    }
}

/// An answer that does not look as it should.
pub(crate) fn unexpected(what: &'static str) -> Error {
    Error::internal(format!("Redis answers unexpectedly: {what}"))
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn answered(line: &str) -> RedisError {
        let value = parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        let redis::Value::ServerError(error) = value else {
            panic!("{value:?}")
        };
        error.into()
    }

    #[test]
    fn every_answer_has_its_kind() {
        for (line, kind, retry) in [
            (
                "WRONGPASS invalid username-password pair",
                ErrorKind::Unauthenticated,
                Retry::Never,
            ),
            (
                "NOAUTH Authentication required.",
                ErrorKind::Unauthenticated,
                Retry::Never,
            ),
            (
                "NOPERM this user has no permissions",
                ErrorKind::Denied,
                Retry::Never,
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                ErrorKind::Exhausted,
                Retry::Safe,
            ),
            (
                "ERR user_script:1: OOM command not allowed",
                ErrorKind::Exhausted,
                Retry::Safe,
            ),
            (
                "MISCONF Redis is configured to save",
                ErrorKind::Exhausted,
                Retry::Safe,
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                ErrorKind::Unavailable,
                Retry::Safe,
            ),
            (
                "READONLY You can't write against a read only replica.",
                ErrorKind::Unavailable,
                Retry::Safe,
            ),
            ("MOVED 3999 127.0.0.1:6381", ErrorKind::Config, Retry::Safe),
            (
                "WRONGTYPE Operation against a key",
                ErrorKind::Conflict,
                Retry::Never,
            ),
            (
                "ERR unknown command 'XAUTOCLAIM'",
                ErrorKind::Unsupported,
                Retry::Never,
            ),
            ("ERR something else", ErrorKind::Internal, Retry::Never),
        ] {
            let error = mapped(answered(line));
            assert_eq!((error.kind(), error.retry()), (kind, retry), "{line}");
        }
        assert!(is_no_group(&answered(
            "NOGROUP No such key 'x' or consumer group 'g'"
        )));
        assert!(is_no_script(&answered("NOSCRIPT No matching script.")));
        assert!(is_elsewhere(&answered("READONLY no")));
        let lost: RedisError = std::io::Error::from(std::io::ErrorKind::BrokenPipe).into();
        let lost = mapped(lost);
        assert_eq!(
            (lost.kind(), lost.retry()),
            (ErrorKind::Unavailable, Retry::IfIdempotent)
        );
    }
}
