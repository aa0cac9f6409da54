//! The table of commands. Help is made from it, so a command that is listed exists.

use anyhow::Result;

use crate::arguments::{Arguments, Usage, closest};
use crate::workspace::Workspace;
use crate::{live, release, testing, tidy};

struct Command {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    details: &'static str,
    run: fn(&Workspace, Arguments) -> Result<()>,
}

static COMMANDS: &[Command] = &[
    Command {
        name: "check",
        arguments: "",
        about: "format, tidy, clippy with warnings as errors on default and all features",
        details: "",
        run: testing::check,
    },
    Command {
        name: "test",
        arguments: "[CRATE] [ARGUMENTS OF cargo test…]",
        about: "everything a change must pass; with a crate, only its tests",
        details: "\
Without a crate: installs and starts the servers that tests need, then check, all tests on all
features, the tests that default features change, doc tests, and every example.

CRATE is a package name with or without `trunkline-`; what follows goes to `cargo test`:
    cargo xtask test messaging nack -- --nocapture

A server that is missing and cannot be installed makes its tests print SKIP. With
TRUNKLINE_REQUIRE_LIVE=redis,promtool (or all) it makes them fail.",
        run: testing::test,
    },
    Command {
        name: "tidy",
        arguments: "",
        about: "direction of dependencies, manifests, file sizes, forbidden words",
        details: "",
        run: tidy::run,
    },
    Command {
        name: "examples",
        arguments: "[NAME]",
        about: "build and run every example; each asserts its own result",
        details: "",
        run: testing::examples,
    },
    Command {
        name: "doc",
        arguments: "",
        about: "build the documentation with warnings as errors",
        details: "",
        run: release::doc,
    },
    Command {
        name: "capability-table",
        arguments: "",
        about: "writes what each broker declares into the guide; a test fails when that is out of date",
        details: "",
        run: release::capability_table,
    },
    Command {
        name: "servers",
        arguments: "list | install [NAME…] | up NAME… | down [NAME…] | status | env NAME",
        about: "real servers for tests: install, start, stop",
        details: "\
list      what can be installed and started, and what is installed
install   installs what is missing (all of it without a name); Debian packages, needs root, and Go modules
up        starts servers that stay until `down`, each on a free port with new data
down      stops them and removes their data (all of them without a name)
status    what runs, and where
env       the line that hands a running server to tests: eval \"$(cargo xtask servers env redis)\"

State is kept in $TRUNKLINE_SERVERS, else $XDG_CACHE_HOME/trunkline/servers, else
~/.cache/trunkline/servers.",
        run: live::run,
    },
    Command {
        name: "prove",
        arguments: "[NAME…] [--quick] [--seed N] [--list] [--output json] [--write]",
        about: "run proofs; success only if each of them holds",
        details: "\
--quick         a smaller run of the same checks, on the build of the tests
--seed N        repeats the choices of an earlier run, whose table shows its seed
--list          names and what they prove
--output json   one JSON document on standard output
--write         replaces each proof's section of docs/proof.md",
        run: release::prove,
    },
    Command {
        name: "bench",
        arguments: "[NAME…] [--quick] [--check] [--list] [--output json] [--write]",
        about: "compare with peers measured in the same run",
        details: "\
--quick         fewer and shorter rounds
--check         fails if a ratio misses its target
--list          names and the questions they answer
--output json   one JSON document on standard output
--write         replaces each section of docs/benchmarks.md",
        run: release::bench,
    },
    Command {
        name: "features",
        arguments: "[CRATE…]",
        about: "clippy with each feature alone and with none",
        details: "",
        run: release::features,
    },
    Command {
        name: "msrv",
        arguments: "",
        about: "build with the oldest Rust version we promise",
        details: "Installs that toolchain with rustup if another one is in use.",
        run: release::msrv,
    },
    Command {
        name: "loom",
        arguments: "",
        about: "model-check hand-written atomics (tests named loom_* of crates that use loom)",
        details: "",
        run: release::loom,
    },
    Command {
        name: "deny",
        arguments: "[--advisories]",
        about: "licences, sources, banned and duplicate crates (cargo-deny)",
        details: "\
Installs cargo-deny into the cache directory if it is missing, which takes minutes.

--advisories   also asks the advisory database, which is fetched from the network",
        run: release::deny,
    },
];

/// Runs the command that `words` name.
pub(crate) fn dispatch(words: Vec<String>) -> Result<()> {
    let mut words = words.into_iter();
    let Some(name) = words.next() else {
        print!("{}", overview());
        return Err(Usage("a command is missing".to_owned()).into());
    };
    if matches!(name.as_str(), "--help" | "-h" | "help") {
        print!("{}", overview());
        return Ok(());
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        let names = COMMANDS.iter().map(|command| command.name);
        let hint =
            closest(&name, names).map_or_else(String::new, |c| format!("; did you mean `{c}`?"));
        return Err(Usage(format!("no command `{name}`{hint}")).into());
    };
    let arguments = Arguments::new(words);
    if arguments.wants_help() {
        print!("{}", help(command));
        return Ok(());
    }
    (command.run)(&Workspace::load()?, arguments)
}

fn overview() -> String {
    let width = COMMANDS
        .iter()
        .map(|command| command.name.len())
        .max()
        .unwrap_or(0);
    let mut text = "Usage: cargo xtask COMMAND [ARGUMENTS]\n\n".to_owned();
    for command in COMMANDS {
        text.push_str(&format!("  {:width$}  {}\n", command.name, command.about));
    }
    text.push_str("\n`cargo xtask COMMAND --help` says more.\n");
    text
}

fn help(command: &Command) -> String {
    let mut text = format!(
        "Usage: cargo xtask {} {}\n\n{}\n",
        command.name, command.arguments, command.about
    );
    if !command.details.is_empty() {
        text.push_str(&format!("\n{}\n", command.details));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_command_is_a_usage_error_with_a_proposal() {
        let error = dispatch(vec!["tets".to_owned()]).unwrap_err();
        assert!(error.is::<Usage>());
        assert!(
            error.to_string().contains("did you mean `test`?"),
            "{error}"
        );
    }

    #[test]
    fn every_command_is_in_the_overview() {
        for command in COMMANDS {
            assert!(overview().contains(&format!("  {} ", command.name)));
            assert!(help(command).contains(command.about));
        }
    }
}
