//! The port that people type.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context as _;

/// The port asked for if it is free, else one that is.
pub(crate) fn free_or_other(wanted: u16) -> anyhow::Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let free = bind(wanted)
        .or_else(|_| bind(0))
        .context("no port is free")?;
    Ok(free.local_addr()?.port())
}
