//! One attempt: an instance is picked and asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::time::Instant;
use trunkline_core::{Carrier, Context, Error, Propagation, Result};
use trunkline_discovery::{Instances, PickRequest, ServiceInstance};
use trunkline_http::{Body, ConnectFailed, Limits, Origin, Transport};
use trunkline_resilience::{Attempt, Classify as _};

use crate::judge::ByStatus;

/// What all attempts of one request share.
pub(crate) struct Attempts<'a> {
    pub(crate) transport: &'a Transport,
    pub(crate) propagation: &'a Propagation,
    pub(crate) instances: &'a Instances,
    pub(crate) context: &'a Context,
    pub(crate) limits: Limits,
    pub(crate) parts: &'a Parts,
    /// In a lock because a stream is not for two at once; attempts follow one another.
    pub(crate) body: Mutex<Option<Body>>,
    pub(crate) tried: Mutex<Vec<Arc<ServiceInstance>>>,
}

impl Attempts<'_> {
    /// Asks an instance that was not asked before, if there is one.
    pub(crate) async fn run(&self, attempt: Attempt) -> Result<Response<Body>> {
        let body = self.next_body().ok_or_else(cannot_be_repeated)?;
        self.instances.ready(attempt.deadline).await?;
        let picked = {
            let mut tried = lock(&self.tried);
            let picked = self.instances.pick(&PickRequest::excluding(&tried))?;
            tried.push(Arc::clone(picked.instance()));
            picked
        };
        let origin = Origin::of_instance(picked.instance())?;
        let request = self.request(attempt, body);
        let began = Instant::now();
        let answer = self.transport.send(&origin, request, &self.limits).await;
        let unreachable = |error: &Error| error.find::<ConnectFailed>().is_some();
        if answer.as_ref().is_err_and(unreachable) {
            picked.unreachable();
        } else {
            picked.finish(ByStatus.outcome(&answer), began.elapsed());
        }
        answer
    }

    /// Whether there is something left to send again.
    pub(crate) fn can_repeat(&self) -> bool {
        lock(&self.body)
            .as_ref()
            .is_some_and(|body| body.try_clone().is_some())
    }

    /// A copy where that is possible; a long stream passes in the first attempt and is gone.
    fn next_body(&self) -> Option<Body> {
        let mut body = lock(&self.body);
        match body.as_ref().and_then(Body::try_clone) {
            Some(copy) => Some(copy),
            None => body.take(),
        }
    }

    fn request(&self, attempt: Attempt, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = self.parts.uri.clone();
        let mut headers = Headers(self.parts.headers.clone());
        let context = self.context.child().with_deadline(attempt.deadline);
        self.propagation.inject(&context, &mut headers);
        *request.headers_mut() = headers.0;
        request
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cannot_be_repeated() -> Error {
    Error::unavailable("the body of the request was sent and cannot be sent again")
}

/// Headers as the context writes them.
struct Headers(HeaderMap);

impl Carrier for Headers {
    fn read(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|value| value.to_str().ok())
    }

    fn write(&mut self, name: &str, value: &str) {
        let name = HeaderName::try_from(name);
        let value = HeaderValue::try_from(value);
        if let (Ok(name), Ok(value)) = (name, value) {
            self.0.insert(name, value);
        }
    }
}
