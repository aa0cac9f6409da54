//! `servers`, and the servers that tests are given.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use trunkline_testing::servers::{
    self, Ending, Installed, Program, SYSTEMS, Server, ServerError, Standing, System, TOOLS,
};

use crate::arguments::{Arguments, Usage, closest};
use crate::environment::{self, REQUIRE_LIVE};
use crate::workspace::{Package, Workspace};

/// `cargo xtask servers`.
pub(crate) fn run(_: &Workspace, mut arguments: Arguments) -> Result<()> {
    let action = arguments.positional();
    let mut names = Vec::new();
    while let Some(name) = arguments.positional() {
        names.push(Wanted::named(&name)?);
    }
    arguments.finish()?;
    match action.as_deref() {
        Some("list") => none(&names).map(|()| list()),
        Some("status") => none(&names).map(|()| status()),
        Some("install") => install_all(&if names.is_empty() {
            Wanted::all()
        } else {
            names
        }),
        Some("up") => up(&systems(&names)?),
        Some("down") if names.is_empty() => down(SYSTEMS),
        Some("down") => down(&systems(&names)?),
        Some("env") => env(&systems(&names)?),
        Some(other) => {
            let hint = closest(other, ["list", "install", "up", "down", "status", "env"])
                .map_or_else(String::new, |close| format!("; did you mean `{close}`?"));
            Err(Usage(format!("`servers` has no `{other}`{hint}")).into())
        }
        None => Err(Usage("servers: list, install, up, down, status or env?".to_owned()).into()),
    }
}

/// A server or a tool.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    System(&'static System),
    Tool(&'static Program),
}

impl Wanted {
    fn all() -> Vec<Self> {
        let systems = SYSTEMS.iter().copied().map(Self::System);
        systems
            .chain(TOOLS.iter().copied().map(Self::Tool))
            .collect()
    }

    fn named(name: &str) -> Result<Self> {
        let all = Self::all();
        all.iter()
            .copied()
            .find(|wanted| wanted.name() == name)
            .ok_or_else(|| {
                let names: Vec<_> = all.iter().map(Self::name).collect();
                Usage(format!(
                    "no server or tool `{name}`; there are: {}",
                    names.join(", ")
                ))
                .into()
            })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::System(system) => system.name,
            Self::Tool(program) => program.name,
        }
    }

    fn program(&self) -> &'static Program {
        match self {
            Self::System(system) => system.program,
            Self::Tool(program) => program,
        }
    }
}

fn none(names: &[Wanted]) -> Result<()> {
    match names.first() {
        None => Ok(()),
        Some(name) => Err(Usage(format!("unexpected argument `{}`", name.name())).into()),
    }
}

fn systems(names: &[Wanted]) -> Result<Vec<&'static System>> {
    if names.is_empty() {
        let known: Vec<_> = SYSTEMS.iter().map(|system| system.name).collect();
        return Err(Usage(format!("which server? There are: {}", known.join(", "))).into());
    }
    names
        .iter()
        .map(|wanted| match wanted {
            Wanted::System(system) => Ok(*system),
            Wanted::Tool(program) => {
                Err(Usage(format!("`{}` does not serve", program.name)).into())
            }
        })
        .collect()
}

fn list() {
    println!(
        "{:10}  {:8}  {:16}  installed",
        "name", "is a", "comes from"
    );
    for wanted in Wanted::all() {
        let is_a = match wanted {
            Wanted::System(_) => "server",
            Wanted::Tool(_) => "tool",
        };
        let program = wanted.program();
        let installed = match program.find() {
            None => "no".to_owned(),
            Some(path) => {
                let version = program
                    .version()
                    .unwrap_or_else(|| "version unknown".to_owned());
                format!("{version} ({})", path.display())
            }
        };
        println!(
            "{:10}  {is_a:8}  {:16}  {installed}",
            wanted.name(),
            program.package
        );
    }
    println!("state: {}", servers::cache_directory().display());
}

fn status() {
    for system in SYSTEMS {
        match Standing::find(system) {
            Some(standing) => {
                println!(
                    "{}: {} (process {})",
                    system.name,
                    standing.url(),
                    standing.pid()
                );
            }
            None => println!("{}: not running", system.name),
        }
    }
}

fn install_all(wanted: &[Wanted]) -> Result<()> {
    for wanted in wanted {
        install(*wanted)?;
        let program = wanted.program();
        let version = program
            .version()
            .unwrap_or_else(|| "version unknown".to_owned());
        println!("{}: {version}", wanted.name());
    }
    Ok(())
}

fn install(wanted: Wanted) -> Result<(), ServerError> {
    let program = wanted.program();
    if program.find().is_none() {
        eprintln!("installing {} …", program.package);
    }
    let _: Installed = servers::install(program)?;
    Ok(())
}

fn up(systems: &[&'static System]) -> Result<()> {
    for system in systems {
        install(Wanted::System(system))?;
        let standing = Standing::up(system)?;
        println!(
            "{}: {} (process {})",
            system.name,
            standing.url(),
            standing.pid()
        );
    }
    Ok(())
}

fn down(systems: &[&'static System]) -> Result<()> {
    for system in systems {
        let outcome = match Standing::find(system) {
            None => "not running",
            Some(standing) => match standing.down()? {
                Ending::AlreadyGone => "was gone",
                Ending::Stopped => "stopped",
                Ending::Killed => "killed: it did not stop when asked",
            },
        };
        println!("{}: {outcome}", system.name);
    }
    Ok(())
}

fn env(systems: &[&'static System]) -> Result<()> {
    for system in systems {
        let Some(standing) = Standing::find(system) else {
            bail!(
                "{0} is not running; `cargo xtask servers up {0}` starts it",
                system.name
            );
        };
        println!(
            "export {}={}",
            servers::url_variable(system),
            standing.url()
        );
    }
    Ok(())
}

/// Installs what a package starts itself. What cannot be had is reported: who needs it will fail.
pub(crate) fn install_for(package: &Package) -> Result<()> {
    let required = Required::from_environment()?;
    for name in &package.servers {
        let wanted = Wanted::named(name).context("package.metadata.trunkline.servers")?;
        match install(wanted) {
            Err(error) if required.includes(name) => {
                return Err(error).with_context(|| format!("{name} is required by {REQUIRE_LIVE}"));
            }
            // Standard output may be a JSON document.
            Err(error) => eprintln!("WITHOUT {name}: {error:#}"),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Servers that run as long as this value lives.
#[derive(Debug)]
pub(crate) struct Running {
    servers: Vec<Server>,
    /// Set where nothing else says so: doc tests and examples then find what was started.
    variables: Vec<(String, String)>,
}

impl Running {
    /// Installs and starts what is needed. A name in `TRUNKLINE_TEST_<SYSTEM>_URL` is left alone.
    ///
    /// What cannot be had is reported and left out, unless `TRUNKLINE_REQUIRE_LIVE` names it.
    pub(crate) fn start<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let required = Required::from_environment()?;
        let mut running = Self {
            servers: Vec::new(),
            variables: Vec::new(),
        };
        let names: BTreeSet<&str> = names.into_iter().collect();
        for name in names {
            let wanted = Wanted::named(name).context("package.metadata.trunkline.servers")?;
            match running.add(wanted) {
                Ok(()) => {}
                Err(error) if required.includes(name) => {
                    return Err(error)
                        .with_context(|| format!("{name} is required by {REQUIRE_LIVE}"));
                }
                Err(error) => {
                    println!(
                        "WITHOUT {name}: {error:#}\n        tests that need it will print SKIP"
                    );
                }
            }
        }
        Ok(running)
    }

    fn add(&mut self, wanted: Wanted) -> Result<()> {
        let Wanted::System(system) = wanted else {
            install(wanted)?;
            return Ok(());
        };
        let variable = servers::url_variable(system);
        if let Some(url) = environment::value(&variable) {
            println!(
                "{}: {} (given by {variable})",
                system.name,
                url.to_string_lossy()
            );
            return Ok(());
        }
        install(wanted)?;
        let server = Server::start(system)?;
        println!(
            "{}: {} (process {})",
            system.name,
            server.url(),
            server.pid()
        );
        self.variables.push((variable, server.url()));
        self.servers.push(server);
        Ok(())
    }

    /// Tells a command where the servers are.
    pub(crate) fn hand_to<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.variables.iter().map(|(name, url)| (name, url)))
    }
}

/// The names in `TRUNKLINE_REQUIRE_LIVE`.
#[derive(Debug, PartialEq, Eq)]
struct Required(Vec<String>);

impl Required {
    fn from_environment() -> Result<Self> {
        let list = environment::value(REQUIRE_LIVE).unwrap_or_default();
        Self::parse(&list.to_string_lossy())
    }

    /// A misspelt name would require nothing at all, so it is refused.
    fn parse(list: &str) -> Result<Self> {
        let names = list
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        names
            .map(|name| {
                if name != "all" {
                    Wanted::named(name).context(REQUIRE_LIVE)?;
                }
                Ok(name.to_owned())
            })
            .collect::<Result<_>>()
            .map(Self)
    }

    fn includes(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name || word == "all")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_names_are_known_ones() {
        let required = Required::parse("redis, promtool").unwrap();
        assert!(required.includes("redis") && required.includes("promtool"));
        assert!(!Required::parse("").unwrap().includes("redis"));
        assert!(Required::parse("all").unwrap().includes("redis"));
        let error = format!("{:#}", Required::parse("reddis").unwrap_err());
        assert!(
            error.contains("reddis") && error.contains("promtool"),
            "{error}"
        );
    }

    #[test]
    fn tool_is_not_started() {
        let error = systems(&[Wanted::named("promtool").unwrap()]).unwrap_err();
        assert!(error.is::<Usage>(), "{error}");
    }
}
