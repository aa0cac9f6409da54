//! What a question to DNS comes to when there are no records.

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use trunkline_core::{Error, ErrorKind, Origin, Retry};

/// Why there are no records.
#[derive(Debug)]
pub(crate) enum Nothing {
    /// There are none: for how many seconds that may be believed, where it was said.
    None(Option<u32>),
    /// Nobody knows.
    Unknown(Error),
}

/// Tells an answer that there is nothing from one that is none.
pub(crate) fn told(error: NetError) -> Nothing {
    match &error {
        NetError::Dns(DnsError::NoRecordsFound(nothing)) => match nothing.response_code {
            // Somebody who only points elsewhere does not know.
            ResponseCode::NoError if nothing.soa.is_none() && nothing.ns.is_some() => {
                Nothing::Unknown(unavailable("the server refers to others", error))
            }
            ResponseCode::NoError | ResponseCode::NXDomain => Nothing::None(nothing.negative_ttl),
            code => Nothing::Unknown(unavailable(&format!("the server answered {code}"), error)),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => {
            Nothing::Unknown(unavailable(&format!("the server answered {code}"), error))
        }
        NetError::Timeout => {
            let late = Error::timeout("no server answered in time");
            Nothing::Unknown(late.with_retry(Retry::Safe))
        }
        _ => Nothing::Unknown(unavailable("no server answered", error)),
    }
}

fn unavailable(text: &str, error: NetError) -> Error {
    Error::new(ErrorKind::Unavailable, text.to_owned())
        .with_origin(Origin::Remote)
        .with_retry(Retry::Safe)
        .with_source(error)
}

pub(crate) fn ended() -> Error {
    Error::cancelled("the registry was shut down")
}

pub(crate) fn announces_nothing() -> Error {
    Error::unsupported("DNS announces nothing: its records are kept by others")
}
