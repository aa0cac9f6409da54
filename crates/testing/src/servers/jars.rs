//! Programs that run on Java, made of jars from Maven Central.
//!
//! They are kept in the cache directory by their version, beside a script of the program's name that runs them. Java and
//! Maven themselves are Debian packages.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::bounded;
use super::environment;
use super::error::ServerError;
use super::program::Program;

/// How a [`Program::package`] says that it is made of jars: `maven:org.apache.kafka:kafka_2.13@4.3.1`.
const SCHEME: &str = "maven:";
const FETCHED_WITHIN: Duration = Duration::from_secs(600);
/// The Debian packages that bring Java and Maven.
pub(super) const PACKAGES: [(&str, &str); 2] =
    [("java", "openjdk-17-jre-headless"), ("mvn", "maven")];

/// What writes the logs: the jars of the server bring none.
const LOGGING: (&str, &str, &str) = ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4");

/// Group, artifact and version that a program is made of, if it is.
pub(super) fn artifact(program: &Program) -> Option<(&'static str, &'static str, &'static str)> {
    let (name, version) = program.package.strip_prefix(SCHEME)?.rsplit_once('@')?;
    let (group, artifact) = name.split_once(':')?;
    Some((group, artifact, version))
}

/// Where the program is, or would be.
pub(super) fn directory(program: &Program) -> Option<PathBuf> {
    let (_, _, version) = artifact(program)?;
    let name = format!("{}-{version}", program.name);
    Some(environment::cache().join("built").join(name))
}

/// Fetches the jars and writes the script. Whoever calls it holds the lock of installations, and Java and Maven are there.
pub(super) fn fetch(program: &Program) -> Result<(), ServerError> {
    let failed = |detail: String| ServerError::Install {
        package: program.package,
        detail,
    };
    let (Some(artifact), Some(place)) = (artifact(program), directory(program)) else {
        let text = "it is no `maven:group:artifact@version`";
        return Err(failed(text.to_owned()));
    };
    let work = place.join("fetching");
    match fs::remove_dir_all(&work) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(ServerError::io("remove", &work)(error));
        }
        _ => {}
    }
    fs::create_dir_all(&work).map_err(ServerError::io("create", &work))?;
    let pom = work.join("pom.xml");
    fs::write(&pom, project(&[artifact, LOGGING])).map_err(ServerError::io("write", &pom))?;
    let jars = work.join("lib");
    let mut command = Command::new("mvn");
    command
        .args(["-q", "-B", "dependency:copy-dependencies"])
        .args(["-DincludeScope=runtime", "-DoutputDirectory=lib"])
        .current_dir(&work)
        .stdin(Stdio::null());
    let done = bounded::run(&mut command, FETCHED_WITHIN).map_err(ServerError::io("run", "mvn"))?;
    if !done.status.success() {
        return Err(failed(format!("mvn: {}\n{}", done.status, done.text)));
    }
    let kept = place.join("lib");
    match fs::remove_dir_all(&kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(ServerError::io("remove", &kept)(error));
        }
        _ => {}
    }
    fs::rename(&jars, &kept).map_err(ServerError::io("rename", &jars))?;
    fs::remove_dir_all(&work).map_err(ServerError::io("remove", &work))?;
    // Last, as it is what says that the program is there.
    script(&place, program.name)
}

fn script(place: &Path, name: &str) -> Result<(), ServerError> {
    let new = place.join("script");
    fs::write(&new, SCRIPT).map_err(ServerError::io("write", &new))?;
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&new, mode).map_err(ServerError::io("make executable", &new))?;
    let path = place.join(name);
    fs::rename(&new, &path).map_err(ServerError::io("rename", &new))
}

/// Java with a small heap and little compiling, in place of the shell.
const SCRIPT: &str = r#"#!/bin/sh
# serve FILE | format ARGUMENTS...
what=$1; shift
case $what in
serve) class=kafka.Kafka ;;
format) class=kafka.tools.StorageTool; set -- format "$@" ;;
*) echo "serve or format, not $what" >&2; exit 2 ;;
esac
exec java -Xms64m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
  -Djava.net.preferIPv4Stack=true ${KAFKA_LOG4J:+-Dlog4j2.configurationFile="$KAFKA_LOG4J"} \
  -cp "$(dirname "$0")/lib/*" "$class" "$@"
"#;

fn project(artifacts: &[(&str, &str, &str)]) -> String {
    let dependencies: String = artifacts
        .iter()
        .map(|(group, artifact, version)| {
            format!(
                "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
                 <version>{version}</version></dependency>"
            )
        })
        .collect();
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>trunkline</groupId><artifactId>server</artifactId><version>1</version>\
         <packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_jars_is_kept_by_its_version() {
        let program = Program {
            name: "kafka-server",
            package: "maven:org.apache.kafka:kafka_2.13@4.3.1",
            version_arguments: &[],
        };
        let expected = ("org.apache.kafka", "kafka_2.13", "4.3.1");
        assert_eq!(artifact(&program), Some(expected));
        let place = directory(&program).unwrap();
        assert!(place.ends_with("built/kafka-server-4.3.1"), "{place:?}");
        assert!(project(&[expected]).contains("<artifactId>kafka_2.13</artifactId>"));
    }
}
