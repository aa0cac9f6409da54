//! The keys of one broker.

use std::sync::Arc;

use trunkline_core::Result;

use super::encryption::Encryption;
use super::signing::Signing;
use super::{Demands, EncryptionConfig, SigningConfig, unopened};
use crate::message::Message;
use crate::topic::Destination;

/// What messages are encrypted and signed with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    encryption: Option<Arc<Encryption>>,
    signing: Option<Arc<Signing>>,
}

impl Keys {
    pub(crate) fn encrypt_by(&mut self, config: &EncryptionConfig) -> Result<()> {
        self.encryption = Some(Arc::new(Encryption::new(config)?));
        Ok(())
    }

    pub(crate) fn sign_by(&mut self, config: &SigningConfig) -> Result<()> {
        self.signing = Some(Arc::new(Signing::new(config)?));
        Ok(())
    }

    /// What messages from a destination must be; from one that is not known for sure, what any must be.
    pub(crate) fn demands(&self, destination: Option<&Destination>) -> Demands {
        let (encryption, signing) = (self.encryption.as_ref(), self.signing.as_ref());
        Demands {
            encrypted: encryption.is_some_and(|keys| keys.demands(destination)),
            signed: signing.is_some_and(|keys| keys.demands(destination)),
        }
    }

    /// What a message to a destination is made, which is no less than it demands itself.
    pub(crate) fn plan(&self, to: &Destination, demands: Demands) -> Demands {
        let (encryption, signing) = (self.encryption.as_ref(), self.signing.as_ref());
        Demands {
            encrypted: demands.encrypted || encryption.is_some_and(|keys| keys.applies(to)),
            signed: signing
                .is_some_and(|keys| keys.applies(to) || (demands.signed && keys.can_sign())),
        }
    }

    pub(crate) fn seal(&self, message: &mut Message, to: &Destination) -> Result<()> {
        match &self.encryption {
            Some(encryption) => encryption.seal(message, to),
            None => Err(super::no_key()),
        }
    }

    pub(crate) fn sign(&self, message: &mut Message, to: &Destination) -> Result<()> {
        match &self.signing {
            Some(signing) => signing.sign(message, to),
            None => Err(super::no_key()),
        }
    }

    /// Verifies a signature. Without any keys of signatures nobody asks for them.
    pub(crate) fn verify(&self, message: &mut Message, to: &Destination) -> Result<()> {
        match &self.signing {
            Some(signing) => signing.verify(message, to),
            None => Ok(()),
        }
    }

    pub(crate) fn open(&self, message: &mut Message, to: &Destination) -> Result<()> {
        match &self.encryption {
            Some(encryption) => encryption.open(message, to),
            None => Err(unopened(message)),
        }
    }
}
