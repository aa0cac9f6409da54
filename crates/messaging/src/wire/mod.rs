//! What is done to a message between the value and the broker, once for every broker: written for the wire by the
//! publisher, opened by the router before middleware and handler see it.
//!
//! In this order, and back: compressed → encrypted → put into the object store → signed → folded into a structured event.
//! What is kept on the way — dead letters, copies for another attempt — is the message as it was on the wire.

use std::sync::Arc;

use trunkline_core::Result;

use crate::claim::{self, ClaimCheck};
use crate::cloudevents::{self, CloudEventsMode};
use crate::compression::{self, CompressionConfig};
use crate::message::{Message, Publish};
use crate::protection::{Demands, Keys, Untrusted};
use crate::topic::Destination;

/// The steps that are configured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire {
    pub(crate) cloudevents: CloudEventsMode,
    pub(crate) compression: Option<CompressionConfig>,
    pub(crate) claim_check: Option<ClaimCheck>,
    pub(crate) keys: Keys,
}

impl Wire {
    /// Makes a message ready for the broker: as its destination asks for, and as this one does.
    pub(crate) async fn pack(
        &self,
        mut publish: Publish,
        mode: CloudEventsMode,
        demands: Demands,
    ) -> Result<Publish> {
        let plan = self.keys.plan(&publish.destination, demands);
        let message = &mut publish.message;
        if let Some(config) = &self.compression {
            compression::compress(config, message)?;
        }
        if plan.encrypted {
            self.keys.seal(message, &publish.destination)?;
        }
        let is_stored = match &self.claim_check {
            Some(check) => claim::store(check, message).await?,
            None => false,
        };
        if plan.signed {
            self.keys.sign(message, &publish.destination)?;
        }
        if mode == CloudEventsMode::Structured {
            // Where the very bytes of the payload matter from now on, or it is not what its type says.
            let is_compressed = compression::encoding(message).is_some();
            let verbatim = is_compressed || is_stored || plan != Demands::default();
            cloudevents::fold(message, verbatim)?;
        }
        Ok(publish)
    }

    /// Undoes what can be undone without waiting, so that the headers of the message are those that its sender meant. What
    /// cannot be read stays as it is, and fails when it is opened.
    pub(crate) fn unfold(message: &Arc<Message>) -> Arc<Message> {
        match cloudevents::unfold(message) {
            Ok(Some(unfolded)) => Arc::new(unfolded),
            Ok(None) | Err(_) => Arc::clone(message),
        }
    }

    /// Gives the message that was packed for a destination. What fails for good has an error whose retry class is `Never`.
    pub(crate) async fn open(
        &self,
        message: Arc<Message>,
        demands: Demands,
        meant_for: &Destination,
    ) -> Result<Arc<Message>> {
        if cloudevents::is_structured(&message) {
            // It was not unfolded, so it cannot be: this says why.
            cloudevents::unfold(&message)?;
        }
        let said = Demands::of(&message);
        if demands.signed && !said.signed {
            return Err(Untrusted::Unsigned.into());
        }
        if demands.encrypted && !said.encrypted {
            return Err(Untrusted::Unencrypted.into());
        }
        let is_claim = claim::is_claim(&message);
        let is_compressed = compression::encoding(&message).is_some();
        if said == Demands::default() && !is_claim && !is_compressed {
            return Ok(message);
        }
        let mut message = Arc::unwrap_or_clone(message);
        if said.signed {
            self.keys.verify(&mut message, meant_for)?;
        }
        if is_claim {
            claim::redeem(self.claim_check.as_ref(), &mut message).await?;
        }
        if said.encrypted {
            self.keys.open(&mut message, meant_for)?;
        }
        compression::decompress(self.compression.as_ref(), &mut message)?;
        Ok(Arc::new(message))
    }
}
