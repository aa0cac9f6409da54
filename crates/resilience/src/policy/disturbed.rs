//! An attempt that chaos has a hand in, within its time limit like any other.

use std::future::Future;

use tokio::time::sleep;

use super::run::{PolicyError, Run};
use crate::call::Attempt;
use crate::chaos::Chaos;
use crate::timeout::{Over, limited};

impl<C> Run<'_, C> {
    pub(super) async fn disturbed<T, E, F, Fut>(
        &self,
        chaos: &Chaos,
        attempt: Attempt,
        operation: &mut F,
    ) -> Result<Result<T, E>, Over>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: PolicyError,
    {
        let plan = chaos.draw(self.target, attempt.number, self.call.marked);
        for fault in plan.faults() {
            self.observers.tell(|to| to.disturbed(self.target, fault));
        }
        if let Some(delay) = plan.delay {
            limited(attempt.deadline, sleep(delay)).await?;
        }
        if let Some(fault) = plan.error {
            return Ok(Err(fault.into()));
        }
        let answer = limited(attempt.deadline, operation(attempt)).await?;
        Ok(match plan.abort {
            Some(fault) => Err(fault.into()),
            None => answer,
        })
    }
}
