//! The body of an answer, as it comes from its connection.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};
use trunkline_core::{Error, Result};

use super::ended::{End, Ended, Tell};
use super::uploading::Upload;
use crate::error;
use crate::limits::{Limits, after};
use crate::origin::Origin;
use crate::pool::{Lease, StreamLease};

/// Where the rest of a body comes from.
pub(crate) enum Source {
    /// It has arrived already.
    Here,
    /// From a connection that whoever reads the body drives.
    Own(Lease),
    /// From a stream of a shared connection, which goes back when the body is done with.
    Shared(#[expect(dead_code, reason = "held for its drop")] StreamLease),
    /// From a connection that a task drives, until the sender is dropped.
    Task(#[expect(dead_code, reason = "held for its drop")] oneshot::Sender<()>),
}

/// The body of an answer. It bounds silence and the whole; dropped early it gives up the connection, unless the rest
/// has arrived already.
pub(crate) struct Received {
    incoming: Option<Incoming>,
    source: Source,
    origin: Origin,
    silence: Duration,
    deadline: Option<Instant>,
    /// Ends the present silence; made when there is one.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Whether the alarm is set for the present silence.
    armed: bool,
    /// Kept for as long as something is still to come.
    guard: Option<Box<dyn Send>>,
    /// Who is told how it ends.
    told: Vec<Tell>,
    /// More of it is waited for.
    awaited: bool,
    /// Some of it has come.
    begun: bool,
    /// The body of the request, where that may still be on its way.
    upload: Option<Upload>,
}

impl Received {
    pub(crate) fn new(
        incoming: Incoming,
        source: Source,
        origin: &Origin,
        limits: &Limits,
    ) -> Self {
        Self {
            incoming: Some(incoming),
            source,
            origin: origin.clone(),
            silence: limits.read,
            deadline: limits.deadline,
            alarm: None,
            armed: false,
            guard: None,
            told: Vec::new(),
            awaited: false,
            begun: false,
            upload: None,
        }
    }

    /// The body of the request may still be on its way.
    pub(crate) fn beside(mut self, upload: Option<&Upload>) -> Self {
        self.upload = upload.filter(|it| it.is_under_way()).cloned();
        self
    }

    pub(super) fn hold(&mut self, guard: impl Send + 'static) {
        if !matches!(self.source, Source::Here) {
            self.guard = Some(match self.guard.take() {
                Some(other) => Box::new((other, guard)),
                None => Box::new(guard),
            });
        }
    }

    pub(super) fn is_coming(&self) -> bool {
        !matches!(self.source, Source::Here) && !self.is_end_stream()
    }

    pub(super) fn when_ended(&mut self, tell: Tell) {
        self.told.push(tell);
    }

    fn tell(&mut self, end: End) {
        let mut ended = Ended {
            end,
            of_one_place: false,
        };
        for tell in std::mem::take(&mut self.told) {
            tell(&mut ended);
        }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        if let Source::Own(lease) = &mut self.source {
            let connection = lease.connection();
            if !connection.is_idle() {
                connection.poll_drive(cx);
            }
        }
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Pending => {
                self.awaited = true;
                self.poll_alarm(cx)
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.armed = false;
                self.awaited = false;
                self.begun = true;
                if self.is_end_stream() {
                    self.finish();
                } else if self.is_late() {
                    let error = error::late(&self.origin);
                    return Poll::Ready(Some(Err(self.give_up(error, End::Overslept))));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(cause))) => {
                let error = error::broken_body(&self.origin, cause);
                let end = if self.is_late() {
                    // It may have broken off since, of which nobody can know when.
                    End::Overslept
                } else if self.upload.as_ref().is_some_and(Upload::has_failed) {
                    End::OwnFault(error.kind())
                } else {
                    End::Broken(error.kind())
                };
                Poll::Ready(Some(Err(self.give_up(error, end))))
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }

    /// Whether its time is over.
    fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| deadline <= Instant::now())
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        if !self.armed {
            if self.is_late() {
                // Nobody has waited for it until now.
                let error = error::late(&self.origin);
                return Poll::Ready(Some(Err(self.give_up(error, End::Overslept))));
            }
            let quiet = after(Instant::now(), self.silence);
            let until = self.deadline.map_or(quiet, |deadline| deadline.min(quiet));
            match &mut self.alarm {
                Some(alarm) => alarm.as_mut().reset(until),
                None => self.alarm = Some(Box::pin(sleep_until(until))),
            }
            self.armed = true;
        }
        let Some(alarm) = &mut self.alarm else {
            return Poll::Pending;
        };
        std::task::ready!(pin!(unconstrained(alarm.as_mut())).poll(cx));
        let (error, end) = if self.is_late() {
            (error::late(&self.origin), End::Late)
        } else {
            let error = error::silent(&self.origin, self.silence);
            let end = End::Broken(error.kind());
            (error, end)
        };
        Poll::Ready(Some(Err(self.give_up(error, end))))
    }

    /// It is complete: the connection may carry the next request.
    fn finish(&mut self) {
        self.incoming = None;
        self.tell(End::Whole);
        self.guard = None;
        if let Source::Own(lease) = std::mem::replace(&mut self.source, Source::Here) {
            lease.finish();
        }
    }

    /// It will not be complete: the connection is of no use any more.
    fn give_up(&mut self, error: Error, end: End) -> Error {
        self.incoming = None;
        self.tell(end);
        self.guard = None;
        self.source = Source::Here;
        error
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if self.incoming.is_some() {
            if !self.is_end_stream() {
                self.tell(End::Dropped {
                    in_vain: self.awaited && !self.begun,
                });
            }
            self.incoming = None;
            // Whoever does not care for the rest of a short body should not cost the next request a connection.
            self.finish();
        }
    }
}
