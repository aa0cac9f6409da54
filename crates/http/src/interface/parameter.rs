//! Values that stand in paths, queries and headers.

use std::fmt::{self, Write};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::form_urlencoded::byte_serialize;

/// What is not sent as it is in a segment of a path.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

const RESERVED_IN_PATHS: &AsciiSet = &RESERVED.remove(b'/');

/// A value that can stand in a path, in a query or in a header: whatever is written and read as text, by `Display` and,
/// on the server's side, `FromStr`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a parameter of a path, a query or a header",
    label = "this is no plain value",
    note = "a parameter is written as text: implement `Display`, or take an `Option`, a `Vec` or a slice of such values in a query",
    note = "the body of a request is marked `#[body]`, a structure of query parameters `#[query(flatten)]`"
)]
pub trait Parameter: fmt::Display {}

impl<T: fmt::Display + ?Sized> Parameter for T {}

/// Writes a value as one segment of a path; with `whole`, slashes stay.
///
/// # Errors
/// What is wrong with the value.
pub(super) fn segment(
    path: &mut String,
    value: &dyn fmt::Display,
    whole: bool,
) -> Result<(), &'static str> {
    let start = path.len();
    // Writing to a string fails only if the value refuses.
    write!(path, "{value}").map_err(|_| "cannot be written as text")?;
    let written = path.get(start..).unwrap_or_default();
    if written.is_empty() {
        return Err("is empty, which would lead to another path");
    }
    let mut parts = written.split('/');
    if written == "." || written == ".." || (whole && parts.any(|part| part == "." || part == ".."))
    {
        return Err("is `.` or `..`, which would lead to another path");
    }
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'.' | b'~')
            || (whole && byte == b'/')
    };
    if !written.bytes().all(plain) {
        let set = if whole { RESERVED_IN_PATHS } else { RESERVED };
        let encoded = utf8_percent_encode(written, set).to_string();
        path.truncate(start);
        path.push_str(&encoded);
    }
    Ok(())
}

/// Adds a parameter to the query.
pub(super) fn query(path: &mut String, asked: &mut bool, name: &str, value: &dyn fmt::Display) {
    path.push(if *asked { '&' } else { '?' });
    *asked = true;
    path.extend(byte_serialize(name.as_bytes()));
    path.push('=');
    let mut writer = Encoding(path);
    // The writer takes everything; where `to_string` would panic, a value is left empty.
    write!(writer, "{value}").unwrap_or_default();
}

struct Encoding<'a>(&'a mut String);

impl Write for Encoding<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend(byte_serialize(text.as_bytes()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_stays_one() {
        for (value, written) in [
            ("7", "7"),
            ("a b/c?d#e%", "a%20b%2Fc%3Fd%23e%25"),
            ("ünï-_.~", "%C3%BCn%C3%AF-_.~"),
            ("...", "..."),
        ] {
            let mut path = "/users/".to_owned();
            segment(&mut path, &value, false).unwrap();
            assert_eq!(path, format!("/users/{written}"));
        }
        let mut path = "/files/".to_owned();
        segment(&mut path, &"a b/c", true).unwrap();
        assert_eq!(path, "/files/a%20b/c");
    }

    #[test]
    fn what_would_lead_elsewhere_is_refused() {
        for (value, whole) in [
            ("", false),
            (".", false),
            ("..", false),
            ("a/../b", true),
            ("..", true),
        ] {
            assert!(
                segment(&mut "/users/".to_owned(), &value, whole).is_err(),
                "{value}"
            );
        }
    }

    #[test]
    fn a_query_is_encoded() {
        let (mut path, mut asked) = ("/users".to_owned(), false);
        query(&mut path, &mut asked, "name", &"Ada & Co");
        query(&mut path, &mut asked, "active", &true);
        assert_eq!(path, "/users?name=Ada+%26+Co&active=true");
    }
}
