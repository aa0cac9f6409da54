//! Running a case: its runtime, what is left behind, and skipping aloud.

use std::future::Future;
use std::io::{self, Write as _};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};

use crate::Scope;

/// Why a case cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The server of this system is not configured.
    Server(&'static str),
    /// What is tested does not claim to be able to do this.
    Capability(&'static str),
}

/// Says that a case was skipped; fails instead when `TRUNKLINE_REQUIRE_LIVE` lists the system.
///
/// # Panics
/// When the system is required.
#[expect(clippy::print_stdout, reason = "a skipped case must be seen")]
#[expect(
    clippy::disallowed_methods,
    reason = "the test kit may read the environment"
)]
pub fn skip(scope: &Scope, missing: Missing) {
    let case = scope.case();
    match missing {
        Missing::Capability(what) => println!("SKIP {case}: no {what}"),
        Missing::Server(system) => {
            let required = std::env::var("TRUNKLINE_REQUIRE_LIVE").unwrap_or_default();
            let is_required = required
                .split(',')
                .any(|name| [system, "all"].contains(&name.trim()));
            assert!(!is_required, "{case}: {system} is required and not there");
            // Not a print macro: those are captured while a test passes.
            let line = format!("SKIP {case}: {system} is not configured");
            writeln!(io::stderr(), "{line}").expect("standard error takes a skipped case");
        }
    }
}

/// Runs a case on a runtime of its own with two workers.
///
/// # Panics
/// When the case does, or when no runtime can be made.
pub fn block_on(case: impl Future<Output = ()>) {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be made")
        .block_on(case);
}

/// Checks that every task has ended, or ends soon.
///
/// # Panics
/// When a task is left after the grace time.
pub async fn no_task_left(scope: &Scope, grace: Duration) {
    let metrics = Handle::current().metrics();
    let ended = async {
        while metrics.num_alive_tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(grace, ended).await.is_err() {
        let left = metrics.num_alive_tasks();
        panic!("{}: {left} tasks were left behind", scope.case());
    }
}
