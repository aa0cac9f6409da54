//! The context of a request: read from its headers, open around its handler.

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::{Baggage, BoxFuture, Carrier, Propagation};

/// Reads correlation id, trace, deadline, caller and baggage from the headers, puts the [`Context`](trunkline_core::Context) into the request's
/// extensions, opens its scope around the handler, and answers with the correlation id.
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use trunkline_core::{Context, Propagation};
/// use trunkline_server::layers::ContextLayer;
///
/// let router: Router = Router::new()
///     .route("/", get(async || Context::current_or_new().correlation_id().to_string()))
///     .layer(ContextLayer::new(Propagation::default()).with_timeout(Duration::from_secs(30)));
/// # let _ = router;
/// ```
#[derive(Clone, Debug)]
pub struct ContextLayer(Arc<Settings>);

#[derive(Clone, Debug)]
struct Settings {
    propagation: Propagation,
    correlation_header: Option<HeaderName>,
    timeout: Option<Duration>,
    trust_baggage: bool,
}

impl ContextLayer {
    /// Reads the headers that `propagation` names. A request without a deadline gets none.
    #[must_use]
    pub fn new(propagation: Propagation) -> Self {
        // A name that is no header name can neither be read nor answered.
        let correlation_header = HeaderName::try_from(propagation.correlation_header()).ok();
        Self(Arc::new(Settings {
            propagation,
            correlation_header,
            timeout: None,
            trust_baggage: true,
        }))
    }

    /// Whether the baggage that requests bring is believed. It says how much a call matters
    /// ([`Priority`](trunkline_resilience::Priority)) and what chaos may hit it, and whatever the application reads from it:
    /// say `false` where anybody can ask. Default true.
    #[must_use]
    pub fn with_trust_baggage(mut self, trust: bool) -> Self {
        Arc::make_mut(&mut self.0).trust_baggage = trust;
        self
    }

    /// Gives every request so much time at the most; less if it says so itself.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        Arc::make_mut(&mut self.0).timeout = Some(timeout);
        self
    }
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ContextService {
            inner,
            settings: Arc::clone(&self.0),
        }
    }
}

/// A service that runs in the scope of the request's context.
#[derive(Clone, Debug)]
pub struct ContextService<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S, B, R> Service<Request<B>> for ContextService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Settings {
            propagation,
            timeout,
            trust_baggage,
            ..
        } = &*self.settings;
        let mut context = propagation.extract(&HeaderCarrier(request.headers_mut()));
        if !trust_baggage {
            context = context.with_baggage(Baggage::default());
        }
        if let Some(timeout) = timeout {
            context = context.with_timeout(*timeout);
        }
        request.extensions_mut().insert(context.clone());
        let future = context.sync_scope(|| self.inner.call(request));
        let settings = Arc::clone(&self.settings);
        Box::pin(async move {
            let mut response = context.scope(future).await?;
            let id = HeaderValue::try_from(context.correlation_id().as_str());
            if let (Some(name), Ok(id)) = (&settings.correlation_header, id) {
                response.headers_mut().insert(name.clone(), id);
            }
            Ok(response)
        })
    }
}

/// HTTP headers as a [`Carrier`] of a context.
#[derive(Debug)]
pub struct HeaderCarrier<'a>(
    /// The headers read and written.
    pub &'a mut HeaderMap,
);

impl Carrier for HeaderCarrier<'_> {
    fn read(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|value| value.to_str().ok())
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn write(&mut self, name: &str, value: &str) {
        // Names come from the configuration and values are visible ASCII; what is neither cannot travel in a header.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The only test of this program that has a subscriber: two at once would not see each other's lines reliably.
    #[test]
    fn x31_a_correlation_id_that_is_no_text_is_replaced_and_logged() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let taken = tracing::subscriber::with_default(subscriber.finish(), || {
            [None, Some(&b"\xfcmlaut"[..]), Some(b"with space")].map(|value| {
                let mut headers = HeaderMap::new();
                if let Some(value) = value {
                    let value = HeaderValue::from_bytes(value).unwrap();
                    headers.insert("x-correlation-id", value);
                }
                drop(Propagation::default().extract(&HeaderCarrier(&mut headers)));
                let mut written = lines.0.lock().unwrap();
                String::from_utf8(std::mem::take(&mut *written)).unwrap()
            })
        });
        assert_eq!(taken[0], "", "there was none to replace");
        for line in &taken[1..] {
            assert!(line.contains("WARN trunkline: a correlation id"), "{line}");
            assert!(line.contains("was replaced"), "{line}");
        }
        assert!(!taken[2].contains("with space"), "{}", taken[2]);
    }
}
