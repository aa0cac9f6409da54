//! What the figures were measured on.

use std::env::consts;
use std::fs;
use std::thread;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// The machine, as far as figures depend on it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) processor: String,
    pub(crate) system: String,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cores: thread::available_parallelism().map_or(1, usize::from),
            processor: processor(&info).unwrap_or("unknown processor").to_owned(),
            system: format!("{} {}", consts::OS, consts::ARCH),
        }
    }
}

/// What this process holds, in MiB.
pub(crate) fn resident() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .context("the kernel does not say VmRSS")?;
    Ok(kibibytes.trim().parse::<f64>()? / 1024.0)
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cores = if self.cores == 1 { "core" } else { "cores" };
        write!(
            f,
            "{} {cores}, {}, {}",
            self.cores, self.processor, self.system
        )
    }
}

fn processor(info: &str) -> Option<&str> {
    info.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_is_read() {
        let info = "processor\t: 0\nmodel name\t: Some CPU @ 2.50GHz\nflags\t: a b";
        assert_eq!(processor(info), Some("Some CPU @ 2.50GHz"));
        assert_eq!(processor("Hardware : other"), None);
    }
}
