//! Errors of the driver as ours.

use lapin::ErrorKind as Driver;
use trunkline_core::{Error, ErrorKind, Retry};

/// Reply codes of AMQP and RabbitMQ.
mod code {
    pub(super) const CONTENT_TOO_LARGE: u16 = 311;
    pub(super) const NO_ROUTE: u16 = 312;
    pub(super) const CONNECTION_FORCED: u16 = 320;
    pub(super) const INVALID_PATH: u16 = 402;
    pub(super) const ACCESS_REFUSED: u16 = 403;
    pub(super) const NOT_FOUND: u16 = 404;
    pub(super) const RESOURCE_LOCKED: u16 = 405;
    pub(super) const PRECONDITION_FAILED: u16 = 406;
    pub(super) const RESOURCE_ERROR: u16 = 506;
    pub(super) const NOT_ALLOWED: u16 = 530;
    pub(super) const NOT_IMPLEMENTED: u16 = 540;
    pub(super) const INTERNAL_ERROR: u16 = 541;
}

/// What the driver says, as an error of ours. The caller says whether it may be repeated where it knows better: here it is
/// only certain when nothing can have been sent.
pub(crate) fn from_driver(operation: &'static str, error: lapin::Error) -> Error {
    let (kind, retry) = classify(error.kind());
    let text = match error.kind() {
        // The server's own words: they name the queue or exchange.
        Driver::ProtocolError(amqp) => format!("{operation}: {}", amqp.get_message()),
        _ => format!("{operation} failed"),
    };
    Error::new(kind, text)
        .with_retry(retry)
        .with_operation(operation)
        .with_source(error)
}

fn classify(error: &Driver) -> (ErrorKind, Retry) {
    match error {
        Driver::ProtocolError(amqp) => of_code(amqp.get_id()),
        Driver::ChannelsLimitReached => (ErrorKind::Exhausted, Retry::Safe),
        Driver::AuthProviderError(_) => (ErrorKind::Unauthenticated, Retry::Never),
        Driver::InvalidProtocolVersion(_) => (ErrorKind::Unsupported, Retry::Never),
        Driver::SerialisationError(_) => (ErrorKind::Invalid, Retry::Never),
        Driver::InvalidChannelState(..)
        | Driver::InvalidConnectionState(_)
        | Driver::InvalidChannel(_)
        | Driver::IOError(_)
        | Driver::RuntimeShutdownError(_)
        | Driver::ParsingError(_)
        | Driver::MissingHeartbeatError => (ErrorKind::Unavailable, Retry::IfIdempotent),
        _ => (ErrorKind::Internal, Retry::Never),
    }
}

fn of_code(code: u16) -> (ErrorKind, Retry) {
    match code {
        code::CONTENT_TOO_LARGE => (ErrorKind::Invalid, Retry::Never),
        code::NO_ROUTE | code::NOT_FOUND => (ErrorKind::NotFound, Retry::Never),
        code::ACCESS_REFUSED | code::NOT_ALLOWED | code::INVALID_PATH => {
            (ErrorKind::Denied, Retry::Never)
        }
        code::RESOURCE_LOCKED | code::PRECONDITION_FAILED => (ErrorKind::Conflict, Retry::Never),
        code::RESOURCE_ERROR => (ErrorKind::Exhausted, Retry::IfIdempotent),
        code::NOT_IMPLEMENTED => (ErrorKind::Unsupported, Retry::Never),
        code::CONNECTION_FORCED | code::INTERNAL_ERROR => {
            (ErrorKind::Unavailable, Retry::IfIdempotent)
        }
        _ => (ErrorKind::Internal, Retry::Never),
    }
}

/// Why a connection could not be made.
pub(crate) fn connecting(error: lapin::Error) -> Error {
    if let Driver::ProtocolError(amqp) = error.kind()
        && amqp.get_id() == code::ACCESS_REFUSED
    {
        // The server's words name the mechanism and the user, never the password.
        return Error::unauthenticated(format!("login refused: {}", amqp.get_message()))
            .with_source(error);
    }
    let error = from_driver("connect", error);
    match error.kind() {
        ErrorKind::Unavailable => error.with_retry(Retry::Safe),
        _ => error,
    }
}

/// Whether the driver refused before it sent anything.
pub(crate) fn is_unsent(error: &lapin::Error) -> bool {
    matches!(error.kind(), Driver::InvalidChannelState(_, operation) if *operation == "basic.publish")
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;

    #[test]
    fn reply_codes_have_kinds() {
        let table = [
            (311, ErrorKind::Invalid),
            (312, ErrorKind::NotFound),
            (320, ErrorKind::Unavailable),
            (402, ErrorKind::Denied),
            (403, ErrorKind::Denied),
            (404, ErrorKind::NotFound),
            (405, ErrorKind::Conflict),
            (406, ErrorKind::Conflict),
            (506, ErrorKind::Exhausted),
            (530, ErrorKind::Denied),
            (540, ErrorKind::Unsupported),
            (541, ErrorKind::Unavailable),
        ];
        for (code, kind) in table {
            let amqp = AMQPError::from_id(code, "no queue 'x'".into()).unwrap();
            let error = from_driver("declare", Driver::ProtocolError(amqp).into());
            assert_eq!(error.kind(), kind, "{code}");
            assert!(error.message().contains("no queue 'x'"), "{error}");
        }
    }

    #[test]
    fn what_may_have_been_sent_is_repeated_only_if_idempotent() {
        for driver in [
            Driver::MissingHeartbeatError,
            Driver::InvalidChannel(3),
            lapin::Error::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe))
                .kind()
                .clone(),
        ] {
            let error = from_driver("publish", driver.into());
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert_eq!(error.retry(), Retry::IfIdempotent);
        }
    }

    #[test]
    fn a_refused_login_is_not_a_refused_permission() {
        let refused = AMQPError::from_id(403, "PLAIN login refused: user 'x'".into()).unwrap();
        let error = connecting(Driver::ProtocolError(refused).into());
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    }
}
