//! An inbox whose every step a test can see, delay and fail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use trunkline_core::{Error, Result};
use trunkline_messaging::inbox::{AnyInbox, Claim, ClaimRequest, ClaimToken, InboxStore};

#[derive(Clone, Default)]
pub(crate) struct TestInbox(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    entries: HashMap<(String, String), Entry>,
    log: Vec<&'static str>,
    fail: Vec<&'static str>,
    /// The claim was lost, says every renewal.
    lost: bool,
    claim_takes: Duration,
}

#[derive(Clone)]
struct Entry {
    generation: u64,
    fingerprint: Option<Bytes>,
    state: Stage,
}

#[derive(Clone)]
enum Stage {
    Free,
    Claimed(Instant),
    Done(Bytes),
}

impl TestInbox {
    pub(crate) fn any(&self) -> AnyInbox {
        AnyInbox::new(self.clone())
    }

    pub(crate) fn log(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().log.clone()
    }

    /// From now on a claim takes so long to be told, though it stands at once.
    pub(crate) fn slow_claims(&self, by: Duration) {
        self.0.lock().unwrap().claim_takes = by;
    }

    /// From now on all claims are another's.
    pub(crate) fn lose_claims(&self) {
        self.0.lock().unwrap().lost = true;
    }

    /// How often a step was taken.
    pub(crate) fn count(&self, step: &str) -> usize {
        self.log().iter().filter(|taken| **taken == step).count()
    }

    /// The next call of that step fails.
    pub(crate) fn fail(&self, step: &'static str) {
        self.0.lock().unwrap().fail.push(step);
    }

    fn step<T>(&self, step: &'static str, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.0.lock().unwrap();
        state.log.push(step);
        if let Some(at) = state.fail.iter().position(|failing| *failing == step) {
            state.fail.remove(at);
            return Err(Error::unavailable("the store is away"));
        }
        work(&mut state)
    }
}

fn owned<'a>(state: &'a mut State, token: &ClaimToken) -> Result<&'a mut Entry> {
    if state.lost {
        return Err(Error::conflict("the claim was lost"));
    }
    let entry = state
        .entries
        .get_mut(&(token.scope.clone(), token.key.clone()));
    entry
        .filter(|entry| {
            entry.generation == token.generation && matches!(entry.state, Stage::Claimed(_))
        })
        .ok_or_else(|| Error::conflict("the claim was lost"))
}

impl InboxStore for TestInbox {
    async fn claim(&self, request: ClaimRequest) -> Result<Claim> {
        let claim = self.step("claim", |state| {
            let key = (request.scope.clone(), request.key.clone());
            let known = state.entries.get(&key).cloned();
            let generation = known.as_ref().map_or(0, |known| known.generation) + 1;
            if let Some(Entry {
                fingerprint,
                state: stage,
                ..
            }) = known
            {
                let free = match &stage {
                    Stage::Free => true,
                    Stage::Claimed(until) => *until <= Instant::now(),
                    Stage::Done(_) => false,
                };
                if !free && fingerprint != request.fingerprint {
                    return Ok(Claim::Mismatch);
                }
                match stage {
                    Stage::Done(result) => return Ok(Claim::Done(result)),
                    Stage::Claimed(until) if !free => {
                        return Ok(Claim::InProgress {
                            retry_after: until - Instant::now(),
                        });
                    }
                    _ => {}
                }
            }
            let state_of = Stage::Claimed(Instant::now() + request.lease);
            let entry = Entry {
                generation,
                fingerprint: request.fingerprint,
                state: state_of,
            };
            state.entries.insert(key, entry);
            Ok(Claim::Granted(ClaimToken::new(
                request.scope,
                request.key,
                generation,
            )))
        });
        let takes = self.0.lock().unwrap().claim_takes;
        tokio::time::sleep(takes).await;
        claim
    }

    async fn complete(&self, token: ClaimToken, result: Bytes, _: Duration) -> Result<()> {
        self.step("complete", |state| {
            owned(state, &token)?.state = Stage::Done(result);
            Ok(())
        })
    }

    async fn extend(&self, token: &ClaimToken, lease: Duration) -> Result<()> {
        self.step("extend", |state| {
            owned(state, token)?.state = Stage::Claimed(Instant::now() + lease);
            Ok(())
        })
    }

    async fn release(&self, token: ClaimToken) -> Result<()> {
        self.step("release", |state| {
            if let Ok(entry) = owned(state, &token) {
                entry.state = Stage::Free;
            }
            Ok(())
        })
    }
}
