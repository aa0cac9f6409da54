//! Programs in Rust that are no part of the workspace, so that what they need is not in its lock file; built once for each
//! state of their sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::sources;

/// The program of these sources with one of its features; `None` where there is no Cargo.
pub(crate) fn program(
    name: &str,
    feature: &str,
    sources: &[(&str, &str)],
) -> Result<Option<PathBuf>> {
    let asked = Command::new("cargo").arg("--version").output();
    if !asked.is_ok_and(|asked| asked.status.success()) {
        return Ok(None);
    }
    let build = |place: &Path| {
        let target = place.join("target");
        let built = Command::new("cargo")
            .args(["build", "--quiet", "--locked", "--features", feature])
            .arg("--target-dir")
            .arg(&target)
            .env("CARGO_INCREMENTAL", "0")
            .current_dir(place)
            .output()
            .context("cargo build")?;
        let said = String::from_utf8_lossy(&built.stderr);
        ensure!(built.status.success(), "cargo build of {name}: {said}");
        let alone = place.join("building");
        fs::rename(target.join("debug").join(name), &alone)?;
        // What was compiled on the way is many times larger.
        fs::remove_dir_all(target)?;
        Ok(alone)
    };
    sources::built(name, &format!("{name}-{feature}"), sources, build).map(Some)
}
