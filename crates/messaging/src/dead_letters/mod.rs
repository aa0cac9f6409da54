//! Messages that no attempt could handle: looked at, mended, tried again, removed.
//!
//! The dead letters of a group are in the queue `<group>.dlq`, those of a queue in `<queue>.dlq`. A dead letter that is
//! tried again goes to the handler that gave it up, and to no other: to the retry queue of that handler, or back into
//! the queue it came from. Other groups of the topic do not see it again.

mod edit;
mod letter;
pub(crate) mod names;
mod replay;

use trunkline_core::{Error, Result};

pub use edit::Edit;
pub use letter::{DeadLetter, LetterFilter, LetterPage};
pub use replay::{Replay, ReplayReport};

use crate::broker::{Browse, BrowsePage, MessageBroker, QueueInfo};
use crate::erased::AnyBroker;
use crate::topic::{Destination, TopicName};
use names::dead_letter_queue;

/// Messages fetched at a time.
const PAGE: usize = 100;

/// The dead letters of one broker. Needs its capability `browse` or `peek`.
///
/// ```
/// use trunkline_messaging::memory::MemoryBroker;
/// use trunkline_messaging::{LetterFilter, MessageBroker, Messaging, Replay};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// # let broker = MemoryBroker::default().erase();
/// # broker.connect().await?;
/// # broker.declare(trunkline_messaging::Destination::Queue("mailer.dlq".parse()?)).await?;
/// let messaging = Messaging::new(broker);
/// let letters = messaging.dead_letters();
/// for letter in letters.list("mailer", &LetterFilter::default(), 0, 50).await?.letters {
///     println!("{} {}: {}", letter.position, letter.reason, letter.error);
/// }
/// let report = letters.replay("mailer", &Replay::default()).await?;
/// assert_eq!(report.replayed, 0);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct DeadLetters {
    broker: AnyBroker,
}

impl DeadLetters {
    /// The dead letters of a broker.
    #[must_use]
    pub fn new(broker: AnyBroker) -> Self {
        Self { broker }
    }

    /// The queues of dead letters that there are, with how many are in each.
    ///
    /// # Errors
    /// `Unsupported` when the broker cannot list queues; `Unavailable`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>> {
        let mut queues = self.broker.queues().await?;
        queues.retain(|queue| names::owner(&queue.name).is_some());
        Ok(queues)
    }

    /// Dead letters of a group or queue, oldest first: those behind a position (0 begins with the oldest) that pass the
    /// filter.
    ///
    /// # Errors
    /// `NotFound` when the group or queue has no dead letters and never had; `Unsupported`, `Unavailable`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn list(
        &self,
        owner: &str,
        filter: &LetterFilter,
        after: u64,
        limit: usize,
    ) -> Result<LetterPage> {
        let queue = queue_of(owner)?;
        let mut page = LetterPage::default();
        let mut after = after;
        loop {
            let found = self.page(&queue, owner, after).await?;
            page.total = found.total;
            for stored in found.messages {
                if page.letters.len() == limit {
                    page.next = Some(after);
                    return Ok(page);
                }
                let letter = DeadLetter::read(stored);
                after = letter.position;
                if filter.passes(&letter) {
                    page.letters.push(letter);
                }
            }
            match found.next {
                Some(next) => after = next,
                None => return Ok(page),
            }
        }
    }

    /// Some dead letters behind a position, whatever they are.
    async fn page(&self, queue: &TopicName, owner: &str, after: u64) -> Result<BrowsePage> {
        let browse = Browse::new(Destination::Queue(queue.clone()));
        let found = self.broker.browse(browse.after(after).with_limit(PAGE));
        found.await.map_err(|error| explain(error, owner))
    }

    /// One dead letter by its position.
    ///
    /// # Errors
    /// `NotFound` when there is none; else as [`DeadLetters::list`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn show(&self, owner: &str, position: u64) -> Result<DeadLetter> {
        let before = position.saturating_sub(1);
        let page = self
            .list(owner, &LetterFilter::default(), before, 1)
            .await?;
        let found = page.letters.into_iter().next();
        found
            .filter(|letter| letter.position == position)
            .ok_or_else(|| {
                Error::not_found(format!("{owner} has no dead letter at position {position}"))
            })
    }

    /// Removes the dead letters that pass a filter and says how many.
    ///
    /// # Errors
    /// As [`DeadLetters::list`].
    ///
    /// # Cancel safety
    /// When dropped, some may be removed.
    pub async fn purge(&self, owner: &str, filter: &LetterFilter) -> Result<u64> {
        let queue = queue_of(owner)?;
        let (mut after, mut removed) = (0, 0);
        loop {
            let page = self.list(owner, filter, after, PAGE).await?;
            let positions: Vec<u64> = page.letters.iter().map(|one| one.position).collect();
            if !positions.is_empty() {
                removed += self.broker.remove(queue.clone(), positions).await?;
            }
            match page.next {
                Some(next) => after = next,
                None => return Ok(removed),
            }
        }
    }
}

/// The queue of a group's dead letters; its own name is understood too.
fn queue_of(owner: &str) -> Result<TopicName> {
    match TopicName::new(owner) {
        Ok(name) if names::owner(&name).is_some() => Ok(name),
        _ => dead_letter_queue(owner),
    }
}

fn explain(error: Error, owner: &str) -> Error {
    if error.kind() == trunkline_core::ErrorKind::NotFound {
        return Error::not_found(format!(
            "`{owner}` has no dead letters: there is no such group or queue, or no handler of it ever ran"
        ))
        .with_source(error);
    }
    error
}
