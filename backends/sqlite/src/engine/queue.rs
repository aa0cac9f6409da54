//! The jobs that wait for the writer thread. What bounds it are the permits that callers hold; settlements are bounded
//! by the deliveries they settle.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::job::Job;
use crate::error::Failure;

/// Hands jobs to the writer thread of one database. Cheap to clone; does not keep the database open.
#[derive(Clone)]
pub(crate) struct JobSender(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Box<dyn Job>>,
    closing: bool,
    /// Why nothing is taken any more.
    over: Option<Failure>,
}

impl JobSender {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            ready: Condvar::new(),
        }))
    }

    /// Queues a job. Without a writer thread it is told so at once.
    pub(crate) fn submit(&self, job: Box<dyn Job>) {
        let over = {
            let mut state = self.lock();
            match (&state.over, state.closing) {
                (Some(failure), _) => failure.clone(),
                (None, true) => Failure::closed(),
                (None, false) => {
                    state.jobs.push_back(job);
                    if state.jobs.len() == 1 {
                        self.0.ready.notify_one();
                    }
                    return;
                }
            }
        };
        job.done(Err(&over));
    }

    /// Blocks until there is work; false when there will be none any more.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.lock();
        while state.jobs.is_empty() {
            if state.closing {
                return false;
            }
            state = self
                .0
                .ready
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    pub(crate) fn take(&self, at_most: usize) -> Vec<Box<dyn Job>> {
        let mut state = self.lock();
        let count = state.jobs.len().min(at_most);
        state.jobs.drain(..count).collect()
    }

    pub(super) fn put_back(&self, jobs: Vec<Box<dyn Job>>) {
        let mut state = self.lock();
        for job in jobs.into_iter().rev() {
            state.jobs.push_front(job);
        }
    }

    /// Lets the writer thread finish what is queued and end.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.0.ready.notify_all();
    }

    /// The writer thread ended: nothing that is or will be queued can succeed.
    pub(super) fn bury(&self, why: &Failure) {
        let jobs = {
            let mut state = self.lock();
            state.over = Some(why.clone());
            std::mem::take(&mut state.jobs)
        };
        for job in jobs {
            job.done(Err(why));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for JobSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JobSender")
    }
}
