//! Why there is no connection.

use std::time::Duration;
use std::{fmt, io};

use rustix::io::Errno;
use trunkline_core::{BoxError, Error, Retry, duration};

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectStage {
    /// Looking up the host name.
    Resolve,
    /// Opening the socket.
    Connect,
    /// Asking a proxy for a way.
    Proxy,
    /// Agreeing on encryption.
    Tls,
    /// Agreeing on HTTP.
    Handshake,
}

impl ConnectStage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "looking up the host",
            Self::Connect => "connecting",
            Self::Proxy => "asking the proxy for a way",
            Self::Tls => "the TLS handshake",
            Self::Handshake => "the HTTP handshake",
        }
    }
}

/// There is no connection: nothing was sent. A typed cause of errors of this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectFailed {
    /// `host:port`, or the path of a socket.
    pub authority: String,
    /// How far it came.
    pub stage: ConnectStage,
    /// The limit that ended it, if one did.
    pub timeout: Option<Duration>,
    /// Whether the reason lies on this side, such as too many open files or a proxy that cannot be reached or does not take who
    /// asks: it says nothing about the other side.
    pub is_local: bool,
    /// The cause as text: what a system or TLS error says cannot be copied.
    cause: String,
}

impl fmt::Display for ConnectFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed", self.stage.as_str())?;
        match self.timeout {
            Some(limit) => write!(f, ": not done within {}", duration::format(limit)),
            None => write!(f, ": {}", self.cause),
        }
    }
}

impl std::error::Error for ConnectFailed {}

impl ConnectFailed {
    /// The error of a connection that could not be made.
    pub(crate) fn error(
        authority: impl fmt::Display,
        stage: ConnectStage,
        cause: impl Into<BoxError>,
    ) -> Error {
        let cause = cause.into();
        let failed = Self {
            authority: authority.to_string(),
            stage,
            timeout: None,
            is_local: is_local(cause.as_ref()),
            cause: chain(cause.as_ref()),
        };
        failed.into_error()
    }

    /// The error of a connection that a proxy let nobody ask for: there is no way to it, or it does not take who asks.
    pub(crate) fn before_the_proxy(
        authority: impl fmt::Display,
        cause: impl Into<BoxError>,
    ) -> Error {
        let failed = Self {
            authority: authority.to_string(),
            stage: ConnectStage::Proxy,
            timeout: None,
            is_local: true,
            cause: chain(cause.into().as_ref()),
        };
        failed.into_error()
    }

    /// The error of a connection that was not made in time.
    pub(crate) fn timed_out(
        authority: impl fmt::Display,
        stage: ConnectStage,
        limit: Duration,
    ) -> Error {
        let failed = Self {
            authority: authority.to_string(),
            stage,
            timeout: Some(limit),
            is_local: false,
            cause: String::new(),
        };
        failed.into_error()
    }

    /// The error of whoever waited for this connection.
    pub(crate) fn into_error(self) -> Error {
        let error = match self.timeout {
            None => Error::unavailable(format!("cannot connect to {}", self.authority)),
            Some(_) => Error::timeout(format!("cannot connect to {} in time", self.authority)),
        };
        error.with_retry(Retry::Safe).with_source(self)
    }
}

/// Whether the system refused something to this process: files, ports or memory.
fn is_local(error: &(dyn std::error::Error + 'static)) -> bool {
    const OURS: [Errno; 6] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::ADDRNOTAVAIL,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ACCESS,
    ];
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut codes = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    codes.any(|code| OURS.iter().any(|ours| ours.raw_os_error() == code))
}

/// An error and its causes on one line, each said once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}
