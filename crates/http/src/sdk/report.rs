//! Tells a function of the application about every call that failed.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::timeout;
use trunkline_core::{BoxFuture, Context, Error, Problem, names, task};

use crate::error::{ServiceError, StatusError};
use crate::middleware::{Hook, MiddlewareResult, Next, ServiceRequest, hook};

/// A handler of errors delays the call that it is told about: it gets this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which call failed.
///
/// ```
/// use trunkline_http::{ErrorContext, ServiceError};
///
/// async fn alert(error: Arc<ServiceError>, context: ErrorContext) {
///     if ["payment-service", "auth-service"].contains(&&*context.service_name) {
///         println!("{} is failing: {error}", context.service_name);
///     }
/// }
/// # use std::sync::Arc;
/// # let _ = alert;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ErrorContext {
    /// The service that was called.
    pub service_name: Arc<str>,
    /// The endpoint, such as `GET /users/{id}`; `*` where no template fits.
    pub endpoint: Arc<str>,
    /// The method of the typed interface that made the call.
    pub operation: Option<&'static str>,
    /// The method.
    pub method: Method,
    /// The path as the caller wrote it, without its query.
    pub path: String,
    /// How many attempts were sent; 0 when the call was refused before.
    #[doc(alias = "attempt")]
    pub attempts: u32,
    /// The correlation id of the call.
    pub correlation_id: String,
    /// The context of the call.
    pub context: Context,
}

/// An error handler, erased.
pub(super) type Handler =
    Arc<dyn Fn(Arc<ServiceError>, ErrorContext) -> BoxFuture<'static, ()> + Send + Sync>;

pub(super) fn handler<F, Fut>(handler: F) -> Handler
where
    F: FnOnce(Arc<ServiceError>, ErrorContext) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |error, context| Box::pin(handler.clone()(error, context)))
}

impl ErrorContext {
    pub(super) fn of(request: &ServiceRequest) -> Self {
        Self {
            service_name: request.service().into(),
            endpoint: request.endpoint().into(),
            operation: request.operation(),
            method: request.method().clone(),
            path: request.path().to_owned(),
            attempts: 0,
            correlation_id: request.context().correlation_id().as_str().to_owned(),
            context: request.context().clone(),
        }
    }
}

/// A middleware that tells the handlers.
pub(super) fn reporting(handlers: Arc<[Handler]>) -> Hook {
    hook(async move |mut request: ServiceRequest, next: Next| {
        let mut context = ErrorContext::of(&request);
        let sent = Arc::<AtomicU32>::default();
        request.options_mut().sent = Some(Arc::clone(&sent));
        let answer = next.run(request).await;
        context.attempts = sent.load(Ordering::Relaxed);
        match answer {
            Ok(response) if is_error(response.status()) => {
                let status = response.status();
                let service = context.service_name.to_string();
                // The body is the caller's to read.
                let title = status.canonical_reason().unwrap_or("unknown status");
                let problem = Problem::new(status.as_u16(), title);
                let answer = StatusError::new(service, status, problem);
                tell(&handlers, ServiceError::Status(Box::new(answer)), context).await;
                Ok(response)
            }
            Ok(mut response) => {
                // For who finds out later that it cannot be read.
                response.extensions_mut().insert(context);
                Ok(response)
            }
            Err(error) => {
                let error = tell(&handlers, error, context).await;
                MiddlewareResult::Err(error)
            }
        }
    })
}

/// Tells every handler, one after the other, and gives the error back.
pub(super) async fn tell(
    handlers: &[Handler],
    error: ServiceError,
    context: ErrorContext,
) -> ServiceError {
    let error = Arc::new(error);
    for handler in handlers {
        let told = async { handler(Arc::clone(&error), context.clone()).await };
        let failed = match timeout(PATIENCE, task::catch_panic(told)).await {
            Ok(Ok(())) => continue,
            Ok(Err(panic)) => panic.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        tracing::error!(
            target: names::target::CALL,
            service = %context.service_name, endpoint = %context.endpoint, message = failed,
            "a handler of errors failed"
        );
    }
    Arc::try_unwrap(error).unwrap_or_else(shared)
}

/// The same error for the caller, when a handler has kept it for itself.
fn shared(kept: Arc<ServiceError>) -> ServiceError {
    if let ServiceError::Status(answer) = &*kept {
        return ServiceError::Status(answer.clone());
    }
    let mut copy = Error::new(kept.kind(), kept.to_string());
    if let Some(error) = kept.error() {
        copy = copy.with_retry(error.retry()).with_origin(error.origin());
        if let Some(component) = error.component() {
            copy = copy.with_component(component.to_owned());
        }
        if let Some(operation) = error.operation() {
            copy = copy.with_operation(operation.to_owned());
        }
    }
    copy.with_source(Kept(kept)).into()
}

/// Hands on the causes of an error that somebody else holds, too.
#[derive(Debug)]
struct Kept(Arc<ServiceError>);

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Kept {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}
