//! Forms with files (`multipart/form-data`, RFC 7578).

mod read;

use std::fmt;
use std::io::SeekFrom;
use std::path::Path;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use http_body::{Body as _, Frame};
use http_body_util::StreamBody;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use trunkline_core::{Error, ErrorKind, Result};

use crate::body::{Body, WithLength};

/// Bytes of a file that are read at once.
const PIECE: usize = 64 * 1024;

/// A form with texts and files. Send it with [`RequestBuilder::multipart`](crate::RequestBuilder::multipart).
///
/// A form of texts and bytes can be sent again, so it is repeated like any other body; one with a file or a stream passes
/// once, of which the first 64 KiB are kept for a repetition.
///
/// ```
/// use trunkline_http::Multipart;
///
/// let form = Multipart::new()
///     .text("title", "Report")
///     .bytes("report", "report.csv", "text/csv", "a;b\n1;2\n");
/// assert!(form.content_type().starts_with("multipart/form-data; boundary="));
/// ```
pub struct Multipart {
    boundary: String,
    parts: Vec<Part>,
    wrong: Option<Error>,
}

/// One part of a form.
#[derive(Debug)]
pub struct Part {
    name: String,
    file_name: Option<String>,
    content_type: Option<String>,
    body: Body,
}

impl Part {
    /// The name of the field.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the file, if it is one. It is what the other side said: never use it as a path.
    #[must_use]
    pub fn file_name(&self) -> Option<&str> {
        self.file_name.as_deref()
    }

    /// What the content is said to be.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The content, where it is a text that is here already; of a form that was read it is here.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self.body.is_stream() {
            true => None,
            false => std::str::from_utf8(self.body.here()).ok(),
        }
    }

    /// The content.
    #[must_use]
    pub fn into_body(self) -> Body {
        self.body
    }

    fn head(&self, boundary: &str) -> Bytes {
        let name = escaped(&self.name);
        let mut head = format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"");
        if let Some(file_name) = &self.file_name {
            head.push_str(&format!("; filename=\"{}\"", escaped(file_name)));
        }
        if let Some(content_type) = &self.content_type {
            head.push_str(&format!("\r\ncontent-type: {content_type}"));
        }
        head.push_str("\r\n\r\n");
        head.into()
    }
}

impl fmt::Debug for Multipart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multipart")
            .field("parts", &self.parts.len())
            .finish_non_exhaustive()
    }
}

impl Default for Multipart {
    fn default() -> Self {
        Self::new()
    }
}

impl Multipart {
    /// A form without parts.
    #[must_use]
    pub fn new() -> Self {
        // Long enough that no content holds it by chance.
        let boundary = format!("trunkline-{:032x}", fastrand::u128(..));
        Self {
            boundary,
            parts: Vec::new(),
            wrong: None,
        }
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, name: &str, value: impl Into<String>) -> Self {
        self.part(name, None, None, Body::from(value.into()))
    }

    /// Adds bytes as a file.
    #[must_use]
    pub fn bytes(
        self,
        name: &str,
        file_name: &str,
        content_type: &str,
        bytes: impl Into<Body>,
    ) -> Self {
        self.part(name, Some(file_name), Some(content_type), bytes.into())
    }

    /// Adds a file of this machine under its own name: read piece by piece while it is sent.
    ///
    /// # Errors
    /// `Invalid` when it cannot be opened, is no file, or has no name.
    ///
    /// # Cancel safety
    /// Dropping it closes the file.
    pub async fn file(
        self,
        name: &str,
        content_type: &str,
        path: impl AsRef<Path>,
    ) -> Result<Self> {
        let path = path.as_ref();
        let wrong = |error| {
            Error::invalid(format!("{} cannot be sent as a file", path.display()))
                .with_source(error)
        };
        let mut file = tokio::fs::File::open(path).await.map_err(wrong)?;
        let is_file = file.metadata().await.map_err(wrong)?.is_file();
        let file_name = path.file_name().and_then(|name| name.to_str());
        let (true, Some(file_name)) = (is_file, file_name) else {
            return Err(Error::invalid(format!(
                "{} is no file with a name",
                path.display()
            )));
        };
        let length = file.seek(SeekFrom::End(0)).await.map_err(wrong)?;
        file.seek(SeekFrom::Start(0)).await.map_err(wrong)?;
        let shown = path.display().to_string();
        let pieces = stream::try_unfold((file, length), move |(mut file, left)| {
            let shown = shown.clone();
            async move {
                if left == 0 {
                    return Ok(None);
                }
                let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                let mut piece = vec![0; most];
                let failed =
                    |what: &str| Error::new(ErrorKind::Internal, format!("{shown}: {what}"));
                let read = file.read(&mut piece).await.map_err(|error| {
                    failed("the file cannot be read to its end").with_source(error)
                })?;
                if read == 0 {
                    return Err(failed("the file has become shorter while it was sent"));
                }
                piece.truncate(read);
                let left = left.saturating_sub(u64::try_from(read).unwrap_or(left));
                Ok(Some((Bytes::from(piece), (file, left))))
            }
        });
        let body = Body::new(WithLength::new(
            StreamBody::new(pieces.map_ok(Frame::data)),
            length,
        ));
        Ok(self.part(name, Some(file_name), Some(content_type), body))
    }

    /// Adds a part of any body, such as a stream.
    #[must_use]
    pub fn part(
        mut self,
        name: &str,
        file_name: Option<&str>,
        content_type: Option<&str>,
        body: Body,
    ) -> Self {
        if content_type.is_some_and(|kind| http::HeaderValue::from_str(kind).is_err()) {
            let error = Error::invalid(format!("the content type of part `{name}` cannot be sent"));
            self.wrong.get_or_insert(error);
            return self;
        }
        self.parts.push(Part {
            name: name.to_owned(),
            file_name: file_name.map(ToOwned::to_owned),
            content_type: content_type.map(ToOwned::to_owned),
            body,
        });
        self
    }

    /// The parts, in their order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The first part of that name.
    #[must_use]
    pub fn part_named(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }

    /// The parts, in their order, to be taken apart.
    #[must_use]
    pub fn into_parts(self) -> Vec<Part> {
        self.parts
    }

    /// The content type, with the boundary.
    #[must_use]
    pub fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// The body. Its length is known where that of each part is.
    ///
    /// # Errors
    /// `Invalid` when a content type cannot be sent.
    pub fn into_body(self) -> Result<Body> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let end = Bytes::from(format!("--{}--\r\n", self.boundary));
        let break_after = Bytes::from_static(b"\r\n");
        let mut size = Some(end.len() as u64);
        let heads: Vec<Bytes> = self
            .parts
            .iter()
            .map(|part| part.head(&self.boundary))
            .collect();
        let headed = || heads.iter().zip(&self.parts);
        for (head, Part { body, .. }) in headed() {
            let around = (head.len() + break_after.len()) as u64;
            size = body
                .size_hint()
                .exact()
                .and_then(|length| size?.checked_add(length + around));
        }
        if self.parts.iter().all(|part| !part.body.is_stream()) {
            let mut all = Vec::new();
            for (head, Part { body, .. }) in headed() {
                for bytes in [head, body.here(), &break_after] {
                    all.extend_from_slice(bytes);
                }
            }
            all.extend_from_slice(&end);
            // Parts that are here already make a body that can be sent again.
            return Ok(Body::from(all));
        }
        let one = |bytes: Bytes| stream::iter([Ok::<_, Error>(bytes)]).boxed();
        let mut pieces: Vec<BoxStream<'static, Result<Bytes>>> = Vec::new();
        for (head, Part { body, .. }) in heads.into_iter().zip(self.parts) {
            pieces.push(one(head));
            pieces.push(body.into_stream().boxed());
            pieces.push(one(break_after.clone()));
        }
        pieces.push(one(end));
        let stream = StreamBody::new(stream::iter(pieces).flatten().map_ok(Frame::data));
        Ok(match size {
            Some(size) => Body::new(WithLength::new(stream, size)),
            None => Body::new(stream),
        })
    }
}

/// As browsers write names (HTML, 4.10.21.8).
fn escaped(text: &str) -> String {
    // Some readers take a backslash for the beginning of an escape, and would not see where the name ends.
    let text = text.replace('"', "%22").replace('\\', "%5C");
    text.replace('\r', "%0D").replace('\n', "%0A")
}
