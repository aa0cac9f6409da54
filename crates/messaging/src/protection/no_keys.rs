//! What stands for keys in a build that has no use for them.
#![allow(
    clippy::unused_self,
    clippy::unnecessary_wraps,
    clippy::needless_pass_by_ref_mut,
    reason = "the same face as with the feature"
)]

use trunkline_core::{Error, Result};

use super::{Demands, EncryptionConfig, SigningConfig, unopened};
use crate::message::Message;
use crate::topic::Destination;

/// No keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys;

impl Keys {
    pub(crate) fn encrypt_by(&mut self, _: &EncryptionConfig) -> Result<()> {
        Err(left_out("encrypt"))
    }

    pub(crate) fn sign_by(&mut self, _: &SigningConfig) -> Result<()> {
        Err(left_out("sign"))
    }

    pub(crate) fn demands(&self, _: Option<&Destination>) -> Demands {
        Demands::default()
    }

    pub(crate) fn plan(&self, _: &Destination, demands: Demands) -> Demands {
        Demands {
            signed: false,
            ..demands
        }
    }

    pub(crate) fn seal(&self, _: &mut Message, _: &Destination) -> Result<()> {
        Err(super::no_key())
    }

    pub(crate) fn sign(&self, _: &mut Message, _: &Destination) -> Result<()> {
        Err(super::no_key())
    }

    pub(crate) fn verify(&self, _: &mut Message, _: &Destination) -> Result<()> {
        Ok(())
    }

    pub(crate) fn open(&self, message: &mut Message, _: &Destination) -> Result<()> {
        Err(unopened(message))
    }
}

fn left_out(what: &str) -> Error {
    Error::unsupported(format!(
        "this build cannot {what} messages: it was made without the feature `protection`"
    ))
}
