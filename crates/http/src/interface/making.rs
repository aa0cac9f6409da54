//! A request of an interface on its way from arguments to bytes.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use http::header::{ACCEPT, CONTENT_TYPE};
use trunkline_core::{Error, Id};

use super::call::Call;
use super::caller::Always;
use super::operation::Operation;
use super::parameter::{self, Parameter};
use super::wire::Sendable;
use crate::body::Body;
use crate::client::{EnhancedHttpClient, IDEMPOTENCY_KEY};
use crate::multipart::Multipart;
use crate::request::RequestBuilder;

/// A request that is being put together. What cannot be sent is kept, and told by the call.
pub struct Making<'c> {
    request: Option<RequestBuilder<'c>>,
    path: String,
    asked: bool,
    keyed: bool,
    wrong: Option<Error>,
}

impl fmt::Debug for Making<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Making")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl<'c> Making<'c> {
    pub(super) fn new(
        client: &'c EnhancedHttpClient,
        operation: &'static Operation,
        endpoint: &Arc<str>,
        base_path: &str,
        always: Option<&Always>,
    ) -> Self {
        let mut request = client.request(operation.method.clone(), "");
        if let Some(always) = always {
            request = request
                .headers(always.headers.clone())
                .options(always.options.clone());
        }
        let mut path = String::with_capacity(base_path.len() + 64);
        path.push_str(base_path);
        Self {
            request: Some(request.of_operation(operation.name, endpoint)),
            path,
            asked: false,
            keyed: operation.keyed,
            wrong: None,
        }
    }

    pub(super) fn failed(error: Error) -> Self {
        Self {
            request: None,
            path: String::new(),
            asked: false,
            keyed: false,
            wrong: Some(error),
        }
    }

    /// Adds what stands in the template as it is.
    pub fn literal(&mut self, text: &str) {
        self.path.push_str(text);
    }

    /// Adds a parameter of the path.
    pub fn path(&mut self, name: &str, value: &(impl Parameter + ?Sized)) {
        self.segment(name, &value, false);
    }

    /// Adds the rest of a path, with its slashes.
    pub fn path_rest(&mut self, name: &str, value: &(impl Parameter + ?Sized)) {
        self.segment(name, &value, true);
    }

    fn segment(&mut self, name: &str, value: &dyn fmt::Display, whole: bool) {
        if let Err(what) = parameter::segment(&mut self.path, value, whole) {
            self.refuse(Error::invalid(format!(
                "the path's parameter `{name}` {what}"
            )));
        }
    }

    /// Adds a parameter of the query.
    pub fn query(&mut self, name: &str, value: &(impl Parameter + ?Sized)) {
        parameter::query(&mut self.path, &mut self.asked, name, &value);
    }

    /// Adds a parameter of the query that may be left out.
    pub fn query_optional<T: Parameter>(&mut self, name: &str, value: Option<T>) {
        if let Some(value) = value {
            self.query(name, &value);
        }
    }

    /// Adds each value under the same name.
    pub fn query_list<T: Parameter>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        for value in values {
            self.query(name, &value);
        }
    }

    /// Adds the fields of a value.
    pub fn query_fields(&mut self, fields: &(impl Sendable + ?Sized)) {
        match crate::query::append_all(&mut self.path, fields) {
            Ok(()) => self.asked = self.path.contains('?'),
            Err(error) => self.refuse(error),
        }
    }

    /// Adds a header.
    pub fn header(&mut self, name: &'static str, value: &(impl Parameter + ?Sized)) {
        match HeaderValue::try_from(value.to_string()) {
            Ok(value) => self.change(|request| request.header(name, value)),
            Err(error) => {
                let what = format!("the value of header `{name}` cannot be sent");
                self.refuse(Error::invalid(what).with_source(error));
            }
        }
    }

    /// Adds a header that may be left out.
    pub fn header_optional<T: Parameter>(&mut self, name: &'static str, value: Option<T>) {
        if let Some(value) = value {
            self.header(name, &value);
        }
    }

    /// Sends a value as JSON.
    pub fn json(&mut self, value: &(impl Sendable + ?Sized)) {
        self.content("application/json", Body::json(value));
    }

    /// Sends the fields of a value as a form.
    pub fn form(&mut self, value: &(impl Sendable + ?Sized)) {
        let mut fields = String::new();
        let written = crate::query::append_all(&mut fields, value);
        let body = written.map(|()| Body::from(fields.trim_start_matches('?').to_owned()));
        self.content("application/x-www-form-urlencoded", body);
    }

    /// Sends a value as MessagePack, and asks for an answer of the same kind.
    pub fn msgpack(&mut self, value: &(impl Sendable + ?Sized)) {
        let body = rmp_serde::to_vec_named(value).map(Body::from);
        let body = body.map_err(|error| {
            Error::invalid("the body cannot be written as MessagePack").with_source(error)
        });
        self.content("application/msgpack", body);
        let both = HeaderValue::from_static("application/msgpack, application/json;q=0.9");
        self.change(|request| request.header(ACCEPT, both));
    }

    /// Sends a stream.
    pub fn stream(&mut self, body: Body) {
        self.content("application/octet-stream", Ok(body));
    }

    /// Sends a form with texts and files.
    pub fn multipart(&mut self, form: Multipart) {
        self.change(|request| request.multipart(form));
    }

    fn content(&mut self, kind: &'static str, body: trunkline_core::Result<Body>) {
        match body {
            Ok(body) => self.change(|request| {
                request
                    .default_header(CONTENT_TYPE, HeaderValue::from_static(kind))
                    .body(body)
            }),
            Err(error) => self.refuse(error),
        }
    }

    /// The call.
    pub fn done<K, E, B>(mut self) -> Call<'c, K, E, B> {
        if self.keyed {
            let key = HeaderValue::try_from(Id::new().to_string());
            if let Ok(key) = key {
                self.change(|request| request.default_header(IDEMPOTENCY_KEY, key));
            }
        }
        let Self {
            request,
            path,
            wrong,
            ..
        } = self;
        let request = match (request, wrong) {
            (_, Some(wrong)) => Err(wrong),
            (Some(request), None) => Ok(request.at(path)),
            (None, None) => Err(Error::internal("a call without a request")),
        };
        Call::new(request)
    }

    fn change(&mut self, change: impl FnOnce(RequestBuilder<'c>) -> RequestBuilder<'c>) {
        self.request = self.request.take().map(change);
    }

    pub(super) fn refuse(&mut self, error: Error) {
        self.wrong.get_or_insert(error);
    }
}
