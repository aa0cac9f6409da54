//! The connections of one transport: how many there may be, which are kept, and who waits for one.

mod place;
mod state;

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use trunkline_core::task::Scope;
use trunkline_core::{Error, Result, duration};

pub(crate) use place::{Lease, Place, StreamLease};
pub use state::PoolStats;
use state::{Checkout, Discarded, Grant, State};
pub(crate) use state::{Limits, Pooled};

use crate::connect::{ConnectFailed, ConnectStage, Connector, Version};
use crate::origin::Origin;
use crate::wire::{H1, H2};

/// How often connections without a request are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// No connection became free in time: all of [`PoolTimeout::max_connections`] were in use. A typed cause of errors of
/// this crate; nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no connection became free within {}: all {max_connections} are in use", duration::format(*.waited))]
#[non_exhaustive]
pub struct PoolTimeout {
    /// The limit of connections.
    pub max_connections: usize,
    /// How long a free one was waited for.
    pub waited: Duration,
}

/// Too many requests wait for a connection already. A typed cause of errors of this crate; nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{waiting} requests wait for one of {max_connections} connections already")]
#[non_exhaustive]
pub struct PoolFull {
    /// The limit of connections.
    pub max_connections: usize,
    /// Requests that wait.
    pub waiting: usize,
}

/// A connection to make a request on.
pub(crate) enum Connection {
    Own(Lease),
    Shared(StreamLease),
}

/// A connection that was just made.
enum Opened {
    Own(Box<H1>),
    Shared(H2),
}

type Kept = State<Box<H1>, H2>;
type Out = Discarded<Box<H1>, H2>;

impl Pooled for Box<H1> {
    fn is_dead(&mut self) -> bool {
        self.as_mut().is_dead()
    }
}

pub(crate) struct Pool {
    state: Mutex<Kept>,
    limits: Limits,
    connector: Arc<Connector>,
    scope: Scope,
    sweeping: AtomicBool,
    /// A connection has gone; heard by who waits for the last one.
    freed: Notify,
    own: Weak<Self>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Pool {
    pub(crate) fn new(limits: Limits, connector: Arc<Connector>) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            state: Mutex::new(State::new(limits)),
            limits,
            connector,
            scope: Scope::new(),
            sweeping: AtomicBool::new(false),
            freed: Notify::new(),
            own: Weak::clone(own),
        })
    }

    pub(crate) fn stats(&self) -> PoolStats {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stats()
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Works on the state under the lock, and drops what it discards when the lock is free: a connection takes the lock
    /// itself when it is dropped.
    fn with<T>(&self, work: impl FnOnce(&mut Kept, &mut Out) -> T) -> T {
        let mut out = Discarded::default();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut state, &mut out);
        drop(state);
        drop(out);
        result
    }

    /// A connection that is there, if one is.
    pub(crate) fn ready(self: &Arc<Self>, origin: &Origin, now: Instant) -> Option<Connection> {
        match self.with(|state, out| state.ready(origin, now, out))? {
            Grant::Reuse(connection) => Some(self.own(origin, connection)),
            Grant::Stream(id, handle) => Some(self.stream(origin, id, handle)),
            Grant::Dial | Grant::Failed(_) | Grant::Closed => None,
        }
    }

    fn own(self: &Arc<Self>, origin: &Origin, connection: Box<H1>) -> Connection {
        Connection::Own(Lease::new(self, origin, connection))
    }

    fn stream(self: &Arc<Self>, origin: &Origin, id: u64, handle: H2) -> Connection {
        Connection::Shared(StreamLease::new(self, origin, id, handle))
    }

    /// A connection to an origin: one that is there, or a new one, waiting for leave to open it if need be.
    pub(crate) async fn connection(
        self: &Arc<Self>,
        origin: &Origin,
        waiting: Duration,
        connecting: Duration,
    ) -> Result<Connection> {
        let may_share = self.connector.may_share(origin);
        let now = Instant::now();
        let grant =
            match self.with(|state, out| state.checkout(origin, may_share, connecting, now, out)) {
                Checkout::Granted(grant) => grant,
                Checkout::Wait(receiver) => {
                    let limits = (waiting, connecting);
                    Box::pin(self.wait(origin, receiver, now, limits)).await?
                }
                Checkout::Full => return Err(self.full()),
            };
        match grant {
            Grant::Reuse(connection) => Ok(self.own(origin, connection)),
            Grant::Stream(id, handle) => Ok(self.stream(origin, id, handle)),
            Grant::Dial => self.dial(origin, connecting).await,
            Grant::Failed(why) => Err(why.into_error()),
            Grant::Closed => Err(Error::cancelled("the HTTP client is shut down")),
        }
    }

    /// Waits for a place as long as one may wait for that, and for a connection that somebody else opens as long as that may
    /// take.
    async fn wait(
        &self,
        origin: &Origin,
        receiver: oneshot::Receiver<Grant<Box<H1>, H2>>,
        since: Instant,
        (place, dial): (Duration, Duration),
    ) -> Result<Grant<Box<H1>, H2>> {
        let mut granted = Granted {
            pool: self,
            origin,
            receiver,
        };
        let mut limits = [place, dial];
        limits.sort_unstable();
        for limit in limits {
            if let Some(grant) = granted.until(crate::limits::after(since, limit)).await {
                return Ok(grant);
            }
            let awaits_dial = self.with(|state, _| state.awaits_dial(origin));
            let is_over = if awaits_dial {
                limit >= dial
            } else {
                limit >= place
            };
            if !is_over {
                continue;
            }
            if let Some(grant) = granted.last_look() {
                return Ok(grant);
            }
            return Err(if awaits_dial {
                ConnectFailed::timed_out(origin.authority(), ConnectStage::Connect, limit)
            } else {
                self.no_place(limit)
            });
        }
        // What was waited for has changed meanwhile: both times are over.
        let grant = granted.last_look();
        grant.ok_or_else(|| self.no_place(place.max(dial)))
    }

    fn no_place(&self, waited: Duration) -> Error {
        let timeout = PoolTimeout {
            max_connections: self.limits.open,
            waited,
        };
        Error::rejected("no free connection").with_source(timeout)
    }

    fn full(&self) -> Error {
        let full = PoolFull {
            max_connections: self.limits.open,
            waiting: self.limits.waiting,
        };
        Error::rejected("no free connection").with_source(full)
    }

    async fn dial(self: &Arc<Self>, origin: &Origin, limit: Duration) -> Result<Connection> {
        let mut dialing = place::Dialing::new(self, origin);
        let place = dialing.take_place();
        match self.open(origin, place, limit).await {
            Ok(Opened::Own(connection)) => {
                dialing.own();
                Ok(Connection::Own(Lease::new(self, origin, connection)))
            }
            Ok(Opened::Shared(handle)) => Ok(Connection::Shared(dialing.shared(handle))),
            Err(error) => {
                // Dropped, it lets the next one dial: what is no matter of connecting is told to each.
                if let Some(why) = error.find::<ConnectFailed>() {
                    dialing.failed(why);
                }
                Err(error)
            }
        }
    }

    async fn open(&self, origin: &Origin, place: Place, limit: Duration) -> Result<Opened> {
        let (stream, version) = self.connector.connect(origin, place, limit).await?;
        match version {
            Version::One => {
                let connection = H1::handshake(origin, stream).await?;
                Ok(Opened::Own(Box::new(connection)))
            }
            Version::Two => {
                let handshake = H2::handshake(origin, stream, &self.scope);
                let handle = tokio::time::timeout(limit, handshake).await.map_err(|_| {
                    let stage = ConnectStage::Handshake;
                    ConnectFailed::timed_out(origin.authority(), stage, limit)
                })??;
                Ok(Opened::Shared(handle))
            }
        }
    }

    fn give_back(&self, origin: &Origin, grant: Grant<Box<H1>, H2>) {
        let now = Instant::now();
        match grant {
            Grant::Reuse(connection) => self.checkin(origin, connection),
            Grant::Stream(id, handle) => self.stream_ended(origin, id, !handle.is_closed()),
            Grant::Dial => {
                self.with(|state, out| state.dialed(origin, None, now, out));
                self.place_freed();
            }
            Grant::Failed(_) | Grant::Closed => {}
        }
    }

    fn checkin(&self, origin: &Origin, mut connection: Box<H1>) {
        connection.mark_reused();
        let now = Instant::now();
        self.with(|state, out| state.checkin(origin, connection, now, out));
        self.sweep_later();
    }

    fn stream_ended(&self, origin: &Origin, id: u64, alive: bool) {
        let now = Instant::now();
        self.with(|state, out| state.stream_ended(origin, id, alive, now, out));
        self.sweep_later();
    }

    /// Looks through the connections without a request for as long as there are any.
    fn sweep_later(&self) {
        if self.sweeping.load(Ordering::Relaxed) || self.sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let (pool, stop) = (Weak::clone(&self.own), self.scope.token());
        self.scope.spawn("http-sweep", async move {
            loop {
                tokio::select! {
                    () = sleep(SWEEP) => {}
                    () = stop.cancelled() => return,
                }
                let Some(pool) = pool.upgrade() else { return };
                let now = Instant::now();
                if !pool.with(|state, out| state.expire(now, out)) {
                    pool.sweeping.store(false, Ordering::Release);
                    // One may have come back between the look and the flag.
                    if pool.stats().idle == 0 || pool.sweeping.swap(true, Ordering::AcqRel) {
                        return;
                    }
                }
            }
        });
    }

    fn place_freed(&self) {
        let now = Instant::now();
        self.with(|state, out| state.place_freed(now, out));
        self.freed.notify_waiters();
    }

    /// Nobody is to be found there any more.
    pub(crate) fn retire(&self, origin: &Origin) {
        self.with(|state, out| state.retire(origin, out));
    }

    /// Hands nothing out any more and closes what is not in use.
    pub(crate) fn close(&self) {
        self.with(State::close);
    }

    /// Waits until no connection is open; to be asked after [`Pool::close`].
    pub(crate) async fn emptied(&self) {
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.stats().open == 0 {
                return;
            }
            freed.await;
        }
    }
}

/// Something that may have been granted already when nobody waits for it any more: then it goes back.
struct Granted<'a> {
    pool: &'a Pool,
    origin: &'a Origin,
    receiver: oneshot::Receiver<Grant<Box<H1>, H2>>,
}

impl Granted<'_> {
    async fn until(&mut self, limit: Instant) -> Option<Grant<Box<H1>, H2>> {
        match timeout_at(limit, &mut self.receiver).await {
            Ok(Ok(grant)) => Some(grant),
            Ok(Err(_)) => Some(Grant::Closed),
            Err(_) => None,
        }
    }

    fn last_look(&mut self) -> Option<Grant<Box<H1>, H2>> {
        self.receiver.close();
        self.receiver.try_recv().ok()
    }
}

impl Drop for Granted<'_> {
    fn drop(&mut self) {
        if let Some(grant) = self.last_look() {
            self.pool.give_back(self.origin, grant);
        }
    }
}
