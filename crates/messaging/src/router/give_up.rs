//! Dead letters: messages that no attempt could handle.

use std::time::Duration;

use trunkline_core::names::message_header as header;
use trunkline_core::{ErrorKind, Metadata, Result};

use super::consumer::Consumer;
use super::decide::Reason;
use super::error::HandlerError;
use super::incoming::Incoming;
use crate::broker::MessageBroker;
use crate::delivery::{Delivery, Settlement};
use crate::message::{Message, Publish};
use crate::topic::Destination;

/// Longest text of an error in a header, in bytes.
const LONGEST_ERROR: usize = 2_000;
/// The pause before a dead letter that could not be kept is tried again.
const PAUSE: Duration = Duration::from_secs(1);

impl Consumer {
    /// Moves a message to the dead letters. It is never dropped while they are kept: when it cannot be moved, it comes
    /// again and is moved then.
    pub(super) async fn give_up(
        &self,
        delivery: Delivery,
        incoming: &Incoming,
        reason: Reason,
        error: &HandlerError,
    ) {
        self.metrics.dead_lettered(reason.as_str());
        let Some(queue) = self.dead_letters.clone() else {
            tracing::error!(
                target: "trunkline",
                handler = &*self.name,
                group = self.group.as_deref(),
                destination = %incoming.destination(),
                message_id = %incoming.message.id,
                attempts = incoming.attempt,
                reason = reason.as_str(),
                error = %error.report(),
                "a message was given up; no dead letters are kept for this handler"
            );
            return self.settled(delivery.reject().await, "reject");
        };
        let message = self.letter(delivery.message(), incoming, reason, error);
        let publish = Publish::new(queue.clone(), message);
        tracing::error!(
            target: "trunkline",
            handler = &*self.name,
            group = self.group.as_deref(),
            destination = %incoming.destination(),
            message_id = %incoming.message.id,
            attempts = incoming.attempt,
            reason = reason.as_str(),
            error = %error.report(),
            dead_letters = %queue,
            "a message became a dead letter"
        );
        if let Err(error) = self.replace(delivery, publish).await {
            tracing::error!(
                target: "trunkline",
                handler = &*self.name,
                message_id = %incoming.message.id,
                error = %error.report(),
                "a dead letter could not be kept; it will be tried again"
            );
            // The message is on its way back already: do not spin.
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// The message with what is known of its end. One that leaves too little room for that keeps what fits: the
    /// message matters more.
    fn letter(
        &self,
        message: &Message,
        incoming: &Incoming,
        reason: Reason,
        error: &HandlerError,
    ) -> Message {
        let report = error.report();
        for text in [shortened(&report, LONGEST_ERROR), shortened(&report, 100)] {
            let mut letter = message.clone();
            letter.headers.remove(header::COPY);
            self.describe(&mut letter.headers, incoming, reason);
            letter.headers.insert(header::DEAD_ERROR, text);
            if self.fits(&letter) {
                return letter;
            }
        }
        // What it takes to try it again.
        let mut letter = message.clone();
        letter.headers.remove(header::COPY);
        letter.headers.insert(header::DEAD_REASON, reason.as_str());
        let source = self.source.to_string();
        letter.headers.insert(header::DEAD_SOURCE, source);
        if self.fits(&letter) {
            return letter;
        }
        message.clone()
    }

    fn describe(&self, headers: &mut Metadata, incoming: &Incoming, reason: Reason) {
        headers.insert(header::DEAD_REASON, reason.as_str());
        headers.insert(header::ATTEMPTS, incoming.attempt.to_string());
        headers.insert(header::ORIGIN, incoming.destination().to_string());
        headers.insert(header::DEAD_SOURCE, self.source.to_string());
        headers.insert(header::DEAD_HANDLER, &*self.name);
        headers.insert(header::DEAD_AT, self.around.clock.now().to_string());
        if let Some(group) = &self.group {
            headers.insert(header::DEAD_GROUP, group.as_str());
        }
    }

    /// Publishes something in place of a delivery: in one step where the broker can, else first the one, then the
    /// other, so that a crash in between repeats and does not lose. A queue that is not there is made.
    pub(super) async fn replace(&self, delivery: Delivery, publish: Publish) -> Result<()> {
        if self.around.capabilities.atomic_forward {
            let queue = publish.destination.clone();
            let forward = Settlement::Forward(Box::new(publish));
            let outcome = delivery.settle(forward).await;
            if outcome
                .as_ref()
                .is_err_and(|e| e.kind() == ErrorKind::NotFound)
            {
                self.declare(&queue).await;
            }
            return outcome;
        }
        let queue = publish.destination.clone();
        let context = Self::aftermath(&trunkline_core::Context::current_or_new());
        let publisher = &self.publisher;
        let send = async {
            match publisher.forward(publish.clone(), context.clone()).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.declare(&queue).await;
                    publisher.forward(publish, context).await
                }
                other => other,
            }
        };
        let sent = self.meanwhile(&delivery, send).await;
        match sent {
            Ok(_) => delivery.ack().await,
            Err(error) => {
                self.settled(delivery.nack(None).await, "nack");
                Err(error)
            }
        }
    }

    async fn declare(&self, queue: &Destination) {
        if let Err(error) = self.around.broker.declare(queue.clone()).await {
            tracing::warn!(
                target: "trunkline",
                queue = %queue,
                error = %error.report(),
                "a queue could not be declared"
            );
        }
    }
}

fn shortened(text: &str, longest: usize) -> String {
    let mut text = text.to_owned();
    if text.len() > longest {
        let end = text.floor_char_boundary(longest);
        text.truncate(end);
        text.push('…');
    }
    // Headers of most brokers are lines.
    text.replace(['\r', '\n'], " ")
}
