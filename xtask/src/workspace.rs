//! The workspace as `cargo metadata` describes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::arguments::{Usage, closest};
use crate::environment;
use crate::process;

/// Prefix that may be left out on the command line.
const PREFIX: &str = "trunkline-";

/// Packages of this workspace, in the order of their names.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// One package.
#[derive(Clone, Debug, Default)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Relative to the root.
    pub(crate) directory: PathBuf,
    pub(crate) rust_version: Option<String>,
    pub(crate) features: BTreeMap<String, Vec<String>>,
    pub(crate) dependencies: Vec<Dependency>,
    /// `package.metadata.trunkline.servers`: what its tests need.
    pub(crate) servers: Vec<String>,
}

/// One line of `[dependencies]` and its kin.
#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) features: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Build,
    Dev,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Self> {
        let mut command = Command::new(environment::cargo());
        command.args(["metadata", "--no-deps", "--format-version", "1"]);
        let text = process::output(&mut command)?;
        let metadata = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
        Self::parse(&metadata).context("cargo metadata lacks a field")
    }

    fn parse(metadata: &Value) -> Option<Self> {
        let root = PathBuf::from(metadata.get("workspace_root")?.as_str()?);
        let target = PathBuf::from(metadata.get("target_directory")?.as_str()?);
        let mut packages = metadata
            .get("packages")?
            .as_array()?
            .iter()
            .map(|package| Package::parse(package, &root))
            .collect::<Option<Vec<_>>>()?;
        packages.sort_by(|a, b| a.name.cmp(&b.name));
        Some(Self {
            root,
            target,
            packages,
        })
    }

    pub(crate) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    /// The package that somebody means by `name`, with or without the prefix.
    pub(crate) fn named(&self, name: &str) -> Result<&Package> {
        let prefixed = format!("{PREFIX}{name}");
        self.package(name)
            .or_else(|| self.package(&prefixed))
            .ok_or_else(|| {
                let short = self
                    .packages
                    .iter()
                    .map(|p| p.name.strip_prefix(PREFIX).unwrap_or(&p.name));
                let hint = closest(name.strip_prefix(PREFIX).unwrap_or(name), short)
                    .map_or_else(String::new, |close| format!("; did you mean `{close}`?"));
                Usage(format!("no crate `{name}` in this workspace{hint}")).into()
            })
    }

    /// Packages that can be built together without switching on, in each other, features that are
    /// off by default. The test kit does not count: its features choose suites, nothing else.
    pub(crate) fn with_default_features(&self) -> Vec<&Package> {
        self.packages
            .iter()
            .filter(|package| !self.widens(package))
            .collect()
    }

    fn widens(&self, package: &Package) -> bool {
        package.dependencies.iter().any(|dependency| {
            dependency.name != "trunkline-testing"
                && self.package(&dependency.name).is_some_and(|target| {
                    let default = target.default_features();
                    dependency
                        .features
                        .iter()
                        .any(|feature| !default.contains(feature.as_str()))
                })
        })
    }

    /// What tests of all packages need, each once.
    pub(crate) fn servers(&self) -> BTreeSet<&str> {
        self.packages
            .iter()
            .flat_map(|p| &p.servers)
            .map(String::as_str)
            .collect()
    }
}

impl Package {
    fn parse(package: &Value, root: &std::path::Path) -> Option<Self> {
        let manifest = PathBuf::from(package.get("manifest_path")?.as_str()?);
        let directory = manifest.parent()?;
        let features = package
            .get("features")?
            .as_object()?
            .iter()
            .map(|(name, on)| Some((name.clone(), strings(on)?)))
            .collect::<Option<_>>()?;
        let servers = package
            .get("metadata")
            .and_then(|metadata| metadata.get("trunkline")?.get("servers"))
            .map_or(Some(Vec::new()), strings)?;
        Some(Self {
            name: package.get("name")?.as_str()?.to_owned(),
            directory: directory.strip_prefix(root).unwrap_or(directory).to_owned(),
            rust_version: package.get("rust_version")?.as_str().map(str::to_owned),
            features,
            dependencies: package
                .get("dependencies")?
                .as_array()?
                .iter()
                .map(Dependency::parse)
                .collect::<Option<_>>()?,
            servers,
        })
    }

    /// Whether its own code is the same with any features, and its tests take real servers, and so minutes.
    pub(crate) fn is_one_on_servers(&self) -> bool {
        let own = self.features.keys().any(|feature| feature != "default");
        !own && !self.servers.is_empty()
    }

    /// Everything that `default` switches on.
    fn default_features(&self) -> BTreeSet<&str> {
        let mut on = BTreeSet::new();
        let mut open = vec!["default"];
        while let Some(feature) = open.pop() {
            if on.insert(feature) {
                let implied = self.features.get(feature).into_iter().flatten();
                open.extend(
                    implied
                        .map(String::as_str)
                        .filter(|name| !name.contains([':', '/'])),
                );
            }
        }
        on
    }
}

impl Dependency {
    fn parse(dependency: &Value) -> Option<Self> {
        let kind = match dependency.get("kind")?.as_str() {
            None => Kind::Normal,
            Some("build") => Kind::Build,
            Some("dev") => Kind::Dev,
            Some(_) => return None,
        };
        Some(Self {
            name: dependency.get("name")?.as_str()?.to_owned(),
            kind,
            features: strings(dependency.get("features")?)?,
        })
    }
}

fn strings(list: &Value) -> Option<Vec<String>> {
    list.as_array()?
        .iter()
        .map(|word| word.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made_up() -> Workspace {
        let package = |name: &str, features: Value, dependencies: Value, metadata: Value| {
            json!({
                "name": name, "manifest_path": format!("/w/crates/{name}/Cargo.toml"),
                "rust_version": "1.95", "features": features, "dependencies": dependencies,
                "metadata": metadata,
            })
        };
        let on = |name: &str, kind: Value, features: Value| json!([{ "name": name, "kind": kind, "features": features }]);
        let facade = json!({ "default": ["http"], "http": ["dep:x"], "full": ["http", "gateway"], "gateway": [] });
        Workspace::parse(&json!({
            "workspace_root": "/w", "target_directory": "/w/target",
            "packages": [
                package("trunkline", facade, json!([]), Value::Null),
                package("trunkline-cli", json!({}), on("trunkline", Value::Null, json!(["full"])), Value::Null),
                package("trunkline-plain", json!({}), on("trunkline", json!("dev"), json!(["http"])), Value::Null),
                package("trunkline-testing", json!({ "servers": [] }), json!([]),
                    json!({ "trunkline": { "servers": ["redis"] } })),
                package("trunkline-tested", json!({}), on("trunkline-testing", json!("dev"), json!(["servers"])), Value::Null),
            ],
        }))
        .unwrap()
    }

    #[test]
    fn names_work_with_and_without_prefix() {
        let workspace = made_up();
        assert_eq!(workspace.named("cli").unwrap().name, "trunkline-cli");
        assert_eq!(
            workspace.named("trunkline-cli").unwrap().name,
            "trunkline-cli"
        );
        assert_eq!(workspace.named("trunkline").unwrap().name, "trunkline");
        let error = workspace.named("testin").unwrap_err();
        assert!(error.is::<Usage>());
        assert!(
            error.to_string().contains("did you mean `testing`?"),
            "{error}"
        );
    }

    #[test]
    fn who_widens_features_is_left_out_of_the_default_build() {
        let workspace = made_up();
        let names: Vec<_> = workspace
            .with_default_features()
            .iter()
            .map(|p| p.name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "trunkline",
                "trunkline-plain",
                "trunkline-tested",
                "trunkline-testing"
            ]
        );
    }

    #[test]
    fn servers_are_declared_in_manifests() {
        assert_eq!(
            made_up().servers().into_iter().collect::<Vec<_>>(),
            ["redis"]
        );
    }
}
