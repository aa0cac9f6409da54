//! Writes the context into the headers of an attempt.
//!
//! The same headers as [`Propagation::inject`], with their names read once: this is done for every attempt.

use std::sync::OnceLock;
use std::time::Duration;

use http::header::{Entry, HOST, HeaderMap, HeaderName, HeaderValue};
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
    /// What a request sends that has no headers of its own.
    plain: Option<Plain>,
    /// A deadline as it was written once: that of the first attempts of most calls is the same.
    written: OnceLock<(u64, HeaderValue)>,
}

/// The headers of a request that brings none, with places for what is said anew: to copy them costs less than to look for
/// the place of each.
#[derive(Debug)]
struct Plain {
    headers: HeaderMap,
    /// What each of them is, in the order of the map.
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Correlation,
    Trace,
    Deadline,
    Service,
    Host,
}

impl Plain {
    /// `None` where two of them go by the same name.
    fn new(named: &[(&HeaderName, Part, HeaderValue)]) -> Option<Self> {
        let mut headers = HeaderMap::with_capacity(named.len());
        for (name, _, value) in named {
            headers.insert(*name, value.clone());
        }
        let part_of = |name: &HeaderName| {
            let mut found = named.iter().filter(|(known, ..)| *known == name);
            found.next().map(|(_, part, _)| *part)
        };
        let parts: Vec<_> = headers.keys().filter_map(part_of).collect();
        (parts.len() == named.len()).then_some(Self { headers, parts })
    }
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
        let mut injector = Self {
            correlation: name(propagation.correlation_header())?,
            deadline: name(propagation.deadline_header())?,
            service: service.transpose()?,
            traces: propagation.is_tracing() && told != ContextHeaders::None,
            told,
            plain: None,
            written: OnceLock::new(),
        };
        injector.plain = injector.plain();
        Ok(injector)
    }

    fn plain(&self) -> Option<Plain> {
        if self.told != ContextHeaders::All {
            return None;
        }
        let later = || HeaderValue::from_static("");
        let (host, trace) = (HOST, TRACEPARENT);
        let mut named = vec![
            (&self.correlation, Part::Correlation, later()),
            (&self.deadline, Part::Deadline, later()),
            (&host, Part::Host, later()),
        ];
        if self.traces {
            named.push((&trace, Part::Trace, later()));
        }
        if let Some((name, value)) = &self.service {
            named.push((name, Part::Service, value.clone()));
        }
        Plain::new(&named)
    }

    /// All headers of an attempt whose request brings none, with the host it goes to: what [`Self::inject`] writes. `None`
    /// where the context has more to say.
    pub(crate) fn headers(
        &self,
        context: &Context,
        left: Duration,
        host: &HeaderValue,
    ) -> Option<HeaderMap> {
        let plain = self.plain.as_ref()?;
        if !context.baggage().is_empty() || context.trace().tracestate().is_some() {
            return None;
        }
        let mut headers = plain.headers.clone();
        for (value, part) in headers.values_mut().zip(&plain.parts) {
            *value = match part {
                Part::Correlation => {
                    HeaderValue::from_str(context.correlation_id().as_str()).ok()?
                }
                Part::Trace => {
                    HeaderValue::from_bytes(&context.trace().child().to_traceparent()).ok()?
                }
                Part::Deadline => self.time_left(left),
                Part::Host => host.clone(),
                Part::Service => continue,
            };
        }
        Some(headers)
    }

    fn time_left(&self, left: Duration) -> HeaderValue {
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let (known, written) = self.written.get_or_init(|| (left, HeaderValue::from(left)));
        match *known == left {
            true => written.clone(),
            false => HeaderValue::from(left),
        }
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
            put(headers, &self.deadline, || Some(self.time_left(left)));
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
    use trunkline_core::{Carrier, TraceContext};

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
        let trace = TraceContext::parse(&state, Some("a=1")).unwrap();
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
    fn a_request_without_headers_says_the_same_as_any_other() {
        let host = HeaderValue::from_static("users.example:8080");
        let context = Context::new();
        let quiet = propagation().with_tracing(false);
        for propagation in [propagation(), quiet, Propagation::default()] {
            let injector = Injector::new(&propagation, ContextHeaders::All).unwrap();
            // The second time it differs: that of the first is remembered.
            for left in [30_000, 30_000, 29_999, u64::MAX].map(Duration::from_millis) {
                let mut expected = HeaderMap::new();
                injector.inject(&context, Some(left), &mut expected);
                expected.insert(HOST, host.clone());
                let mut written = injector.headers(&context, left, &host).unwrap();
                // Each time another span of the same trace.
                let traces = [expected.remove(TRACEPARENT), written.remove(TRACEPARENT)];
                assert_eq!(written, expected);
                let traces = traces.map(|one| {
                    let parent = one?.to_str().ok()?.to_owned();
                    Some(TraceContext::parse(&parent, None)?.trace_id())
                });
                assert_eq!(traces[0], traces[1]);
                assert_eq!(traces[0].is_some(), propagation.is_tracing());
            }
        }
    }

    #[test]
    fn a_request_without_headers_is_not_written_by_heart_where_there_is_more_to_say() {
        let host = HeaderValue::from_static("users.example:8080");
        let left = Duration::from_secs(1);
        let by_heart = |propagation: &Propagation, told, context: &Context| {
            let injector = Injector::new(propagation, told).unwrap();
            injector.headers(context, left, &host).is_some()
        };
        let plain = Context::new();
        assert!(by_heart(&propagation(), ContextHeaders::All, &plain));
        assert!(!by_heart(&propagation(), ContextHeaders::Trace, &plain));
        assert!(!by_heart(&propagation(), ContextHeaders::None, &plain));
        let baggage = plain.baggage().with("tenant", "a");
        let more = plain.clone().with_baggage(baggage);
        assert!(!by_heart(&propagation(), ContextHeaders::All, &more));
        let parent = plain.trace().traceparent();
        let trace = TraceContext::parse(&parent, Some("vendor=1")).unwrap();
        let more = plain.clone().with_trace(trace);
        assert!(!by_heart(&propagation(), ContextHeaders::All, &more));
        for name in ["host", "traceparent"] {
            let same = Propagation::default().with_correlation_header(name);
            assert!(!by_heart(&same, ContextHeaders::All, &plain), "{name}");
        }
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
