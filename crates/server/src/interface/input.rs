//! A request on its way from bytes to parameters.

use std::fmt;
use std::str::FromStr;

use axum::RequestExt;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{Extensions, HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use trunkline_http::Multipart;

use crate::ProblemResponse;
use crate::extract::{is_json, read_json, unread};

/// A parameter that can be read from text.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from a path, a query or a header",
    label = "the server's half reads this parameter",
    note = "implement `FromStr`, with an error that is `Display`"
)]
pub trait Readable: Sized {
    /// Reads it, or says what is wrong.
    ///
    /// # Errors
    /// What is wrong with the text.
    fn read(text: &str) -> Result<Self, String>;
}

impl<T> Readable for T
where
    T: FromStr,
    T::Err: fmt::Display,
{
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: T::Err| error.to_string())
    }
}

/// A request of an interface. What is wrong with its parameters is kept, so that all of it is told at once.
#[derive(Debug)]
pub struct Input {
    path: Vec<String>,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    /// Among them the limit of the size of bodies.
    extensions: Extensions,
    body: Option<Body>,
    wrong: Vec<(String, String)>,
    /// The request cannot be read at all.
    refused: Option<Box<ProblemResponse>>,
}

impl Input {
    pub(super) async fn of(mut request: Request) -> Result<Self, ProblemResponse> {
        let path = request
            .extract_parts::<RawPathParams>()
            .await
            .map_err(|rejection| ProblemResponse::bad_request(rejection.body_text()))?;
        let path = path.iter().map(|(_, value)| value.to_owned()).collect();
        let (parts, body) = request.into_parts();
        let Parts {
            uri,
            headers,
            extensions,
            ..
        } = parts;
        let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        Ok(Self {
            path,
            query: query.into_owned().collect(),
            headers,
            extensions,
            body: Some(body),
            wrong: Vec::new(),
            refused: None,
        })
    }

    /// A parameter of the path, by its place among them.
    pub fn path<T: Readable>(&mut self, place: usize, name: &str) -> Option<T> {
        let text = self.path.get(place).cloned().unwrap_or_default();
        self.read(name, &text)
    }

    /// A parameter of the query.
    pub fn query<T: Readable>(&mut self, name: &str) -> Option<T> {
        match self.first(name) {
            Some(text) => self.read(name, &text),
            None => self.missing(name),
        }
    }

    /// A parameter of the query that may be left out.
    pub fn query_optional<T: Readable>(&mut self, name: &str) -> Option<Option<T>> {
        match self.first(name) {
            Some(text) => self.read(name, &text).map(Some),
            None => Some(None),
        }
    }

    /// A parameter of the query, or this where it is left out.
    pub fn query_or<T: Readable>(&mut self, name: &str, default: impl FnOnce() -> T) -> Option<T> {
        self.query_optional(name)
            .map(|found| found.unwrap_or_else(default))
    }

    /// Every value of a parameter of the query.
    pub fn query_list<T: Readable>(&mut self, name: &str) -> Option<Vec<T>> {
        let texts: Vec<String> = self.all(name).collect();
        let before = self.wrong.len();
        let values: Vec<T> = texts
            .iter()
            .filter_map(|text| self.read(name, text))
            .collect();
        (self.wrong.len() == before).then_some(values)
    }

    /// The same; none at all is something else than a list without values.
    pub fn query_optional_list<T: Readable>(&mut self, name: &str) -> Option<Option<Vec<T>>> {
        match self.first(name) {
            Some(_) => self.query_list(name).map(Some),
            None => Some(None),
        }
    }

    /// The parameters of the query as the fields of a value.
    pub fn query_fields<T: DeserializeOwned>(&mut self) -> Option<T> {
        let pairs = self.query.clone();
        self.fields(&pairs, "query")
    }

    /// A header.
    pub fn header<T: Readable>(&mut self, name: &str) -> Option<T> {
        match self.header_text(name) {
            Some(text) => self.read(name, &text),
            None => self.missing(name),
        }
    }

    /// A header that may be left out.
    pub fn header_optional<T: Readable>(&mut self, name: &str) -> Option<Option<T>> {
        match self.header_text(name) {
            Some(text) => self.read(name, &text).map(Some),
            None => Some(None),
        }
    }

    /// A header, or this where it is left out.
    pub fn header_or<T: Readable>(&mut self, name: &str, default: impl FnOnce() -> T) -> Option<T> {
        self.header_optional(name)
            .map(|found| found.unwrap_or_else(default))
    }

    /// The body, from JSON.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Option<T> {
        if !is_json(&self.headers) {
            return self.other_kind("JSON", "application/json");
        }
        let bytes = self.bytes().await?;
        let read = read_json(&bytes);
        self.or_refused(read)
    }

    /// The body, from a form.
    pub async fn form<T: DeserializeOwned>(&mut self) -> Option<T> {
        if !self.is_kind(&["application/x-www-form-urlencoded"]) {
            return self.other_kind("a form", "application/x-www-form-urlencoded");
        }
        let bytes = self.bytes().await?;
        let pairs: Vec<_> = form_urlencoded::parse(&bytes).into_owned().collect();
        self.fields(&pairs, "body")
    }

    /// The body, from MessagePack.
    pub async fn msgpack<T: DeserializeOwned>(&mut self) -> Option<T> {
        if !self.is_kind(&MSGPACK) {
            return self.other_kind("MessagePack", "application/msgpack");
        }
        let bytes = self.bytes().await?;
        let mut reader = rmp_serde::Deserializer::from_read_ref(&bytes);
        let read = serde_path_to_error::deserialize(&mut reader);
        let read = read.map_err(|error| {
            ProblemResponse::invalid_fields([(error.path().to_string(), error.inner().to_string())])
        });
        self.or_refused(read)
    }

    /// The body, a form with files.
    pub async fn multipart(&mut self) -> Option<Multipart> {
        let kind = self.headers.get(CONTENT_TYPE).cloned();
        if !self.is_kind(&["multipart/form-data"]) {
            return self.other_kind("a form with files", "multipart/form-data");
        }
        let bytes = self.bytes().await?;
        let kind = kind.as_ref().and_then(|kind| kind.to_str().ok());
        let read = Multipart::read(kind.unwrap_or_default(), bytes);
        self.or_refused(read.map_err(|error| ProblemResponse::bad_request(error.to_string())))
    }

    /// The body as it comes, of any size: whoever reads it keeps a limit.
    pub fn stream(&mut self) -> Option<trunkline_http::Body> {
        Some(trunkline_http::Body::new(
            self.body.take().unwrap_or_default(),
        ))
    }

    /// Whether the caller would rather have MessagePack than JSON.
    #[must_use]
    pub fn wants_msgpack(&self) -> bool {
        let accepted = self
            .headers
            .get(ACCEPT)
            .and_then(|value| value.to_str().ok());
        let first = accepted.and_then(|accepted| accepted.split([',', ';']).next());
        first.is_some_and(|first| {
            MSGPACK
                .iter()
                .any(|known| first.trim().eq_ignore_ascii_case(known))
        })
    }

    /// Adds what is wrong with a field.
    pub fn refuse(&mut self, field: impl Into<String>, what: impl Into<String>) {
        self.wrong.push((field.into(), what.into()));
    }

    /// Whether nothing is wrong so far.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.wrong.is_empty() && self.refused.is_none()
    }

    /// The answer to a request that cannot be taken.
    #[must_use]
    pub fn refused(self) -> Response {
        match self.refused {
            Some(refused) => refused.into_response(),
            None => ProblemResponse::invalid_fields(self.wrong).into_response(),
        }
    }

    fn read<T: Readable>(&mut self, name: &str, text: &str) -> Option<T> {
        T::read(text).map_err(|what| self.refuse(name, what)).ok()
    }

    fn missing<T>(&mut self, name: &str) -> Option<T> {
        self.refuse(name, "is missing");
        None
    }

    fn all(&self, name: &str) -> impl Iterator<Item = String> {
        let values = self.query.iter().filter(move |(known, _)| known == name);
        values.map(|(_, value)| value.clone())
    }

    fn first(&self, name: &str) -> Option<String> {
        self.all(name).next()
    }

    fn header_text(&self, name: &str) -> Option<String> {
        let value = self.headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    fn is_kind(&self, known: &[&str]) -> bool {
        let kind = self
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let kind = kind
            .and_then(|kind| kind.split(';').next())
            .unwrap_or_default()
            .trim();
        known.iter().any(|known| kind.eq_ignore_ascii_case(known))
    }

    fn other_kind<T>(&mut self, what: &str, kind: &str) -> Option<T> {
        let text = format!("the body must be {what}, with `Content-Type: {kind}`");
        let refused = ProblemResponse::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
        self.or_refused(Err(refused))
    }

    async fn bytes(&mut self) -> Option<Bytes> {
        let mut request = Request::new(self.body.take().unwrap_or_default());
        *request.extensions_mut() = std::mem::take(&mut self.extensions);
        let read = Bytes::from_request(request, &()).await.map_err(unread);
        self.or_refused(read)
    }

    fn or_refused<T>(&mut self, read: Result<T, ProblemResponse>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(refused) => {
                self.refused.get_or_insert(Box::new(refused));
                None
            }
        }
    }

    /// A value from pairs of text. A name that stands several times is a list.
    fn fields<T: DeserializeOwned>(
        &mut self,
        pairs: &[(String, String)],
        around: &str,
    ) -> Option<T> {
        let read = super::fields::read(pairs);
        let wrong = |(field, what): (String, String)| match field.is_empty() || field == "." {
            true => (around.to_owned(), what),
            false => (field, what),
        };
        read.map_err(wrong)
            .map_err(|(field, what)| self.refuse(field, what))
            .ok()
    }
}

pub(super) const MSGPACK: [&str; 3] = [
    "application/msgpack",
    "application/x-msgpack",
    "application/vnd.msgpack",
];
