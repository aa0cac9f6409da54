//! Puts middleware around what clients do.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use http::{Request, Response};
use tower::service_fn;
use tower::util::{BoxCloneSyncService, ServiceExt};
use tower_service::Service;
use trunkline_core::{BoxFuture, Error, Result};

use super::{About, MiddlewareResult, Next, ServiceRequest};
use crate::body::Body;
use crate::client::{ClientService, Core};
use crate::coding;
use crate::limits::Limits;
use crate::origin::Origin;
use crate::transport::Transport;

/// A middleware, erased.
pub(crate) type Hook =
    Arc<dyn Fn(ServiceRequest, Next) -> BoxFuture<'static, MiddlewareResult> + Send + Sync>;

/// Erases a middleware. It is called by value on a clone: so the future of an `async` closure owns what it captures,
/// which one called by reference would borrow.
pub(crate) fn hook<F, Fut>(middleware: F) -> Hook
where
    F: FnOnce(ServiceRequest, Next) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = MiddlewareResult> + Send + 'static,
{
    Arc::new(move |request, next| Box::pin(middleware.clone()(request, next)))
}

/// Puts a middleware around the calls of a client.
pub(crate) fn around_call(inner: ClientService, core: &Arc<Core>, hook: &Hook) -> ClientService {
    BoxCloneSyncService::new(Around {
        inner,
        about: Source::Call(Arc::clone(core)),
        hook: Arc::clone(hook),
    })
}

/// Middleware around every attempt of a client; the first is the outermost.
#[derive(Clone)]
pub(crate) struct Hooks(Arc<[Hook]>);

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hooks({})", self.0.len())
    }
}

impl Hooks {
    /// Those there are and one inside them.
    pub(crate) fn with(known: Option<&Self>, hook: Hook) -> Self {
        let known = known.map_or(&[][..], |known| &known.0);
        Self(known.iter().cloned().chain([hook]).collect())
    }

    /// Sends one attempt through all of them.
    pub(crate) async fn send(
        &self,
        about: About,
        transport: &Transport,
        origin: &Origin,
        (request, decodes): (Request<Body>, bool),
        limits: Limits,
    ) -> Result<Response<Body>> {
        let (transport, origin) = (transport.clone(), origin.clone());
        let sent = service_fn(move |request: Request<Body>| {
            let (transport, origin) = (transport.clone(), origin.clone());
            async move {
                let sent = transport.send_boxed(&origin, Box::new(request), &limits);
                let answer = sent.await?;
                // A middleware reads what the service wrote, not what became of it on the way.
                let answer = match decodes {
                    true => coding::decode(answer)?,
                    false => answer,
                };
                Ok(*answer)
            }
        });
        let innermost = BoxCloneSyncService::new(sent);
        let stack = self.0.iter().rev().fold(innermost, |inner, hook| {
            BoxCloneSyncService::new(Around {
                inner,
                about: Source::Attempt(Arc::new(about.clone())),
                hook: Arc::clone(hook),
            })
        });
        stack.oneshot(request).await
    }
}

/// Where a middleware learns what the call is.
#[derive(Clone)]
enum Source {
    Call(Arc<Core>),
    Attempt(Arc<About>),
}

#[derive(Clone)]
struct Around {
    inner: ClientService,
    about: Source,
    hook: Hook,
}

impl Service<Request<Body>> for Around {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<Body>>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<()>> {
        // `Next` waits for what is inside, should it be asked at all.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let about = match &self.about {
            Source::Call(core) => About::call(core, &request),
            Source::Attempt(about) => About::clone(about),
        };
        let answering = (self.hook)(
            ServiceRequest::new(about, request),
            Next::new(self.inner.clone()),
        );
        Box::pin(async move {
            match answering.await {
                Ok(response) => Ok(response.into_inner()),
                Err(error) => Err(error.into()),
            }
        })
    }
}
