//! Writes the context into the headers of an attempt.
//!
//! The same headers as [`Propagation::inject`], with their names read once: this is done for every attempt.

use std::time::Duration;

use http::header::{Entry, HeaderMap, HeaderName, HeaderValue};
use trunkline_core::{Context, Error, Propagation, Result, names};

use crate::config::ContextHeaders;

/// The headers of a context, ready to be written. What a request brings itself stays.
#[derive(Debug)]
pub(crate) struct Injector {
    correlation: HeaderName,
    deadline: HeaderName,
    service: Option<(HeaderName, HeaderValue)>,
    traces: bool,
    told: ContextHeaders,
}

const TRACEPARENT: HeaderName = HeaderName::from_static(names::header::TRACEPARENT);
const TRACESTATE: HeaderName = HeaderName::from_static(names::header::TRACESTATE);
const BAGGAGE: HeaderName = HeaderName::from_static(names::header::BAGGAGE);

impl Injector {
    /// Takes names and values from the settings.
    ///
    /// # Errors
    /// `Config` when one of them cannot stand in a header.
    pub(crate) fn new(propagation: &Propagation, told: ContextHeaders) -> Result<Self> {
        let name = |name: &str| {
            HeaderName::try_from(name).map_err(|error| {
                Error::config(format!("`{name}` is no name of a header")).with_source(error)
            })
        };
        let service = propagation.service().map(|service| {
            let value = HeaderValue::try_from(service).map_err(|error| {
                Error::config(format!("`{service}` cannot be sent as the service's name"))
                    .with_source(error)
            })?;
            Ok::<_, Error>((name(propagation.service_header())?, value))
        });
        Ok(Self {
            correlation: name(propagation.correlation_header())?,
            deadline: name(propagation.deadline_header())?,
            service: service.transpose()?,
            traces: propagation.is_tracing() && told != ContextHeaders::None,
            told,
        })
    }

    /// Whether this header, in lower case, differs from one attempt to the next.
    pub(crate) fn writes_anew(&self, name: &str) -> bool {
        let own = [self.correlation.as_str(), self.deadline.as_str()];
        own.contains(&name)
            || [TRACEPARENT, TRACESTATE, BAGGAGE]
                .iter()
                .any(|known| known.as_str() == name)
    }

    /// Writes the context of one attempt: a new span under the call's, and the time that is left for it.
    pub(crate) fn inject(
        &self,
        context: &Context,
        left: Option<Duration>,
        headers: &mut HeaderMap,
    ) {
        if self.told == ContextHeaders::All {
            let id = context.correlation_id().as_str();
            put(headers, &self.correlation, || {
                HeaderValue::from_str(id).ok()
            });
        }
        if self.traces
            && let Entry::Vacant(vacant) = headers.entry(TRACEPARENT)
        {
            let trace = context.trace().child();
            if let Ok(value) = HeaderValue::try_from(trace.traceparent()) {
                vacant.insert(value);
            }
            if let Some(state) = trace.tracestate() {
                put(headers, &TRACESTATE, || HeaderValue::from_str(state).ok());
            }
        }
        if self.told != ContextHeaders::All {
            return;
        }
        if !context.baggage().is_empty() {
            let baggage = || HeaderValue::try_from(context.baggage().to_header()).ok();
            put(headers, &BAGGAGE, baggage);
        }
        if let Some(left) = left {
            let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            put(headers, &self.deadline, || Some(HeaderValue::from(left)));
        }
        if let Some((name, value)) = &self.service {
            put(headers, name, || Some(value.clone()));
        }
    }
}

fn put(headers: &mut HeaderMap, name: &HeaderName, value: impl FnOnce() -> Option<HeaderValue>) {
    if let Entry::Vacant(vacant) = headers.entry(name)
        && let Some(value) = value()
    {
        vacant.insert(value);
    }
}

#[cfg(test)]
mod tests {
    use trunkline_core::Carrier;

    use super::*;

    struct Headers(HeaderMap);

    impl Carrier for Headers {
        fn read(&self, name: &str) -> Option<&str> {
            self.0.get(name)?.to_str().ok()
        }

        fn write(&mut self, name: &str, value: &str) {
            self.0
                .insert(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
    }

    fn propagation() -> Propagation {
        Propagation::default()
            .with_service("orders")
            .with_correlation_header("X-Request-ID")
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_hop_reads_what_was_written() {
        let context = Context::new().with_timeout(Duration::from_secs(2));
        let baggage = context.baggage().with("tenant", "a b");
        let context = context.with_baggage(baggage);
        let mut headers = Headers(HeaderMap::new());
        let injector = Injector::new(&propagation(), ContextHeaders::All).unwrap();
        injector.inject(&context, context.remaining(), &mut headers.0);
        let mut written: Vec<_> = headers.0.keys().map(HeaderName::as_str).collect();
        written.sort_unstable();

        let mut by_core = Headers(HeaderMap::new());
        propagation().inject(&context, &mut by_core);
        let mut expected: Vec<_> = by_core.0.keys().map(HeaderName::as_str).collect();
        expected.sort_unstable();
        assert_eq!(written, expected);

        let read = propagation().extract(&headers);
        assert_eq!(read.correlation_id(), context.correlation_id());
        assert_eq!(read.trace().trace_id(), context.trace().trace_id());
        assert_ne!(read.trace().parent(), Some(context.trace().span_id()));
        assert_eq!(read.remaining(), Some(Duration::from_secs(2)));
        assert_eq!(read.baggage().get("tenant"), Some("a b"));
        assert_eq!(read.identity().unwrap().service, "orders");
    }

    #[test]
    fn without_tracing_the_same_headers_are_written_as_by_the_core() {
        let quiet = propagation().with_tracing(false);
        let state = Context::new().trace().traceparent();
        let trace = trunkline_core::TraceContext::parse(&state, Some("a=1")).unwrap();
        let context = Context::new().with_trace(trace);
        let mut headers = Headers(HeaderMap::new());
        Injector::new(&quiet, ContextHeaders::All)
            .unwrap()
            .inject(&context, None, &mut headers.0);
        let mut by_core = Headers(HeaderMap::new());
        quiet.inject(&context, &mut by_core);
        assert_eq!(headers.0, by_core.0);
        assert_eq!(headers.0.len(), 2, "correlation id and service");
    }

    #[test]
    fn strangers_are_told_what_they_may_know() {
        let context = Context::new().with_timeout(Duration::from_secs(2));
        let baggage = context.baggage().with("tenant", "a b");
        let context = context.with_baggage(baggage);
        for (told, expected) in [
            (ContextHeaders::Trace, &["traceparent"][..]),
            (ContextHeaders::None, &[]),
        ] {
            let mut headers = HeaderMap::new();
            Injector::new(&propagation(), told).unwrap().inject(
                &context,
                context.remaining(),
                &mut headers,
            );
            let names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
            assert_eq!(names, expected, "{told:?}");
        }
    }

    #[test]
    fn what_the_request_brings_stays() {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", "mine".parse().unwrap());
        Injector::new(&propagation(), ContextHeaders::All)
            .unwrap()
            .inject(&Context::new(), None, &mut headers);
        assert_eq!(headers["x-request-id"], "mine");
    }

    #[test]
    fn a_name_that_cannot_be_sent_is_refused_when_the_client_is_made() {
        let wrong = Propagation::default().with_correlation_header("no header");
        assert!(Injector::new(&wrong, ContextHeaders::All).is_err());
        let wrong = Propagation::default().with_service("ein\nname");
        assert!(Injector::new(&wrong, ContextHeaders::All).is_err());
    }
}
