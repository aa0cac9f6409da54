//! Follows redirects within one attempt: its time limit, its retry and its circuit are those of the whole chain.

use tokio::time::Instant;
use trunkline_core::{BoxFuture, Error, Origin as Side, Result, Retry};
use trunkline_resilience::Attempt;

use super::attempt::Way;
use super::core::Core;
use super::outgoing::Outgoing;
use crate::coding;
use crate::limits::Limits;
use crate::origin::Origin;
use crate::redirect::{RedirectConfig, Redirected, Step, TooManyRedirects};
use crate::transport::Reply;

impl Core {
    /// Goes on where an answer leads, as far as the settings allow; what is not followed is the answer. Made in a box, not
    /// put into one: else every call would be as large.
    pub(super) fn follow<'a>(
        &'a self,
        settings: &'a RedirectConfig,
        from: &'a Origin,
        way: &'a Way<'_>,
        response: Reply,
    ) -> BoxFuture<'a, Result<Reply>> {
        Box::pin(self.follow_all(settings, from, way, response))
    }

    async fn follow_all(
        &self,
        settings: &RedirectConfig,
        from: &Origin,
        way: &Way<'_>,
        mut response: Reply,
    ) -> Result<Reply> {
        let Way {
            outgoing,
            attempt,
            mut limits,
            ..
        } = *way;
        limits.given_up = Some(attempt.deadline);
        limits.now = None;
        let Some(mut step) = Step::first(from, outgoing.path(), outgoing.method()) else {
            return Ok(response);
        };
        let mut followed = 0;
        while let Some(next) = step.next(settings.follow, &response) {
            // A stream passes once, even if part of it has been kept: its first sending may still be under way.
            if !next.without_body && !outgoing.is_whole() {
                break;
            }
            if followed >= settings.limit {
                return Err(too_many(settings.limit, &next));
            }
            followed += 1;
            drop(response);
            step = next;
            response = self
                .go_to(&step, outgoing, attempt, limits)
                .await
                .map_err(|error| as_processed(&step, error))?;
        }
        if followed > 0 {
            response.extensions_mut().insert(Redirected {
                url: step.url,
                processed: step.processed,
            });
        }
        Ok(response)
    }

    async fn go_to(
        &self,
        step: &Step,
        outgoing: &Outgoing<'_>,
        attempt: Attempt,
        limits: Limits,
    ) -> Result<Reply> {
        let deadline: Instant = attempt.deadline;
        let request = outgoing.redirected(&self.injector, deadline, step)?;
        // Middleware adds what the service may know: tokens, signatures.
        let hooks = outgoing.options().around.as_ref();
        match hooks.filter(|_| !step.crossed) {
            Some(hooks) => {
                let about = self.about(outgoing, attempt);
                let (transport, request) = (&self.transport, (*request, outgoing.decodes));
                let sent = hooks.send(about, transport, &step.origin, request, limits);
                Ok(Box::new(sent.await?))
            }
            None => {
                let transport = match step.crossed {
                    true => self.transport.to_strangers(),
                    false => &self.transport,
                };
                let sent = transport.send_boxed(&step.origin, request, &limits);
                let answer = sent.await?;
                if outgoing.decodes {
                    coding::decode(answer)
                } else {
                    Ok(answer)
                }
            }
        }
    }
}

/// Who answered a POST with "see there" has processed it, however little came of going there.
fn as_processed(step: &Step, error: Error) -> Error {
    if step.processed && error.retry() == Retry::Safe {
        error.with_retry(Retry::IfIdempotent)
    } else {
        error
    }
}

fn too_many(limit: u32, next: &Step) -> Error {
    let cause = TooManyRedirects {
        limit,
        last: next.origin.to_string(),
    };
    Error::invalid("the answer leads on and on")
        .with_origin(Side::Remote)
        .with_retry(Retry::Never)
        .with_source(cause)
}
