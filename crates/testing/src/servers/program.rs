//! Programs: servers and tools that come from Debian packages, are built from Go modules, or are made of jars.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::bounded;
use super::built;
use super::environment;
use super::error::ServerError;
use super::jars;

const VERSION_WITHIN: Duration = Duration::from_secs(10);

/// A program and the package that brings it.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// Name of the executable.
    pub name: &'static str,
    /// Debian package that contains it, `package/release` for one of another release, the Go module that it is built
    /// from, as `go:module@version`, or the jar that it is made of with all that it needs, as
    /// `maven:group:artifact@version`.
    pub package: &'static str,
    /// Arguments that make it print its version and end; none where it has no such.
    pub version_arguments: &'static [&'static str],
}

/// `redis-server`.
pub static REDIS_SERVER: Program = Program {
    name: "redis-server",
    package: "redis-server",
    version_arguments: &["--version"],
};

/// `rabbitmq-server`. Started without arguments, it serves: it does not tell its version.
pub static RABBITMQ_SERVER: Program = Program {
    name: "rabbitmq-server",
    package: "rabbitmq-server",
    version_arguments: &[],
};

/// Where programs are whose namesakes in `PATH` are wrappers of another kind: RabbitMQ's changes to another user.
const BEFORE_PATH: &[(&str, &str)] = &[("rabbitmq-server", "/usr/lib/rabbitmq/bin")];

/// `consul`. Debian dropped it after bullseye; any newer one on the `PATH` is used instead.
pub static CONSUL_AGENT: Program = Program {
    name: "consul",
    package: "consul/bullseye",
    version_arguments: &["version"],
};

/// `etcd`.
pub static ETCD_SERVER: Program = Program {
    name: "etcd",
    package: "etcd-server",
    version_arguments: &["--version"],
};

/// `knotd`, a server of DNS.
pub static KNOT_SERVER: Program = Program {
    name: "knotd",
    package: "knot",
    version_arguments: &["--version"],
};

/// `kube-apiserver`, and what starts it together with etcd. Built in five minutes on two cores.
pub static KUBERNETES_SERVER: Program = Program {
    name: super::kubernetes::SCRIPT_NAME,
    package: "go-main:k8s.io/kubernetes@v1.36.3 cmd/kube-apiserver v0.36.3",
    version_arguments: &[],
};

/// `nats-server`. Debian's is of 2022.
pub static NATS_SERVER: Program = Program {
    name: "nats-server",
    package: "go:github.com/nats-io/nats-server/v2@v2.15.2",
    version_arguments: &["--version"],
};

/// A script that runs Kafka, or formats its storage.
pub static KAFKA_SERVER: Program = Program {
    name: "kafka-server",
    package: "maven:org.apache.kafka:kafka_2.13@4.3.1",
    version_arguments: &[],
};

/// `promtool`, which checks that metrics are well formed (`promtool check metrics`).
pub static PROMTOOL: Program = Program {
    name: "promtool",
    package: "prometheus",
    version_arguments: &["--version"],
};

/// `node`, which runs what is written for it: test suites of others.
pub static NODE: Program = Program {
    name: "node",
    package: "nodejs",
    version_arguments: &["--version"],
};

/// `npm`, which fetches what `node` runs.
pub static NPM: Program = Program {
    name: "npm",
    package: "npm",
    version_arguments: &["--version"],
};

/// `virtualenv`, which makes a place for what comes from PyPI, and brings Python.
pub static VIRTUALENV: Program = Program {
    name: "virtualenv",
    package: "virtualenv",
    version_arguments: &["--version"],
};

/// `kcat`, a client of Kafka for the command line.
pub static KCAT: Program = Program {
    name: "kcat",
    package: "kcat",
    version_arguments: &["-V"],
};

/// Programs that tests call but that do not serve.
pub static TOOLS: &[&Program] = &[&PROMTOOL, &NODE, &NPM, &VIRTUALENV, &KCAT];

impl Program {
    /// Where the program is, if it is installed.
    #[must_use]
    pub fn find(&self) -> Option<PathBuf> {
        let before = BEFORE_PATH.iter().filter(|(name, _)| *name == self.name);
        before
            .map(|(_, directory)| PathBuf::from(directory))
            // What is built here is of the version that is asked for; what stands on the `PATH` may be of any.
            .chain(built::directory(self))
            .chain(jars::directory(self))
            .chain(environment::search_path())
            .map(|directory| directory.join(self.name))
            .find(|path| is_executable(path))
    }

    /// Where the program is.
    ///
    /// # Errors
    /// [`ServerError::NotInstalled`] if it is nowhere to be found.
    pub fn locate(&self) -> Result<PathBuf, ServerError> {
        self.find().ok_or(ServerError::NotInstalled {
            program: self.name,
            package: self.package,
        })
    }

    /// The version that the installed program reports, such as `7.0.15`.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        if self.version_arguments.is_empty() {
            return None;
        }
        let mut command = Command::new(self.find()?);
        command.args(self.version_arguments).stdin(Stdio::null());
        let output = bounded::run(&mut command, VERSION_WITHIN).ok()?;
        first_version(&output.text).map(str::to_owned)
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The first `digits.digits…` in a text.
fn first_version(text: &str) -> Option<&str> {
    text.split(|c: char| !(c.is_ascii_digit() || c == '.'))
        .map(|word| word.trim_matches('.'))
        .find(|word| word.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_found_in_what_programs_print() {
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64";
        assert_eq!(first_version(redis), Some("7.0.15"));
        let promtool = "promtool, version 2.42.0+ds (branch: debian/sid, revision: 2.42.0+ds-5+b5)";
        assert_eq!(first_version(promtool), Some("2.42.0"));
        assert_eq!(first_version("no figure here."), None);
    }

    #[test]
    fn absent_program_is_named_with_its_package() {
        let absent = Program {
            name: "trunkline-no-such-program",
            package: "no-such-package",
            version_arguments: &[],
        };
        let error = absent.locate().unwrap_err().to_string();
        assert!(error.contains("trunkline-no-such-program"), "{error}");
        assert!(error.contains("no-such-package"), "{error}");
        assert_eq!(absent.version(), None);
    }
}
