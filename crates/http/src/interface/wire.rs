//! What the values of an interface have to be so that they can travel.
//!
//! They are serde's traits, and nothing has to be done for them but what serde asks for. That they have names of their own
//! lets the compiler say of a type that cannot travel what to do about it, in place of a list of types that can.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that can be sent.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent in a request",
    label = "this cannot be written",
    note = "derive `serde::Serialize` for it"
)]
pub trait Sendable: Serialize {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> Sendable for T {}

/// A value that can be read from an answer.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from an answer",
    label = "this cannot be read",
    note = "derive `serde::Deserialize` for it; what is borrowed cannot be read from the network"
)]
pub trait Readable: DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned> Readable for T {}
