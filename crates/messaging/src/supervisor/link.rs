//! The connection as it is now, and those who wait for it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, watch};
use trunkline_core::{Error, Result, Retry};

use super::connect::{Connect, Reconnect};

/// Which connection it is: each has a number greater than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    /// The number: 1 for the first connection.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Whether there is a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// No attempt has ended yet.
    Connecting,
    /// There is.
    Up,
    /// There is none; the supervisor goes on trying.
    Down {
        /// Why, in one line.
        reason: String,
    },
    /// There will be none any more.
    Closed,
}

/// The connection, for those who use it.
pub(super) enum Link<T> {
    Connecting,
    Up(T, Generation),
    /// The number of failures so far tells one from the next.
    Down(Arc<Error>, u64),
    Closed,
}

pub(super) struct Shared<C: Connect> {
    pub(super) connector: C,
    pub(super) settings: Reconnect,
    link: watch::Sender<Link<C::Connection>>,
    state: watch::Sender<LinkState>,
    condemned: watch::Sender<Option<(Generation, Arc<Error>)>>,
    /// Somebody asks for an attempt at once.
    pub(super) hurry: Notify,
    begun: AtomicBool,
}

impl<C: Connect> Shared<C> {
    pub(super) fn new(connector: C, settings: Reconnect) -> Self {
        Self {
            connector,
            settings,
            link: watch::Sender::new(Link::Connecting),
            state: watch::Sender::new(LinkState::Connecting),
            condemned: watch::Sender::new(None),
            hurry: Notify::new(),
            begun: AtomicBool::new(false),
        }
    }

    /// Whether this is the first time.
    pub(super) fn begin(&self) -> bool {
        !self.is_closed() && !self.begun.swap(true, Ordering::AcqRel)
    }

    pub(super) fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    fn is_closed(&self) -> bool {
        matches!(*self.link.borrow(), Link::Closed)
    }

    /// There is a connection. Gives it back when nobody wants it any more.
    pub(super) fn up(
        &self,
        connection: C::Connection,
        generation: Generation,
    ) -> Result<(), C::Connection> {
        let mut refused = Some(connection);
        self.change(LinkState::Up, |link| {
            if let Some(connection) = refused.take() {
                *link = Link::Up(connection, generation);
            }
        });
        refused.map_or(Ok(()), Err)
    }

    /// There is none any more, or still none.
    pub(super) fn down(&self, error: Arc<Error>) {
        let reason = error.report().to_string();
        self.change(LinkState::Down { reason }, |link| {
            let failures = if let Link::Down(_, failures) = link {
                *failures
            } else {
                0
            };
            *link = Link::Down(error, failures + 1);
        });
    }

    /// Nobody wants one any more; returns the one there is.
    pub(super) fn end(&self) -> Option<C::Connection> {
        let mut last = None;
        self.change(LinkState::Closed, |link| {
            if let Link::Up(connection, _) = std::mem::replace(link, Link::Closed) {
                last = Some(connection);
            }
        });
        last
    }

    /// Changes both views, unless it is closed: that is for good.
    fn change(&self, state: LinkState, change: impl FnOnce(&mut Link<C::Connection>)) {
        self.link.send_if_modified(|link| {
            if matches!(link, Link::Closed) {
                return false;
            }
            change(link);
            // Under the lock of the link, so that both tell the same story in the same order.
            self.state.send_replace(state);
            true
        });
    }

    /// The connection, if there is one now.
    pub(super) fn now(&self) -> Result<Option<(C::Connection, Generation)>> {
        connected(&self.link.borrow())
    }

    /// The connection, as soon as there is one.
    pub(super) async fn there(&self) -> Result<(C::Connection, Generation)> {
        let mut link = self.link.subscribe();
        loop {
            if let Some(there) = connected(&link.borrow_and_update())? {
                return Ok(there);
            }
            if link.changed().await.is_err() {
                return Err(closed());
            }
        }
    }

    /// The outcome of the next attempt to end, counted from the call, not from the first poll.
    pub(super) fn next_outcome(&self) -> impl Future<Output = Result<()>> + Send + use<C> {
        let mut link = self.link.subscribe();
        let seen = failures(&link.borrow_and_update());
        async move {
            loop {
                match &*link.borrow_and_update() {
                    Link::Up(..) => return Ok(()),
                    Link::Closed => return Err(closed()),
                    Link::Down(error, failures) if *failures != seen => return Err(again(error)),
                    Link::Down(..) | Link::Connecting => {}
                }
                if link.changed().await.is_err() {
                    return Err(closed());
                }
            }
        }
    }

    /// There was no connection in time.
    pub(super) fn not_connected(&self) -> Error {
        let error = Error::unavailable("not connected").with_retry(Retry::Safe);
        match &*self.link.borrow() {
            Link::Down(cause, _) => error.with_source(Arc::clone(cause)),
            Link::Connecting | Link::Up(..) => error,
            Link::Closed => closed(),
        }
    }

    pub(super) fn condemn(&self, generation: Generation, error: Error) {
        self.condemned.send_if_modified(|condemned| {
            let new = condemned
                .as_ref()
                .is_none_or(|(known, _)| *known < generation);
            if new {
                *condemned = Some((generation, Arc::new(error)));
            }
            new
        });
    }

    /// Returns when somebody says that this connection cannot be used.
    pub(super) async fn is_condemned(&self, generation: Generation) -> Arc<Error> {
        let mut condemned = self.condemned.subscribe();
        loop {
            if let Some((which, error)) = &*condemned.borrow_and_update()
                && *which == generation
            {
                return Arc::clone(error);
            }
            if condemned.changed().await.is_err() {
                // Its sender lives in here.
                return Arc::new(closed());
            }
        }
    }
}

fn connected<T: Clone>(link: &Link<T>) -> Result<Option<(T, Generation)>> {
    match link {
        Link::Up(connection, generation) => Ok(Some((connection.clone(), *generation))),
        Link::Connecting | Link::Down(..) => Ok(None),
        Link::Closed => Err(closed()),
    }
}

fn failures<T>(link: &Link<T>) -> u64 {
    if let Link::Down(_, failures) = link {
        *failures
    } else {
        0
    }
}

fn closed() -> Error {
    Error::cancelled("the broker was disconnected")
}

/// An error that several hear of: of the same kind, with the original as its cause.
fn again(error: &Arc<Error>) -> Error {
    let own = Error::new(error.kind(), error.message().to_owned());
    own.with_retry(error.retry()).with_source(Arc::clone(error))
}
