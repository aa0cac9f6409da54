//! The core performs no I/O: it depends on nothing that could.

use crate::workspace::{Kind, Workspace};

const CORE: &str = "trunkline-core";

/// What the core may be built on. A new line here needs a reason in the commit.
const MAY_USE: &[&str] = &[
    "bytes",
    "fastrand",
    "indexmap",
    "jiff",
    "schemars",
    "serde",
    "serde_json",
    "thiserror",
    "tokio",
    "tokio-util",
    "tracing",
    "uuid",
];

/// Features of tokio that reach files, sockets or processes.
const REACHES_OUT: &[&str] = &["fs", "full", "io-std", "net", "process", "signal"];

/// Dependencies of the core that could perform I/O. Its tests may use what they like.
pub(super) fn violations(workspace: &Workspace) -> Vec<String> {
    let Some(core) = workspace.package(CORE) else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    for dependency in core
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind != Kind::Dev)
    {
        let name = dependency.name.as_str();
        if !MAY_USE.contains(&name) {
            wrong.push(format!(
                "{CORE} -> {name}: the core performs no I/O; what it may use is listed in xtask/src/tidy/purity.rs"
            ));
        }
        for feature in &dependency.features {
            if name == "tokio" && REACHES_OUT.contains(&feature.as_str()) {
                wrong.push(format!(
                    "{CORE} -> tokio/{feature}: the core performs no I/O"
                ));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Dependency, Package};

    fn check(name: &str, kind: Kind, features: &[&str]) -> Vec<String> {
        let features = features.iter().map(|&feature| feature.to_owned()).collect();
        let dependency = Dependency {
            name: name.to_owned(),
            kind,
            features,
        };
        let core = Package {
            name: CORE.to_owned(),
            dependencies: vec![dependency],
            ..Package::default()
        };
        violations(&Workspace {
            packages: vec![core],
            ..Workspace::default()
        })
    }

    #[test]
    fn what_could_perform_io_is_refused() {
        for kind in [Kind::Normal, Kind::Build] {
            assert_eq!(check("hyper", kind, &[]).len(), 1);
            assert_eq!(check("tokio", kind, &["rt", "net", "fs"]).len(), 2);
        }
    }

    #[test]
    fn pure_parts_and_test_tools_are_fine() {
        assert!(check("serde", Kind::Normal, &["derive"]).is_empty());
        assert!(check("tokio", Kind::Normal, &["rt", "time"]).is_empty());
        assert!(check("hyper", Kind::Dev, &[]).is_empty());
        assert!(check("tokio", Kind::Dev, &["net"]).is_empty());
    }
}
