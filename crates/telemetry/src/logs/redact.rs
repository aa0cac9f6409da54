//! Keeps what looks like a secret out of the lines.

use std::borrow::Cow;

pub(super) const MASK: &str = "***";

/// A field whose name contains one of these, without regard to case, is masked.
const SECRET_NAMES: [&str; 8] = [
    "password",
    "passwd",
    "secret",
    "authorization",
    "api_key",
    "apikey",
    "access_token",
    "cookie",
];

pub(super) fn is_secret(name: &str) -> bool {
    let holds = |part: &str| {
        let mut windows = name.as_bytes().windows(part.len());
        windows.any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
    };
    name.eq_ignore_ascii_case("token") || SECRET_NAMES.into_iter().any(holds)
}

/// Masks the user and password of every URL within a text.
pub(super) fn mask_urls(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut rest = text;
    let mut changed = false;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let is_end = |c: char| matches!(c, '/' | '?' | '#' | '"' | '\'' | ',') || c.is_whitespace();
        let end = after.find(is_end).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => {
                changed = true;
                out.push_str(MASK);
                out.push('@');
                out.push_str(host);
            }
            _ => out.push_str(authority),
        }
        rest = tail;
    }
    if !changed {
        return Cow::Borrowed(text);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_passwords() {
        for (text, masked) in [
            (
                "amqp://guest:guest@localhost:5672/",
                "amqp://***@localhost:5672/",
            ),
            (
                "from http://a:b@x/1 to https://c:d@e@y, done",
                "from http://***@x/1 to https://***@y, done",
            ),
            ("http://x/a@b:c", "http://x/a@b:c"),
            ("mailto://someone@x", "mailto://someone@x"),
            ("no url, user:pass@host", "no url, user:pass@host"),
        ] {
            assert_eq!(mask_urls(text), masked);
        }
    }

    #[test]
    fn names_of_secrets_are_known() {
        for name in [
            "password",
            "db_Password",
            "Authorization",
            "token",
            "x-api_key",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["tokens_used", "key", "topic", "pass"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
