//! Deliveries in the hands of consumers: who may still settle them, and until when.
//!
//! The server takes a late acknowledgement, even one of a consumer that lost the message to another. So leases are kept
//! here: after its lease a delivery cannot be settled any more and is given back, and the server, which waits a little
//! longer, gives it to another only when this process is not there to do so.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::{Error, ErrorKind, Result, Retry};

use super::inlet::Inlet;
use super::untried::Untried;
use crate::error::closed;
use crate::link::{Link, Up};

/// Between two attempts to tell the server.
const PAUSE: Duration = Duration::from_millis(100);
/// A server that was killed may have forgotten that it had handed a message out, and then says nothing to its
/// acknowledgement until it has handed it out again. So one that stays without an answer is repeated.
const REPEAT: Duration = Duration::from_secs(1);
/// How long a consumer may take to come back after its server did.
const RECOVERY: Duration = Duration::from_secs(15);
/// So long before the server's patience ends it is told that work goes on.
const EARLY: Duration = Duration::from_secs(1);

/// What the server is told about a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Ack,
    Nak(Option<Duration>),
    Term,
    Progress,
}

impl Word {
    fn payload(self) -> Bytes {
        match self {
            Self::Ack => Bytes::from_static(b"+ACK"),
            Self::Nak(None) => Bytes::from_static(b"-NAK"),
            Self::Nak(Some(delay)) => {
                format!("-NAK {{\"delay\": {}}}", delay.as_nanos().max(1)).into()
            }
            Self::Term => Bytes::from_static(b"+TERM"),
            Self::Progress => Bytes::from_static(b"+WPI"),
        }
    }

    /// Whether it changes nothing to say it again, even when somebody else has the message by then.
    const fn is_final(self) -> bool {
        matches!(self, Self::Ack | Self::Term)
    }
}

/// A delivery as the server knows it.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// Where it is settled.
    pub(crate) reply: Subject,
    pub(crate) stream: Arc<str>,
    pub(crate) consumer: Arc<str>,
    pub(crate) position: u64,
    /// How long the server waits for a word.
    pub(crate) patience: Duration,
    /// When it gives the message to another, at the earliest.
    pub(crate) server_until: Instant,
}

#[derive(Debug)]
struct Held {
    token: Token,
    until: Instant,
    timer: Instant,
    inlet: Arc<Inlet>,
}

impl Held {
    /// When something is to be done about it.
    fn next_timer(&self) -> Instant {
        if self.token.server_until >= self.until + EARLY {
            return self.until;
        }
        let soon = self.token.patience / 3;
        let renew = self.token.server_until.checked_sub(soon.max(EARLY));
        renew.unwrap_or(self.token.server_until).min(self.until)
    }
}

#[derive(Debug, Default)]
struct Book {
    held: HashMap<u64, Held>,
    timers: BTreeSet<(Instant, u64)>,
    last: u64,
    closed: bool,
}

impl Book {
    fn take(&mut self, id: u64) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.timers.remove(&(held.timer, id));
        Some(held)
    }
}

/// All deliveries of one broker.
#[derive(Debug)]
pub(crate) struct Ledger {
    book: Mutex<Book>,
    /// What was given back before it was handed out.
    pub(crate) untried: Untried,
    earlier: Notify,
    words: mpsc::UnboundedSender<(Subject, Word)>,
}

impl Ledger {
    /// A ledger, and what is to be told without anybody waiting for it: see [`keep`].
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<(Subject, Word)>) {
        // As many at most as there are deliveries, which prefetch bounds.
        let (words, receiver) = mpsc::unbounded_channel();
        let ledger = Self {
            book: Mutex::default(),
            untried: Untried::default(),
            earlier: Notify::new(),
            words,
        };
        (Arc::new(ledger), receiver)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A delivery is handed out, its lease counted from now. `None` after `disconnect`.
    pub(crate) fn hand_out(
        &self,
        token: Token,
        lease: Duration,
        inlet: &Arc<Inlet>,
    ) -> Option<u64> {
        let mut book = self.book();
        if book.closed {
            return None;
        }
        book.last += 1;
        let (id, until) = (book.last, Instant::now() + lease);
        let mut held = Held {
            token,
            until,
            timer: until,
            inlet: Arc::clone(inlet),
        };
        held.timer = held.next_timer();
        let first = book
            .timers
            .first()
            .is_none_or(|(timer, _)| held.timer < *timer);
        book.timers.insert((held.timer, id));
        book.held.insert(id, held);
        drop(book);
        if first {
            self.earlier.notify_one();
        }
        Some(id)
    }

    /// Says something without waiting for an answer.
    pub(crate) fn tell(&self, reply: Subject, word: Word) {
        // Nobody listens after `disconnect`, which has told everything before.
        drop(self.words.send((reply, word)));
    }

    /// The holder wants to settle: from now on nobody else may.
    fn claim(&self, id: u64) -> Result<Claimed> {
        let mut book = self.book();
        match book.take(id) {
            Some(held) if held.until > Instant::now() => Ok(Claimed {
                token: held.token,
                until: held.until,
                slot: Slot(held.inlet),
            }),
            Some(held) => {
                drop(book);
                held.inlet.settled();
                self.tell(held.token.reply, Word::Nak(None));
                Err(lease_lost())
            }
            None if book.closed => Err(closed()),
            None => Err(lease_lost()),
        }
    }

    /// Settles and waits until the server knows.
    pub(crate) async fn settle(&self, link: &Link, id: u64, word: Word) -> Result<()> {
        let claimed = self.claim(id)?;
        let limit = link.deadline().min(claimed.until);
        let told = ask(link, &claimed.token, word, limit, &claimed.slot.0).await;
        told.map_err(|error| match error.kind() {
            // The lease has ended while the server could not be told: it does not hold any more.
            _ if Instant::now() >= claimed.until => lease_lost().with_source(error),
            ErrorKind::Cancelled => closed(),
            _ => error,
        })
    }

    /// Keeps a delivery for longer, counted from now.
    pub(crate) async fn extend(&self, link: &Link, id: u64, lease: Duration) -> Result<()> {
        let (token, inlet) = {
            let book = self.book();
            match book.held.get(&id) {
                Some(held) if held.until > Instant::now() => {
                    (held.token.clone(), Arc::clone(&held.inlet))
                }
                None if book.closed => return Err(closed()),
                Some(_) | None => return Err(lease_lost()),
            }
        };
        let limit = link.deadline().min(token.server_until);
        let asked = Instant::now();
        ask(link, &token, Word::Progress, limit, &inlet).await?;
        let mut book = self.book();
        let Some(mut held) = book.take(id) else {
            return Err(if book.closed { closed() } else { lease_lost() });
        };
        held.until = asked + lease;
        held.token.server_until = asked + held.token.patience;
        held.timer = held.next_timer();
        book.timers.insert((held.timer, id));
        book.held.insert(id, held);
        drop(book);
        self.earlier.notify_one();
        Ok(())
    }

    /// The holder has let go of it.
    pub(crate) fn abandon(&self, id: u64) {
        let held = self.book().take(id);
        if let Some(held) = held {
            held.inlet.settled();
            self.tell(held.token.reply, Word::Nak(Some(LEAVING)));
        }
    }

    /// A stored message was removed: whoever holds it cannot settle it any more.
    pub(crate) fn removed(&self, stream: &str, position: u64) {
        let mut book = self.book();
        let there = |held: &Held| held.token.position == position && *held.token.stream == *stream;
        let found: Vec<u64> = book
            .held
            .iter()
            .filter(|(_, held)| there(held))
            .map(|(id, _)| *id)
            .collect();
        let gone: Vec<Held> = found.into_iter().filter_map(|id| book.take(id)).collect();
        drop(book);
        for held in gone {
            held.inlet.settled();
        }
    }

    /// Gives back all that is held. Nothing is handed out after this.
    pub(crate) fn close(&self) -> Vec<Subject> {
        let mut book = self.book();
        book.closed = true;
        book.timers.clear();
        let held: Vec<Held> = book.held.drain().map(|(_, held)| held).collect();
        drop(book);
        held.into_iter()
            .map(|held| {
                held.inlet.settled();
                held.token.reply
            })
            .collect()
    }

    /// What has run out, or must be renewed, by now; and when to look again.
    fn due(&self) -> Option<Instant> {
        let mut book = self.book();
        loop {
            let now = Instant::now();
            let (timer, id) = *book.timers.first()?;
            if timer > now {
                return Some(timer);
            }
            let Some(mut held) = book.take(id) else {
                // Both are changed together.
                book.timers.remove(&(timer, id));
                continue;
            };
            if now >= held.until {
                held.inlet.settled();
                tracing::debug!(target: "trunkline", broker = "nats", position = held.token.position, "a lease ran out");
                self.tell(held.token.reply, Word::Nak(None));
                continue;
            }
            self.tell(held.token.reply.clone(), Word::Progress);
            held.token.server_until = now + held.token.patience;
            held.timer = held.next_timer().max(now + Duration::from_millis(50));
            book.timers.insert((held.timer, id));
            book.held.insert(id, held);
        }
    }
}

/// A delivery that is being settled.
struct Claimed {
    token: Token,
    until: Instant,
    slot: Slot,
}

/// Who drops a delivery most often ends as a whole: by then it fetches no more. Else it would get the message once more
/// itself, which counts as a delivery that nobody ever saw.
const LEAVING: Duration = Duration::from_millis(250);

/// A place among the unsettled ones, free when this is dropped.
struct Slot(Arc<Inlet>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.settled();
    }
}

/// Tells the server and waits until it has heard. What is said twice is heard once, so it is said again on the next
/// connection.
async fn ask(link: &Link, token: &Token, word: Word, limit: Instant, inlet: &Inlet) -> Result<()> {
    let patience = limit.min(Instant::now() + RECOVERY);
    loop {
        let up = link.ready(limit).await?;
        let until = match word.is_final() {
            true => limit.min(Instant::now() + REPEAT),
            false => limit,
        };
        let told = link.request(&up, until, token.reply.to_string(), word.payload());
        let told = tokio::select! {
            biased;
            told = told => told,
            // The server answers nothing for a consumer that is deleted meanwhile, and the message comes to nobody.
            () = inlet.gone() => return Ok(()),
        };
        match told {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= limit => return Err(error),
            // The consumer is not there: not yet again after a restart, or not any more.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if Instant::now() + PAUSE >= patience {
                    let text =
                        "the consumer of the delivery does not answer; the message may come again";
                    return Err(Error::unavailable(text)
                        .with_retry(Retry::IfIdempotent)
                        .with_source(error));
                }
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = inlet.gone() => return Ok(()),
                }
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) if error.kind() == ErrorKind::Timeout && word.is_final() => {}
            Err(error) => return Err(error),
        }
    }
}

fn lease_lost() -> Error {
    Error::conflict("the lease of the delivery has ended; the message goes to another")
        .with_retry(Retry::Never)
}

/// Says what nobody waits for, and ends leases, until it is told to stop.
pub(crate) async fn keep(
    ledger: Arc<Ledger>,
    link: Arc<Link>,
    mut words: mpsc::UnboundedReceiver<(Subject, Word)>,
    stop: CancellationToken,
) {
    loop {
        let next = ledger.due();
        let timer = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = ledger.earlier.notified() => {}
            () = timer => {}
            Some((reply, word)) = words.recv() => {
                let Some(up) = connection(&link, &stop).await else { break };
                say(&up, reply, word).await;
            }
        }
    }
    // What was said before the end is said; there may be no connection to say it on.
    words.close();
    let Some(up) = link.now() else { return };
    while let Ok((reply, word)) = words.try_recv() {
        say(&up, reply, word).await;
    }
}

async fn connection(link: &Link, stop: &CancellationToken) -> Option<Up> {
    tokio::select! {
        () = stop.cancelled() => link.now(),
        up = link.ready(Instant::now() + Duration::from_secs(24 * 60 * 60)) => up.ok(),
    }
}

pub(crate) async fn say(up: &Up, reply: Subject, word: Word) {
    if let Err(error) = up.client.publish(reply, word.payload()).await {
        // It comes again when the server's patience ends.
        tracing::debug!(target: "trunkline", broker = "nats", %error, "the server was not told");
    }
}
