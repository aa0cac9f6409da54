//! Programs in Rust that are no part of the workspace, so that what they need is not in its lock file; built once for each
//! state of their sources.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use trunkline_testing::servers::cache_directory;

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
    let mut hasher = DefaultHasher::new();
    sources.hash(&mut hasher);
    let peers = cache_directory().join("peers");
    let place = peers.join(format!("{name}-{:016x}", hasher.finish()));
    fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let lock = File::create(peers.join("lock"))?;
    lock.lock()?;
    let program = place.join(format!("{name}-{feature}"));
    if program.exists() {
        return Ok(Some(program));
    }
    for (file, text) in sources {
        fs::write(place.join(file), text)?;
    }
    let target = place.join("target");
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--locked", "--features", feature])
        .arg("--target-dir")
        .arg(&target)
        .env("CARGO_INCREMENTAL", "0")
        .current_dir(&place)
        .output()
        .context("cargo build")?;
    let said = String::from_utf8_lossy(&built.stderr);
    ensure!(built.status.success(), "cargo build of {name}: {said}");
    let built = target.join("debug").join(Path::new(name));
    fs::rename(built, &program)?;
    // What was compiled on the way is many times larger.
    fs::remove_dir_all(target)?;
    Ok(Some(program))
}
