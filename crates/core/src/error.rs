//! One opaque error for every trait that a backend implements.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use crate::BoxError;

/// What went wrong, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The other side cannot be reached or says that it cannot serve now.
    Unavailable,
    /// The time allowed ran out.
    Timeout,
    /// The caller gave up, or the component is shutting down.
    Cancelled,
    /// Refused here before anything was sent: open circuit, full bulkhead, no instance.
    Rejected,
    /// The other side asks for fewer requests.
    RateLimited,
    /// The thing named does not exist.
    NotFound,
    /// It contradicts the present state: expected version, duplicate, lock.
    Conflict,
    /// Nobody, or nobody known, is asking.
    Unauthenticated,
    /// The one who asks may not do this.
    Denied,
    /// The input is wrong; the same input will be wrong again.
    Invalid,
    /// The configuration is wrong.
    #[doc(alias = "CommunicationConfigurationError")]
    Config,
    /// This backend or this build cannot do it.
    Unsupported,
    /// Something is full: a disk, a queue, a quota.
    Exhausted,
    /// A fault of ours or of the other side that fits nowhere else.
    Internal,
}

impl ErrorKind {
    /// The kind as one lower-case word, as metrics and JSON show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
            Self::RateLimited => "rate_limited",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Config => "config",
            Self::Unsupported => "unsupported",
            Self::Exhausted => "exhausted",
            Self::Internal => "internal",
        }
    }

    /// What to assume about a repetition when nobody who knows has said anything.
    const fn default_retry(self) -> Retry {
        match self {
            Self::Unavailable | Self::Timeout | Self::RateLimited => Retry::IfIdempotent,
            Self::Rejected => Retry::Safe,
            _ => Retry::Never,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the same operation may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// It would fail again, or must not happen twice.
    Never,
    /// Nothing was processed: repeating it cannot do it twice.
    Safe,
    /// It may have been processed: repeat it only if that does no harm.
    IfIdempotent,
}

/// On which side of the wire the error arose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// In this process.
    Local,
    /// At the other side, which answered.
    Remote,
}

/// The error of every Trunkline trait: one word wide, opaque, with typed causes.
///
/// `Display` shows the message alone; [`Error::report`] shows component, operation and the whole chain of causes.
///
/// ```
/// use trunkline_core::{Error, ErrorKind, Retry};
///
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// let error = Error::unavailable("cannot connect to 127.0.0.1:5672")
///     .with_component("message_broker_orders")
///     .with_retry(Retry::Safe)
///     .with_source(refused);
/// assert!(error.find::<std::io::Error>().is_some());
/// assert_eq!(error.to_string(), "cannot connect to 127.0.0.1:5672");
/// ```
#[doc(alias = "CommunicationError")]
pub struct Error(Box<Inner>);

const _: () = assert!(size_of::<Error>() == size_of::<usize>());

struct Inner {
    kind: ErrorKind,
    retry: Retry,
    origin: Origin,
    message: Cow<'static, str>,
    component: Option<Cow<'static, str>>,
    operation: Option<Cow<'static, str>>,
    context: Vec<(&'static str, String)>,
    source: Option<BoxError>,
}

macro_rules! shortcuts {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
            Self::new(ErrorKind::$kind, message)
        }
    )*};
}

impl Error {
    /// Makes an error of a kind. The message is lower case, has no final dot and never holds a secret.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            retry: kind.default_retry(),
            origin: Origin::Local,
            message: message.into(),
            component: None,
            operation: None,
            context: Vec::new(),
            source: None,
        }))
    }

    shortcuts! {
        /// An error of kind [`ErrorKind::Unavailable`].
        unavailable => Unavailable;
        /// An error of kind [`ErrorKind::Timeout`].
        timeout => Timeout;
        /// An error of kind [`ErrorKind::Cancelled`].
        cancelled => Cancelled;
        /// An error of kind [`ErrorKind::Rejected`].
        rejected => Rejected;
        /// An error of kind [`ErrorKind::RateLimited`].
        rate_limited => RateLimited;
        /// An error of kind [`ErrorKind::Unauthenticated`].
        unauthenticated => Unauthenticated;
        /// An error of kind [`ErrorKind::Denied`].
        denied => Denied;
        /// An error of kind [`ErrorKind::NotFound`].
        not_found => NotFound;
        /// An error of kind [`ErrorKind::Conflict`].
        conflict => Conflict;
        /// An error of kind [`ErrorKind::Invalid`].
        invalid => Invalid;
        /// An error of kind [`ErrorKind::Config`].
        config => Config;
        /// An error of kind [`ErrorKind::Unsupported`].
        unsupported => Unsupported;
        /// An error of kind [`ErrorKind::Exhausted`].
        exhausted => Exhausted;
        /// An error of kind [`ErrorKind::Internal`].
        internal => Internal;
    }

    /// Says whether a repetition is safe; only the place where it failed knows.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Says on which side it arose (default: here).
    #[must_use]
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.0.origin = origin;
        self
    }

    /// Names the component, by its key in the health document where it has one.
    #[must_use]
    pub fn with_component(mut self, component: impl Into<Cow<'static, str>>) -> Self {
        self.0.component = Some(component.into());
        self
    }

    /// Names what was being done.
    #[must_use]
    pub fn with_operation(mut self, operation: impl Into<Cow<'static, str>>) -> Self {
        self.0.operation = Some(operation.into());
        self
    }

    /// Adds a detail, shown by [`Error::report`].
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the operation may be repeated.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// On which side it arose.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// The message without causes.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The component it concerns.
    #[must_use]
    pub fn component(&self) -> Option<&str> {
        self.0.component.as_deref()
    }

    /// What was being done.
    #[must_use]
    pub fn operation(&self) -> Option<&str> {
        self.0.operation.as_deref()
    }

    /// The details added by [`Error::with_context`], in order.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0
            .context
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
    }

    /// Looks for a cause of type `E` along the chain of sources.
    ///
    /// ```
    /// # use trunkline_core::Error;
    /// # #[derive(Debug)] struct CircuitOpen; impl std::fmt::Display for CircuitOpen {
    /// #   fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("open") } }
    /// # impl std::error::Error for CircuitOpen {}
    /// let error = Error::rejected("circuit is open").with_source(CircuitOpen);
    /// assert!(error.find::<CircuitOpen>().is_some());
    /// ```
    #[must_use]
    pub fn find<E: StdError + 'static>(&self) -> Option<&E> {
        let mut next = self.source();
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<E>() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// The error with component, operation, details and every cause, on one line; a cause of several lines begins on a
    /// line of its own.
    #[must_use]
    pub fn report(&self) -> Report<'_> {
        Report(self)
    }

    /// Puts an error back that a layer of boxed errors handed on, or wraps a foreign one.
    #[must_use]
    pub fn from_boxed(error: BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => *own,
            Err(foreign) => Self::internal(foreign.to_string()).with_source(foreign),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind)
            .field("message", &self.0.message);
        out.field("retry", &self.0.retry)
            .field("origin", &self.0.origin);
        if let Some(component) = &self.0.component {
            out.field("component", component);
        }
        if let Some(operation) = &self.0.operation {
            out.field("operation", operation);
        }
        if !self.0.context.is_empty() {
            out.field("context", &self.0.context);
        }
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Shows an [`Error`] whole: `component: operation: message (key=value): cause: cause`.
#[derive(Debug)]
pub struct Report<'a>(&'a Error);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0.0;
        for part in [&inner.component, &inner.operation].into_iter().flatten() {
            write!(f, "{part}: ")?;
        }
        f.write_str(&inner.message)?;
        if !inner.context.is_empty() {
            let pairs: Vec<String> = inner
                .context
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            write!(f, " ({})", pairs.join(", "))?;
        }
        let mut shown = inner.message.to_string();
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Libraries often repeat the cause in their own message; once is enough.
            if !shown.contains(&text) {
                let begin = if text.contains('\n') { ":\n" } else { ": " };
                write!(f, "{begin}{text}")?;
                shown.push_str(&text);
            }
            next = cause.source();
        }
        Ok(())
    }
}
