//! Programs in Go, built once for each state of their sources.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::sources;

/// Where the toolchain is when it is not on the `PATH`.
const USUAL: &str = "/usr/local/go/bin/go";

/// The program of these sources; `None` where there is no Go.
pub(crate) fn program(name: &str, sources: &[(&str, &str)]) -> Result<Option<PathBuf>> {
    let Some(go) = toolchain() else {
        return Ok(None);
    };
    let build = |place: &Path| {
        let building = place.join("building");
        let built = Command::new(go)
            .args(["build", "-trimpath", "-o"])
            .arg(&building)
            .arg(".")
            .env("GOWORK", "off")
            .env("CGO_ENABLED", "0")
            .current_dir(place)
            .output()
            .context("go build")?;
        let said = String::from_utf8_lossy(&built.stderr);
        ensure!(built.status.success(), "go build of {name}: {said}");
        Ok(building)
    };
    sources::built(name, name, sources, build).map(Some)
}

fn toolchain() -> Option<PathBuf> {
    let works = |go: &Path| {
        let asked = Command::new(go).arg("version").output();
        asked.is_ok_and(|asked| asked.status.success())
    };
    let known = [PathBuf::from("go"), PathBuf::from(USUAL)];
    known.into_iter().find(|go| works(go))
}
