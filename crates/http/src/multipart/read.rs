//! Reads forms that have come.

use bytes::Bytes;
use trunkline_core::{Error, Result};

use super::{Multipart, Part};
use crate::body::Body;

/// More parts than any form has.
const MOST_PARTS: usize = 1000;

/// Bytes of the head of one part.
const LONGEST_HEAD: usize = 16 * 1024;

impl Multipart {
    /// Reads a form that has come whole, by the content type it came with.
    ///
    /// ```
    /// use trunkline_http::Multipart;
    ///
    /// let body = "--x\r\ncontent-disposition: form-data; name=\"title\"\r\n\r\nReport\r\n--x--\r\n";
    /// let form = Multipart::read("multipart/form-data; boundary=x", body.into())?;
    /// assert_eq!(form.part_named("title").and_then(|part| part.as_text()), Some("Report"));
    /// # Ok::<(), trunkline_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid` when it is no `multipart/form-data`, or is cut off, or a part has no name.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the parts hold what they need of it"
    )]
    pub fn read(content_type: &str, body: Bytes) -> Result<Self> {
        let boundary = boundary(content_type)?;
        let delimiter = format!("\r\n--{boundary}");
        let Some(first) = delimiter.get(2..) else {
            return Err(wrong("has no boundary"));
        };
        // The first delimiter may stand at the very beginning.
        let mut at = if body.starts_with(first.as_bytes()) {
            first.len()
        } else {
            find(&body, 0, delimiter.as_bytes()).ok_or_else(|| wrong("has no part"))?
                + delimiter.len()
        };
        let mut parts = Vec::new();
        loop {
            let rest = body.get(at..).unwrap_or_default();
            if rest.starts_with(b"--") {
                // Sent on, it has a boundary of its own.
                return Ok(Self {
                    parts,
                    ..Self::new()
                });
            }
            if parts.len() == MOST_PARTS {
                return Err(wrong(&format!("has more than {MOST_PARTS} parts")));
            }
            let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
            // The line break that ends the delimiter's line belongs to the head, so that a head may be empty.
            let start = at + padding.count();
            let end = find(&body, start, b"\r\n\r\n").filter(|end| end - start <= LONGEST_HEAD);
            let end = end.ok_or_else(|| wrong("has a part whose head has no end"))?;
            let content = end + 4;
            // An empty part's delimiter begins with the line break that ends the head.
            let next = find(&body, content - 2, delimiter.as_bytes());
            let next = next.ok_or_else(|| wrong("is cut off"))?;
            let head = body.get(start..end).unwrap_or_default();
            parts.push(part(head, body.slice(content.min(next)..next))?);
            at = next + delimiter.len();
        }
    }
}

fn find(body: &[u8], from: usize, wanted: &[u8]) -> Option<usize> {
    let found = memchr::memmem::find(body.get(from..)?, wanted)?;
    Some(from + found)
}

fn wrong(what: &str) -> Error {
    Error::invalid(format!("the form {what}"))
}

fn boundary(content_type: &str) -> Result<String> {
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Err(Error::invalid(
            "a form with files comes as `multipart/form-data`",
        ));
    }
    let boundary = parameter(parameters, "boundary").unwrap_or_default();
    match (1..=70).contains(&boundary.len()) {
        true => Ok(boundary),
        false => Err(wrong("has no boundary")),
    }
}

fn part(head: &[u8], content: Bytes) -> Result<Part> {
    let head = std::str::from_utf8(head).map_err(|_| wrong("has a head that is no text"))?;
    let (mut name, mut file_name, mut content_type) = (None, None, None);
    for line in head.split("\r\n") {
        let Some((header, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        if header.trim().eq_ignore_ascii_case("content-disposition") {
            let (kind, parameters) = value.split_once(';').unwrap_or((value, ""));
            if kind.trim().eq_ignore_ascii_case("form-data") {
                name = parameter(parameters, "name").as_deref().map(unescaped);
                file_name = parameter(parameters, "filename").as_deref().map(unescaped);
            }
        } else if header.trim().eq_ignore_ascii_case("content-type") {
            content_type = Some(value.to_owned());
        }
    }
    Ok(Part {
        name: name.ok_or_else(|| wrong("has a part without a name"))?,
        file_name,
        content_type,
        body: Body::from(content),
    })
}

/// A parameter of a header, as a token or in quotes.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([';', ' ', '\t']);
        let (key, behind) = rest.split_once('=')?;
        let (value, after) = match behind.strip_prefix('"') {
            Some(quoted) => quoted_text(quoted)?,
            None => {
                let (value, after) = behind.split_once(';').unwrap_or((behind, ""));
                (value.trim().to_owned(), after)
            }
        };
        if key.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after;
    }
}

/// What stands before the closing quote, and what stands behind it. A backslash keeps the meaning of a quote only:
/// browsers send those of file names as they are.
fn quoted_text(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' if letters.next_if(|(_, next)| *next == '"').is_some() => value.push('"'),
            other => value.push(other),
        }
    }
    None
}

/// As browsers write names.
fn unescaped(text: &str) -> String {
    let text = text.replace("%0D", "\r").replace("%0A", "\n");
    text.replace("%22", "\"").replace("%5C", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(boundary: &str, body: &str) -> Result<Multipart> {
        let content_type = format!("multipart/form-data; charset=utf-8; boundary={boundary}");
        Multipart::read(&content_type, Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn a_form_that_was_written_is_read() {
        let name = "a \"b\"\r\n; c";
        let form = Multipart::new()
            .text(name, "one\r\n--two")
            .bytes("file", "r\u{e9}port.csv", "text/csv", "1;2\r\n")
            .text("empty", "");
        let content_type = form.content_type();
        let written = Bytes::copy_from_slice(form.into_body().unwrap().here());
        let form = Multipart::read(&content_type, written.clone()).unwrap();
        let parts: Vec<_> = form.parts().iter().collect();
        assert_eq!(parts.len(), 3);
        assert_eq!(
            (parts[0].name(), parts[0].as_text(), parts[0].file_name()),
            (name, Some("one\r\n--two"), None)
        );
        assert_eq!(
            (
                parts[1].file_name(),
                parts[1].content_type(),
                parts[1].as_text()
            ),
            (Some("r\u{e9}port.csv"), Some("text/csv"), Some("1;2\r\n"))
        );
        assert_eq!(form.part_named("empty").unwrap().as_text(), Some(""));
        assert!(form.part_named("none").is_none());
        // What was read can be sent on.
        let (content_type_again, again) = (form.content_type(), form.into_body().unwrap());
        let again = Multipart::read(&content_type_again, Bytes::copy_from_slice(again.here()));
        assert_eq!(
            again.unwrap().part_named("file").unwrap().as_text(),
            Some("1;2\r\n")
        );
        // Cut off anywhere but in the last line break it is refused.
        for end in 0..written.len() - 4 {
            assert!(
                Multipart::read(&content_type, written.slice(..end)).is_err(),
                "{end}"
            );
        }
    }

    #[test]
    fn what_others_write_is_read() {
        let body = "preamble\r\n--b  \r\nContent-Type: text/plain\r\nContent-Disposition: form-data; filename=a.txt; \
                    name=x\r\n\r\n1\r\n--b\r\ncontent-disposition: form-data; name=\"q\\\"\"\r\n\r\n\r\n--b--epilogue";
        let form = read("\"b\"", body).unwrap();
        let first = form.part_named("x").unwrap();
        assert_eq!(
            (first.as_text(), first.file_name()),
            (Some("1"), Some("a.txt"))
        );
        assert_eq!(form.part_named("q\"").unwrap().as_text(), Some(""));
        assert_eq!(read("b", "--b--").unwrap().parts().len(), 0);
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for (boundary, body) in [
            ("", "----"),
            ("b", ""),
            ("b", "--b\r\n\r\nno name\r\n--b--"),
            (
                "b",
                "--b\r\ncontent-disposition: form-data; name=\"x\r\n\r\n1\r\n--b--",
            ),
            (
                "b",
                "--b\r\ncontent-disposition: attachment; name=x\r\n\r\n1\r\n--b--",
            ),
        ] {
            assert!(read(boundary, body).is_err(), "{body:?}");
        }
        assert!(Multipart::read("text/plain", Bytes::new()).is_err());
        let many =
            "--b\r\ncontent-disposition: form-data; name=x\r\n\r\n\r\n".repeat(MOST_PARTS + 1);
        let error = read("b", &format!("{many}--b--")).unwrap_err();
        assert!(error.to_string().contains("more than 1000"), "{error}");
    }
}
