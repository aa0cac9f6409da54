//! The map: which layer each package belongs to.

use crate::workspace::{Package, Workspace};

pub(super) const FACADE: &str = "trunkline";
pub(super) const MACROS: &str = "trunkline-macros";
pub(super) const MACROS_CORE: &str = "trunkline-macros-core";
pub(super) const MANAGER: &str = "trunkline-manager";
pub(super) const TESTING: &str = "trunkline-testing";
pub(super) const BENCHES: &str = "trunkline-benches";
pub(super) const XTASK: &str = "xtask";

/// Layers, lowest first. Transports and backends stand on the same level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Macros,
    Core,
    Shared,
    Domain,
    Transport,
    Backend,
    Compose,
    Facade,
    App,
    TestKit,
}

/// Dependencies inside a layer, each with its reason in ARCHITECTURE.md: from, to.
pub(super) const SIDEWAYS: &[(&str, &str)] = &[
    ("trunkline-events", "trunkline-messaging"),
    ("trunkline-manager", "trunkline-gateway"),
    ("trunkline-manager", "trunkline-server"),
    ("trunkline-gateway", "trunkline-server"),
    ("trunkline-consul", "trunkline-http"),
    ("trunkline-etcd", "trunkline-http"),
    ("trunkline-kubernetes", "trunkline-http"),
];

const NAMED: &[(&str, Layer)] = &[
    ("trunkline-core", Layer::Core),
    (MACROS, Layer::Macros),
    (MACROS_CORE, Layer::Macros),
    ("trunkline-resilience", Layer::Shared),
    ("trunkline-telemetry", Layer::Shared),
    ("trunkline-security", Layer::Shared),
    ("trunkline-messaging", Layer::Domain),
    ("trunkline-discovery", Layer::Domain),
    ("trunkline-events", Layer::Domain),
    ("trunkline-http", Layer::Transport),
    ("trunkline-grpc", Layer::Transport),
    ("trunkline-server", Layer::Compose),
    ("trunkline-gateway", Layer::Compose),
    (MANAGER, Layer::Compose),
    (FACADE, Layer::Facade),
    (TESTING, Layer::TestKit),
];

impl Layer {
    /// The layer of a package: by its name below `crates/`, by its directory elsewhere.
    pub(super) fn of(package: &Package) -> Option<Self> {
        let top = package
            .directory
            .iter()
            .next()
            .and_then(|part| part.to_str());
        match top {
            Some("backends") => Some(Self::Backend),
            Some("bin" | "examples" | "benches" | "xtask") => Some(Self::App),
            _ => NAMED
                .iter()
                .find(|(name, _)| *name == package.name)
                .map(|(_, layer)| *layer),
        }
    }

    /// Higher may use lower.
    pub(super) fn height(self) -> u8 {
        match self {
            Self::Macros | Self::Core => 0,
            Self::Shared => 1,
            Self::Domain => 2,
            Self::Transport | Self::Backend => 3,
            Self::Compose => 4,
            Self::Facade => 5,
            Self::App | Self::TestKit => 6,
        }
    }
}

/// The names that Rust code uses for the crates of backends.
pub(super) fn backend_idents(workspace: &Workspace) -> Vec<String> {
    let backends = workspace
        .packages
        .iter()
        .filter(|p| Layer::of(p) == Some(Layer::Backend));
    backends
        .map(|package| package.name.replace('-', "_"))
        .collect()
}
