//! Declarations that the server refuses: what could not be declared, why, and what would be right.

use std::fmt;

use lapin::ErrorKind as Driver;
use trunkline_core::{Error, Retry};

use crate::topology::Item;

/// Why something could not be declared: the cause of errors of declarations, to be had with [`Error::find`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// What: `queue work`, `exchange orders`, `binding of queue work to exchange orders by a.*`.
    pub what: String,
    /// Where: the virtual host.
    pub virtual_host: String,
    /// The server's reply code, such as 406.
    pub code: u16,
    /// The server's words.
    pub says: String,
    /// What would be right.
    pub remedy: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            virtual_host,
            says,
            remedy,
            ..
        } = self;
        write!(
            f,
            "the {what} cannot be declared in the virtual host {virtual_host}: {says}; {remedy}"
        )
    }
}

impl std::error::Error for Refused {}

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;

/// What the server refused for as long as nobody changes something: not what a connection in trouble says.
fn reply(error: &Error) -> Option<(u16, String)> {
    if error.retry() != Retry::Never {
        return None;
    }
    match error.find::<lapin::Error>()?.kind() {
        Driver::ProtocolError(amqp) => Some((amqp.get_id(), amqp.get_message().to_string())),
        _ => None,
    }
}

/// Whether a declaration is impossible as things are.
pub(crate) fn is_refusal(error: &Error) -> bool {
    error.find::<Refused>().is_some() || reply(error).is_some()
}

/// Says of an error of a declaration what it was about, where the server refused it.
pub(crate) fn explained(error: Error, item: &Item, virtual_host: &str, user: &str) -> Error {
    let Some((code, says)) = reply(&error) else {
        return error;
    };
    let remedy = match code {
        ACCESS_REFUSED => format!(
            "the user {user} needs the permission to configure it, and of a binding to write to what gets and to read from \
             the exchange; or declare nothing that others own"
        ),
        NOT_FOUND => "declare what it names first".to_owned(),
        RESOURCE_LOCKED => "another connection has it for itself; choose another name".to_owned(),
        PRECONDITION_FAILED => {
            "it exists with other properties: declare it as it is, or delete it first".to_owned()
        }
        _ => "the server does not know it in this form; see its plugins and policies".to_owned(),
    };
    let refused = Refused {
        what: item.to_string(),
        virtual_host: virtual_host.to_owned(),
        code,
        says,
        remedy,
    };
    let (kind, operation) = (error.kind(), "declare");
    Error::new(kind, refused.to_string())
        .with_retry(Retry::Never)
        .with_operation(operation)
        .with_source(refused)
}

/// The error of something that depends on a declaration that was refused before.
pub(crate) fn again(refused: &Error) -> Error {
    let again = Error::new(refused.kind(), refused.message().to_owned()).with_retry(Retry::Never);
    match refused.find::<Refused>() {
        Some(cause) => again.with_source(cause.clone()),
        None => again,
    }
}
