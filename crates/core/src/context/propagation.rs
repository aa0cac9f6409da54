//! How a context travels in headers, whatever the protocol.

use std::sync::Arc;
use std::time::Duration;

use super::{Baggage, Context, CorrelationFormat, CorrelationId, Identity, TraceContext};
use crate::{SharedClock, SystemClock, names};

/// Headers of any protocol: HTTP, gRPC metadata, message headers.
pub trait Carrier {
    /// The value of a header, if it is there and is text. Names are compared without regard to case.
    fn read(&self, name: &str) -> Option<&str>;
    /// Whether a header is there at all, be it text or not.
    fn has(&self, name: &str) -> bool {
        self.read(name).is_some()
    }
    /// Sets a header, replacing what was there.
    fn write(&mut self, name: &str, value: &str);
}

/// Which headers carry a context, and how a new correlation id looks.
///
/// ```
/// use trunkline_core::{Context, Metadata, Propagation};
///
/// let propagation = Propagation::default();
/// let sent = Context::new();
/// let mut headers = Metadata::new();
/// propagation.inject(&sent, &mut headers);
/// let received = propagation.extract(&headers);
/// assert_eq!(received.correlation_id(), sent.correlation_id());
/// assert_eq!(received.trace().trace_id(), sent.trace().trace_id());
/// ```
#[derive(Clone, Debug)]
pub struct Propagation {
    service: Option<Arc<str>>,
    correlation_header: Arc<str>,
    deadline_header: Arc<str>,
    service_header: Arc<str>,
    format: CorrelationFormat,
    traces: bool,
    clock: SharedClock,
}

impl Default for Propagation {
    fn default() -> Self {
        Self {
            service: None,
            correlation_header: names::header::CORRELATION_ID.into(),
            deadline_header: names::header::REQUEST_TIMEOUT_MS.into(),
            service_header: names::header::SERVICE_NAME.into(),
            format: CorrelationFormat::default(),
            traces: true,
            clock: SystemClock::shared(),
        }
    }
}

impl Propagation {
    /// Names the service that sends, for `X-Service-Name` and for new correlation ids.
    #[must_use]
    pub fn with_service(mut self, service: &str) -> Self {
        self.service = Some(service.into());
        self
    }

    /// Another header than `X-Correlation-ID`.
    #[must_use]
    pub fn with_correlation_header(mut self, name: &str) -> Self {
        self.correlation_header = name.into();
        self
    }

    /// Another header than `X-Request-Timeout-Ms` for the time remaining.
    #[must_use]
    pub fn with_deadline_header(mut self, name: &str) -> Self {
        self.deadline_header = name.into();
        self
    }

    /// Another header than `X-Service-Name` for the service that sends.
    #[must_use]
    pub fn with_service_header(mut self, name: &str) -> Self {
        self.service_header = name.into();
        self
    }

    /// How new correlation ids look.
    #[must_use]
    pub fn with_format(mut self, format: CorrelationFormat) -> Self {
        self.format = format;
        self
    }

    /// Whether `traceparent` and `tracestate` are written; the correlation id always is. Default true. What others send
    /// is read all the same.
    #[must_use]
    pub fn with_tracing(mut self, on: bool) -> Self {
        self.traces = on;
        self
    }

    /// Whether `traceparent` and `tracestate` are written.
    #[must_use]
    pub fn is_tracing(&self) -> bool {
        self.traces
    }

    /// The header of the correlation id.
    #[must_use]
    pub fn correlation_header(&self) -> &str {
        &self.correlation_header
    }

    /// The header of the time remaining, in whole milliseconds.
    #[must_use]
    pub fn deadline_header(&self) -> &str {
        &self.deadline_header
    }

    /// The header of the service that sends.
    #[must_use]
    pub fn service_header(&self) -> &str {
        &self.service_header
    }

    /// The sending service, if it has a name.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.service.as_deref()
    }

    /// A new context whose correlation id has the configured format.
    #[must_use]
    pub fn new_context(&self) -> Context {
        let service = self.service.as_deref().unwrap_or("trunkline");
        Context::with_id(self.format.generate(service, self.clock.as_ref()))
    }

    /// The context of the running scope, or a new one in the configured format.
    #[must_use]
    pub fn current_or_new(&self) -> Context {
        Context::current().unwrap_or_else(|| self.new_context())
    }

    /// Writes the context and the own service's name into headers. The deadline is written as the time that remains
    /// now, so that clocks need not agree.
    pub fn inject(&self, context: &Context, carrier: &mut impl Carrier) {
        carrier.write(&self.correlation_header, context.correlation_id().as_str());
        if self.traces {
            carrier.write(names::header::TRACEPARENT, &context.trace().traceparent());
            if let Some(state) = context.trace().tracestate() {
                carrier.write(names::header::TRACESTATE, state);
            }
        }
        if !context.baggage().is_empty() {
            carrier.write(names::header::BAGGAGE, &context.baggage().to_header());
        }
        if let Some(remaining) = context.remaining() {
            carrier.write(&self.deadline_header, &remaining.as_millis().to_string());
        }
        if let Some(service) = &self.service {
            carrier.write(&self.service_header, service);
        }
    }

    /// Reads a context from headers. What is absent is made new; what is malformed is replaced and logged.
    #[must_use]
    pub fn extract(&self, carrier: &impl Carrier) -> Context {
        let foreign = carrier.read(&self.correlation_header);
        let mut context = match foreign.and_then(CorrelationId::accept) {
            Some(id) => Context::with_id(id),
            None => {
                if carrier.has(&self.correlation_header) {
                    tracing::warn!(
                        target: names::target::ROOT, length = foreign.map(str::len),
                        "a correlation id that is not 1 to 128 visible ASCII characters was replaced"
                    );
                }
                self.new_context()
            }
        };
        let parent = carrier.read(names::header::TRACEPARENT).and_then(|parent| {
            TraceContext::parse(parent, carrier.read(names::header::TRACESTATE))
        });
        if let Some(parent) = parent {
            // The sender's span is the parent of what happens here.
            context = context.with_trace(parent.child());
        }
        if let Some(baggage) = carrier.read(names::header::BAGGAGE) {
            context = context.with_baggage(Baggage::parse(baggage));
        }
        if let Some(service) = carrier.read(&self.service_header) {
            context = context.with_identity(Identity::claimed(service));
        }
        match self.remaining(carrier) {
            Some(remaining) => context.with_timeout(remaining),
            None => context,
        }
    }

    /// The time remaining as the headers say it: ours in milliseconds, or `grpc-timeout`.
    fn remaining(&self, carrier: &impl Carrier) -> Option<Duration> {
        let own = carrier
            .read(&self.deadline_header)
            .and_then(|text| text.trim().parse().ok());
        own.map(Duration::from_millis).or_else(|| {
            carrier
                .read(names::header::GRPC_TIMEOUT)
                .and_then(grpc_timeout)
        })
    }
}

/// The `grpc-timeout` header: up to eight digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let fits = (1..=8).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_digit());
    let count: u64 = digits.parse().ok().filter(|_| fits)?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}
