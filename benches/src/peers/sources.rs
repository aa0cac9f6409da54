//! Programs that are built here, once for each state of their sources.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use trunkline_testing::servers::cache_directory;

/// The program as an earlier run has built it, else as it is built now: where its sources are, which says where it is then.
/// One is built at a time.
pub(super) fn built(
    name: &str,
    program: &str,
    sources: &[(&str, &str)],
    build: impl FnOnce(&Path) -> Result<PathBuf>,
) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    sources.hash(&mut hasher);
    let peers = cache_directory().join("peers");
    let place = peers.join(format!("{name}-{:016x}", hasher.finish()));
    fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let lock = File::create(peers.join("lock"))?;
    lock.lock()?;
    let program = place.join(program);
    if !program.exists() {
        for (file, text) in sources {
            fs::write(place.join(file), text)?;
        }
        fs::rename(build(&place)?, &program)?;
    }
    Ok(program)
}
