//! Tests that need a process of their own: this test binary again, running one test that is ignored otherwise.

use std::process::Command;

const ROLE: &str = "TRUNKLINE_TEST_ROLE";

/// A command that plays a role in the ignored test of this name.
pub(crate) fn playing(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(ROLE, role);
    command
}

/// The role that this process plays.
#[expect(clippy::disallowed_methods, reason = "how a process is told its role")]
pub(crate) fn role() -> String {
    std::env::var(ROLE).unwrap_or_default()
}

/// Plays a role until it ends well.
pub(crate) fn play(test: &str, role: &str) {
    let ended = playing(test, role).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{role}: {said}{told}");
    assert!(said.contains("1 passed"), "{role} did not run: {said}");
}
