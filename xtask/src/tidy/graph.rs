//! The direction of dependencies.

use super::layer::{
    BENCHES, FACADE, Layer, MACROS, MACROS_CORE, MANAGER, SIDEWAYS, TESTING, XTASK,
};
use crate::workspace::{Dependency, Kind, Package, Workspace};

/// Every dependency inside the workspace that the map does not allow.
pub(super) fn violations(workspace: &Workspace) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in &workspace.packages {
        let Some(layer) = Layer::of(package) else {
            wrong.push(format!(
                "{}: has no layer; give it one in xtask/src/tidy/layer.rs and ARCHITECTURE.md",
                package.name
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let Some(target) = workspace.package(&dependency.name) else {
                continue;
            };
            let Some(below) = Layer::of(target) else {
                continue;
            };
            let edge = Edge {
                package,
                layer,
                dependency,
                target,
                below,
            };
            if let Err(reason) = edge.allowed() {
                wrong.push(format!("{} -> {}: {reason}", package.name, target.name));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    wrong
}

struct Edge<'a> {
    package: &'a Package,
    layer: Layer,
    dependency: &'a Dependency,
    target: &'a Package,
    below: Layer,
}

type Verdict = Result<(), &'static str>;

impl Edge<'_> {
    fn allowed(&self) -> Verdict {
        let from = self.package.name.as_str();
        if from == XTASK && self.target.name != TESTING {
            return Err("xtask stays light: of the workspace it may use the test kit only");
        }
        match self.below {
            Layer::App => Err("nothing depends on an application"),
            Layer::TestKit => self.to_test_kit(),
            Layer::Facade => self.to_facade(),
            Layer::Macros => self.to_macros(),
            Layer::Backend => self.to_backend(),
            Layer::Core | Layer::Shared | Layer::Domain | Layer::Transport | Layer::Compose => {
                self.downwards()
            }
        }
    }

    fn is_dev(&self) -> bool {
        self.dependency.kind == Kind::Dev
    }

    fn to_test_kit(&self) -> Verdict {
        if self.is_dev() || [BENCHES, XTASK].contains(&self.package.name.as_str()) {
            return Ok(());
        }
        Err("the test kit is for dev-dependencies, benches and xtask only")
    }

    fn to_facade(&self) -> Verdict {
        match self.layer {
            Layer::App => Ok(()),
            Layer::TestKit | Layer::Macros if self.is_dev() => Ok(()),
            _ => Err("nothing below the facade names it"),
        }
    }

    fn to_macros(&self) -> Verdict {
        match (self.package.name.as_str(), self.target.name.as_str()) {
            (FACADE, MACROS) | (MACROS, MACROS_CORE) => Ok(()),
            _ => Err("only the facade depends on the macros, and only they on their core"),
        }
    }

    fn to_backend(&self) -> Verdict {
        match self.layer {
            Layer::Backend => Err("a backend never knows another backend"),
            Layer::Facade | Layer::App | Layer::TestKit => Ok(()),
            _ if self.package.name == MANAGER => Ok(()),
            _ => Err("only the manager and what is above it may name a backend"),
        }
    }

    fn downwards(&self) -> Verdict {
        let pair = (self.package.name.as_str(), self.target.name.as_str());
        if self.layer == Layer::Macros {
            return Err("macros know nothing of the workspace");
        }
        if self.below.height() < self.layer.height() || SIDEWAYS.contains(&pair) {
            return Ok(());
        }
        Err(match self.below.height() == self.layer.height() {
            true => "crates of one layer do not know each other",
            false => "dependencies point down (tests that need a higher layer belong there)",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use Kind::{Build, Dev, Normal};

    use super::*;

    /// A workspace of these edges; directories follow from the names.
    fn workspace(edges: &[(&str, &str, Kind)]) -> Workspace {
        let mut packages: Vec<Package> = Vec::new();
        let names = edges.iter().flat_map(|(from, to, _)| [*from, *to]);
        for name in names {
            if packages.iter().all(|package| package.name != name) {
                let directory = match name {
                    "trunkline-sqlite"
                    | "trunkline-redis"
                    | "trunkline-consul"
                    | "trunkline-etcd"
                    | "trunkline-dns"
                    | "trunkline-kubernetes" => "backends/x",
                    "trunkline-cli" => "bin/trunkline",
                    "trunkline-examples" => "examples",
                    BENCHES => "benches",
                    XTASK => "xtask",
                    _ => "crates/x",
                };
                packages.push(Package {
                    name: name.to_owned(),
                    directory: PathBuf::from(directory),
                    ..Package::default()
                });
            }
        }
        for (from, to, kind) in edges {
            let package = packages
                .iter_mut()
                .find(|package| package.name == *from)
                .unwrap();
            package.dependencies.push(Dependency {
                name: (*to).to_owned(),
                kind: *kind,
                features: Vec::new(),
            });
        }
        Workspace {
            packages,
            ..Workspace::default()
        }
    }

    #[track_caller]
    fn refused(from: &str, to: &str, kind: Kind, reason: &str) {
        let wrong = violations(&workspace(&[(from, to, kind)]));
        assert_eq!(wrong.len(), 1, "{from} -> {to}: {wrong:?}");
        assert!(
            wrong[0].starts_with(&format!("{from} -> {to}: ")),
            "{wrong:?}"
        );
        assert!(wrong[0].contains(reason), "{wrong:?}");
    }

    #[track_caller]
    fn fine(from: &str, to: &str, kind: Kind) {
        assert_eq!(
            violations(&workspace(&[(from, to, kind)])),
            [""; 0],
            "{from} -> {to}"
        );
    }

    #[test]
    fn arrows_point_down() {
        fine("trunkline-http", "trunkline-discovery", Normal);
        fine("trunkline-server", "trunkline-http", Normal);
        for (from, to) in [
            ("trunkline-core", "trunkline-resilience"),
            ("trunkline-resilience", "trunkline-messaging"),
            ("trunkline-discovery", "trunkline-http"),
            ("trunkline-sqlite", "trunkline-manager"),
        ] {
            for kind in [Normal, Build, Dev] {
                refused(from, to, kind, "point down");
            }
        }
    }

    #[test]
    fn one_layer_knows_only_the_listed_neighbours() {
        for (from, to) in SIDEWAYS {
            fine(from, to, Normal);
            let reason = if matches!(
                *from,
                "trunkline-consul" | "trunkline-etcd" | "trunkline-kubernetes"
            ) {
                "may name a backend"
            } else {
                "one layer"
            };
            refused(to, from, Normal, reason);
        }
        refused(
            "trunkline-messaging",
            "trunkline-discovery",
            Normal,
            "one layer",
        );
        refused(
            "trunkline-resilience",
            "trunkline-telemetry",
            Normal,
            "one layer",
        );
        refused("trunkline-server", "trunkline-manager", Normal, "one layer");
        refused("trunkline-sqlite", "trunkline-http", Normal, "one layer");
    }

    #[test]
    fn backends_do_not_know_each_other() {
        for kind in [Normal, Build, Dev] {
            refused(
                "trunkline-sqlite",
                "trunkline-redis",
                kind,
                "another backend",
            );
        }
    }

    #[test]
    fn only_the_manager_and_above_name_backends() {
        for from in [
            "trunkline-manager",
            "trunkline",
            "trunkline-cli",
            BENCHES,
            TESTING,
        ] {
            fine(from, "trunkline-sqlite", Normal);
        }
        for from in [
            "trunkline-server",
            "trunkline-gateway",
            "trunkline-http",
            "trunkline-events",
        ] {
            refused(from, "trunkline-sqlite", Normal, "may name a backend");
        }
    }

    #[test]
    fn only_the_facade_depends_on_macros() {
        fine("trunkline", MACROS, Normal);
        fine(MACROS, MACROS_CORE, Normal);
        for from in [
            "trunkline-http",
            "trunkline-manager",
            "trunkline-cli",
            TESTING,
        ] {
            refused(from, MACROS, Normal, "only the facade");
        }
        refused("trunkline", MACROS_CORE, Normal, "only the facade");
        refused(MACROS, "trunkline-core", Normal, "macros know nothing");
        refused(MACROS, "trunkline", Normal, "nothing below the facade");
        fine(MACROS, "trunkline", Dev);
    }

    #[test]
    fn test_kit_is_for_tests() {
        for from in [
            "trunkline-core",
            "trunkline-sqlite",
            "trunkline",
            "trunkline-cli",
        ] {
            fine(from, TESTING, Dev);
            refused(from, TESTING, Normal, "test kit");
            refused(from, TESTING, Build, "test kit");
        }
        fine(BENCHES, TESTING, Normal);
        fine(XTASK, TESTING, Normal);
    }

    #[test]
    fn test_kit_may_use_anything_below() {
        for to in [
            "trunkline-core",
            "trunkline-messaging",
            "trunkline-sqlite",
            "trunkline-http",
        ] {
            fine(TESTING, to, Normal);
        }
    }

    #[test]
    fn facade_is_named_by_applications_only() {
        for from in ["trunkline-cli", "trunkline-examples", BENCHES] {
            fine(from, FACADE, Normal);
        }
        fine(TESTING, FACADE, Dev);
        refused(TESTING, FACADE, Normal, "below the facade");
        for kind in [Normal, Build, Dev] {
            refused("trunkline-manager", FACADE, kind, "below the facade");
            refused("trunkline-core", FACADE, kind, "below the facade");
        }
    }

    #[test]
    fn nothing_depends_on_applications() {
        refused("trunkline", "trunkline-cli", Normal, "application");
        refused(BENCHES, "trunkline-cli", Normal, "application");
    }

    #[test]
    fn xtask_stays_light() {
        refused(XTASK, "trunkline-core", Normal, "stays light");
        refused(XTASK, FACADE, Normal, "stays light");
    }

    #[test]
    fn unknown_crate_needs_a_layer() {
        let wrong = violations(&workspace(&[(
            "trunkline-surprise",
            "trunkline-core",
            Normal,
        )]));
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].contains("has no layer"), "{wrong:?}");
    }
}
