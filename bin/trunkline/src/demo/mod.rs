//! `trunkline demo`: a small system of services on one machine, with nothing installed.

mod members;
mod narrator;
mod ports;
mod process;
mod scenario;
mod services;
mod settings;
mod system;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::io::AsyncReadExt as _;
use trunkline::CommunicationManager;

pub(crate) use self::members::Member;
use self::narrator::Narrator;
use self::ports::Ports;
use self::system::System;
use crate::cli::Demo;
use crate::exit::ExitCode;
use crate::output::Output;
use crate::stop;

/// Runs the whole system, the scenario against it, or one of its members.
pub(crate) async fn run(args: Demo, output: &Output) -> anyhow::Result<ExitCode> {
    if let (Some(member), Some(dir)) = (args.service, &args.dir) {
        run_member(member, dir, args.port).await?;
        return Ok(ExitCode::Done);
    }
    let home = Home::of(args.dir.as_deref())?;
    let narrator = Narrator::new(*output, !args.check);
    let wanted = args.service_ports.iter().copied();
    let ports = Ports::of(wanted.chain([(Member::Gateway, args.port)]), narrator)?;
    let mut stop = std::pin::pin!(stop::asked());
    let mut system = tokio::select! {
        started = System::start(&home.dir, ports, narrator) => started?,
        () = &mut stop => {
            home.remove();
            return Ok(ExitCode::Failed);
        }
    };
    let ended = tokio::select! {
        ended = work(&mut system, &home, &args, output) => ended,
        // Only a scenario has an end that was not reached.
        () = stop => Ok(if args.check { ExitCode::Failed } else { ExitCode::Done }),
    };
    let stopped = system.stop().await;
    let code = ended?;
    stopped.context("the demo did not stop cleanly")?;
    if code == ExitCode::Done {
        home.remove();
    } else {
        output.warn(format!("data and logs are kept in {}", home.dir.display()));
    }
    Ok(code)
}

/// One member in this process: what a service's `main` looks like.
async fn run_member(member: Member, dir: &Path, port: u16) -> trunkline::Result<()> {
    let config = settings::of(member, dir, port)?;
    CommunicationManager::new(config)
        .lifespan(async |manager| {
            stop_when_orphaned(&manager);
            match member {
                Member::Users => services::users::run(manager).await,
                Member::Payments => services::payments::run(manager).await,
                Member::Orders => services::orders::run(manager).await,
                Member::Notifications => services::notifications::run(manager).await,
                Member::Gateway => manager.serve_gateway().await,
            }
        })
        .await
}

/// Stdin is a pipe from the demo. It closes when the demo is gone, however that came about.
fn stop_when_orphaned(manager: &CommunicationManager) {
    let manager = manager.clone();
    drop(trunkline::task::spawn("lifeline", async move {
        let mut nothing = Vec::new();
        drop(tokio::io::stdin().read_to_end(&mut nothing).await);
        manager.request_shutdown();
    }));
}

/// The scenario, or the system kept alive for those who try it.
async fn work(
    system: &mut System,
    home: &Home,
    args: &Demo,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    if args.check {
        return scenario::run(system, &home.dir, args.orders, output).await;
    }
    show_addresses(system, home, output).await?;
    system.keep_alive().await?;
    Ok(ExitCode::Done)
}

/// Says where everything is and what to try.
async fn show_addresses(system: &System, home: &Home, output: &Output) -> anyhow::Result<()> {
    let gateway = system.gateway_url();
    let payments = system.url(Member::Payments).await?;
    if output.is_json() {
        let mut members = BTreeMap::new();
        for member in Member::ALL {
            members.insert(member.name(), system.url(member).await?);
        }
        return output.json_line(&serde_json::json!({ "gateway": gateway, "members": members }));
    }
    output.line("The system runs. Ctrl-C stops it.\n")?;
    for member in Member::ALL {
        output.line(format!(
            "  {:<14} {}",
            member.name(),
            system.url(member).await?
        ))?;
    }
    output.line(format!(
        "  {:<14} {}\n",
        "data and logs",
        home.dir.display()
    ))?;
    output.line("Try:\n")?;
    for line in [
        format!(
            "curl -i {gateway}/api/v1/orders -H 'Content-Type: application/json' -d '{{\"user_id\":1,\"item\":\"book\",\"amount\":1999}}'"
        ),
        format!("curl -s {gateway}/api/v1/orders"),
        format!("curl -s {gateway}/api/v1/notifications"),
        format!("curl -i {gateway}/api/v1/users/99"),
        format!("curl -s {gateway}/health"),
        format!("curl -s {gateway}/metrics"),
        format!(
            "curl -X PUT {payments}/mood -H 'Content-Type: application/json' -d '{{\"failing_percent\":50}}'"
        ),
        format!(
            "trunkline services list {}",
            system::registry_url(&home.dir)
        ),
        format!(
            "trunkline subscribe {} 'order.*'",
            system::registry_url(&home.dir)
        ),
    ] {
        output.line(format!("  {line}"))?;
    }
    output.line("")
}

/// The demo's directory: given and kept, or made for this run and removed after a clean end.
struct Home {
    dir: PathBuf,
    temporary: bool,
}

impl Home {
    fn of(given: Option<&Path>) -> anyhow::Result<Self> {
        let (dir, temporary) = match given {
            Some(dir) => (dir.to_owned(), false),
            None => {
                let name = format!("trunkline-demo-{}", std::process::id());
                (std::env::temp_dir().join(name), true)
            }
        };
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        let dir = dir
            .canonicalize()
            .with_context(|| format!("cannot find {}", dir.display()))?;
        Ok(Self { dir, temporary })
    }

    /// Only a directory of our own making; what cannot be removed stays, which harms nobody.
    fn remove(&self) {
        if self.temporary {
            drop(std::fs::remove_dir_all(&self.dir));
        }
    }
}
