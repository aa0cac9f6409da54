//! Guards: whatever happens to a request, what it held goes back to the pool.

use std::sync::{Arc, Weak};
use std::task::{Context, Waker};

use tokio::time::Instant;

use super::Pool;
use crate::connect::ConnectFailed;
use crate::origin::Origin;
use crate::wire::{Driver, H1, H2, MOST_STREAMS};

/// The leave to have one connection open. Whoever dials holds it, then the connection.
#[derive(Debug)]
pub(crate) struct Place(Weak<Pool>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.place_freed();
        }
    }
}

/// A connection on its way: if it does not arrive, whoever waits for it has to know.
pub(super) struct Dialing<'a> {
    pool: &'a Arc<Pool>,
    origin: &'a Origin,
    place: Option<Place>,
    settled: bool,
}

impl<'a> Dialing<'a> {
    /// To be made of [`super::Grant::Dial`] alone: the place has been taken already.
    pub(super) fn new(pool: &'a Arc<Pool>, origin: &'a Origin) -> Self {
        Self {
            pool,
            origin,
            place: Some(Place(Arc::downgrade(pool))),
            settled: false,
        }
    }

    /// The place, for the connection to keep.
    pub(super) fn take_place(&mut self) -> Place {
        self.place.take().expect("it is taken once")
    }

    /// It arrived and carries one request at a time.
    pub(super) fn own(mut self) {
        self.settle(Some(false));
    }

    /// It arrived and is shared.
    pub(super) fn shared(mut self, handle: H2) -> StreamLease {
        self.settled = true;
        let now = Instant::now();
        let kept = handle.clone();
        let id = self
            .pool
            .with(|state, out| state.shared(self.origin, kept, MOST_STREAMS, now, out));
        StreamLease::new(self.pool, self.origin, id, handle)
    }

    /// It could not be made.
    pub(super) fn failed(mut self, why: &ConnectFailed) {
        self.settled = true;
        let now = Instant::now();
        self.pool
            .with(|state, out| state.dial_failed(self.origin, why, now, out));
    }

    fn settle(&mut self, shares: Option<bool>) {
        self.settled = true;
        let now = Instant::now();
        self.pool
            .with(|state, out| state.dialed(self.origin, shares, now, out));
    }
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.settle(None);
        }
    }
}

/// A connection of one's own for one exchange. Dropped in the middle of it, the connection is closed; after its end it
/// goes back to the pool.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<Pool>,
    origin: Origin,
    connection: Option<Box<H1>>,
}

impl Lease {
    pub(super) fn new(pool: &Arc<Pool>, origin: &Origin, connection: Box<H1>) -> Self {
        Self {
            pool: Arc::clone(pool),
            origin: origin.clone(),
            connection: Some(connection),
        }
    }

    pub(crate) fn connection(&mut self) -> &mut H1 {
        self.connection
            .as_mut()
            .expect("it is taken only by consuming the lease")
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Takes the connection out of the pool for good, to be driven by somebody else.
    pub(crate) fn detach(mut self) -> Option<Driver> {
        self.connection
            .take()
            .and_then(|connection| connection.into_driver())
    }

    /// The exchange is over as far as its user is concerned: keeps the connection if it is in a state to be kept, or
    /// comes into it by what has arrived already.
    pub(crate) fn finish(mut self) {
        if let Some(mut connection) = self.connection.take() {
            if !connection.is_idle() {
                connection.poll_drive(&mut Context::from_waker(Waker::noop()));
            }
            if connection.is_idle() {
                self.pool.checkin(&self.origin, connection);
            }
        }
    }
}

/// Room on a shared connection for one exchange.
#[derive(Debug)]
pub(crate) struct StreamLease {
    pool: Arc<Pool>,
    origin: Origin,
    id: u64,
    handle: H2,
    broken: bool,
    waiting: Option<Waiting>,
}

/// What an answer is waited for on.
#[derive(Debug)]
struct Waiting {
    /// Bytes that the whole connection had received when the request was handed over.
    received: u64,
    /// When whoever waits gives up.
    until: Option<Instant>,
}

impl StreamLease {
    pub(super) fn new(pool: &Arc<Pool>, origin: &Origin, id: u64, handle: H2) -> Self {
        Self {
            pool: Arc::clone(pool),
            origin: origin.clone(),
            id,
            handle,
            broken: false,
            waiting: None,
        }
    }

    pub(crate) fn handle(&self) -> &H2 {
        &self.handle
    }

    /// From now on an answer is waited for, until somebody gives up.
    pub(crate) fn begin(&mut self, until: Option<Instant>) {
        self.waiting = Some(Waiting {
            received: self.handle.received(),
            until,
        });
    }

    /// Something has come of it.
    pub(crate) fn answered(&mut self) {
        self.waiting = None;
    }

    /// The time to wait is over. A connection on which nothing at all came meanwhile is dead more likely than slow: the
    /// next request, maybe the same one again, gets another.
    pub(crate) fn timed_out(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.broken |= waiting.received == self.handle.received();
        }
    }

    /// The connection takes no further requests, whatever it says itself.
    pub(crate) fn mark_broken(&mut self) {
        self.broken = true;
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        let until = self.waiting.as_ref().and_then(|waiting| waiting.until);
        if until.is_some_and(|until| until <= Instant::now()) {
            self.timed_out();
        }
        let alive = !self.broken && !self.handle.is_closed();
        self.pool.stream_ended(&self.origin, self.id, alive);
    }
}
