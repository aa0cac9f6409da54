//! The ports of the demo's members.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context as _;

use super::members::Member;
use super::narrator::Narrator;

/// Where each member listens. Whatever is not asked for is any free port, found anew at each start.
#[derive(Debug)]
pub(crate) struct Ports(BTreeMap<Member, u16>);

impl Ports {
    /// Those asked for, or, where one is taken, another that is free.
    pub(crate) fn of(
        wanted: impl IntoIterator<Item = (Member, u16)>,
        narrator: Narrator,
    ) -> anyhow::Result<Self> {
        let mut ports = BTreeMap::new();
        for (member, port) in wanted {
            let free = free_or_other(port)?;
            if free != port && port != 0 {
                narrator.warn(&format!(
                    "port {port} of {member} is taken; it listens on {free}"
                ));
            }
            ports.insert(member, free);
        }
        Ok(Self(ports))
    }

    /// The port of a member; 0 stands for any.
    pub(crate) fn port(&self, member: Member) -> u16 {
        self.0.get(&member).copied().unwrap_or(0)
    }
}

fn free_or_other(wanted: u16) -> anyhow::Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let free = bind(wanted)
        .or_else(|_| bind(0))
        .context("no port is free")?;
    Ok(free.local_addr()?.port())
}
