//! Finds the sources, reads them and lays them over each other.

use std::path::{Path, PathBuf};

use trunkline_core::Result;

use super::check;
use super::diagnostics::{Diagnostic, Diagnostics, closest};
use super::expand::expand;
use super::merge::merge;
use super::model::CommunicationConfig;
use super::place::Place;
use super::source::env::{self, Environment};
use super::tree::{Node, file_name};
use super::{profile, seeds, source};

/// Base files that are looked for, in this order; the first one is read.
const BASES: [&str; 9] = [
    "communication.yaml",
    "communication.yml",
    "communication.toml",
    "communication.json",
    "config/communication.yaml",
    "config/communication.yml",
    "config/communication.toml",
    "config/communication.json",
    "config/settings.toml",
];

/// Endings of profile files, in this order.
const ENDINGS: [&str; 4] = ["yaml", "yml", "toml", "json"];

impl CommunicationConfig {
    /// Loads the configuration of this process: defaults < base file < profile file < environment.
    ///
    /// The base file is the one that `TRUNKLINE_CONFIG` names, or the first of `communication.{yaml,toml,json}`,
    /// `config/communication.*` and `config/settings.toml`. The profile file is `config/<ENVIRONMENT>.yaml`. Neither
    /// needs to exist.
    ///
    /// # Errors
    /// `Config` with every problem ([`Diagnostics`]) when something cannot be used.
    pub fn load() -> Result<Self> {
        ConfigLoader::new().load()
    }

    /// Loads one file over the defaults and nothing else; the environment serves `${…}` alone.
    ///
    /// # Errors
    /// `Config` with every problem ([`Diagnostics`]) when something cannot be used.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        ConfigLoader::new()
            .with_file(path.as_ref())
            .only_file()
            .load()
    }

    /// Loads the environment over the defaults and nothing else.
    ///
    /// # Errors
    /// `Config` with every problem ([`Diagnostics`]) when something cannot be used.
    pub fn from_env() -> Result<Self> {
        ConfigLoader::new().only_environment().load()
    }
}

/// Which sources are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sources {
    All,
    File,
    Environment,
}

/// Finds the sources of a configuration, reads them and lays them over each other.
///
/// ```
/// use trunkline_manager::{ConfigLoader, Environment};
///
/// let environment = Environment::from_pairs([("LOG_LEVEL", "DEBUG"), ("SERVICE_NAME", "orders")]);
/// let config = ConfigLoader::with_environment(environment).only_environment().load()?;
/// assert_eq!(config.service.name.as_deref(), Some("orders"));
/// assert_eq!(config.place("logging.level").unwrap().to_string(), "environment variable LOG_LEVEL");
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a loader does nothing until `load`"]
pub struct ConfigLoader {
    environment: Environment,
    directory: PathBuf,
    file: Option<PathBuf>,
    profile: Option<String>,
    sources: Sources,
}

impl Default for ConfigLoader {
    fn default() -> Self {
        Self::new()
    }
}

impl ConfigLoader {
    /// A loader with the variables of this process, in its working directory.
    pub fn new() -> Self {
        Self::with_environment(Environment::of_process())
    }

    /// A loader with these variables instead of those of the process.
    pub fn with_environment(environment: Environment) -> Self {
        Self {
            environment,
            directory: PathBuf::new(),
            file: None,
            profile: None,
            sources: Sources::All,
        }
    }

    /// Looks for files here instead of in the working directory.
    pub fn with_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// Reads this base file, which must exist, instead of looking for one.
    pub fn with_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Uses this profile instead of the one that the variable `ENVIRONMENT` names.
    pub fn with_profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = Some(profile.into());
        self
    }

    /// Reads the file alone: no profile, no environment but for `${…}`.
    pub fn only_file(mut self) -> Self {
        self.sources = Sources::File;
        self
    }

    /// Reads the environment alone.
    pub fn only_environment(mut self) -> Self {
        self.sources = Sources::Environment;
        self
    }

    /// Loads the configuration. What is merely odd is in [`CommunicationConfig::warnings`].
    ///
    /// # Errors
    /// `Config` with every problem ([`Diagnostics`]) when something cannot be used.
    pub fn load(&self) -> Result<CommunicationConfig> {
        let (config, found) = self.check();
        config.ok_or_else(|| found.into_error())
    }

    /// Loads the configuration and says everything that was found, warnings included. There is no configuration when
    /// there are errors.
    #[must_use]
    pub fn check(&self) -> (Option<CommunicationConfig>, Diagnostics) {
        let loaded = self.read();
        (loaded.config, loaded.found)
    }

    pub(crate) fn read(&self) -> Loaded {
        let mut reading = Reading {
            loader: self,
            problems: Diagnostics::default(),
            watched: Vec::new(),
            read: Vec::new(),
        };
        let (tree, profile) = reading.layers();
        let (config, found) = check::finish(&tree, profile, reading.read, reading.problems);
        Loaded {
            config,
            found,
            watched: reading.watched,
        }
    }
}

/// What came of reading every source.
pub(crate) struct Loaded {
    pub(crate) config: Option<CommunicationConfig>,
    pub(crate) found: Diagnostics,
    /// The files that a change of the configuration can come from, whether they exist or not.
    pub(crate) watched: Vec<PathBuf>,
}

struct Reading<'l> {
    loader: &'l ConfigLoader,
    problems: Diagnostics,
    watched: Vec<PathBuf>,
    read: Vec<PathBuf>,
}

impl Reading<'_> {
    /// All layers, merged, and the profile.
    fn layers(&mut self) -> (Node, String) {
        let profile = self.profile();
        let mut tree = Node::table(Place::code());
        if self.loader.sources != Sources::Environment {
            let base = self.base();
            if let Some(base) = &base {
                tree = self.lay(tree, base, true);
            }
            if self.loader.sources == Sources::All
                && let Some(path) = self.profile_file(base.as_deref(), &profile)
            {
                tree = self.lay(tree, &path, false);
            }
        }
        if self.loader.sources != Sources::File {
            let layer = env::layer(&self.loader.environment, &tree, &mut self.problems);
            let layer = seeds::layer(layer, &mut self.surroundings());
            tree = merge(tree, layer);
        }
        (tree, profile)
    }

    fn surroundings(&mut self) -> seeds::Surroundings<'_> {
        seeds::Surroundings {
            directory: &self.loader.directory,
            secret_files: &mut self.watched,
            problems: &mut self.problems,
        }
    }

    fn profile(&mut self) -> String {
        let variable = self.loader.environment.filled(env::PROFILE).map(str::trim);
        let profile = self
            .loader
            .profile
            .as_deref()
            .or(variable)
            .unwrap_or(profile::DEFAULT);
        let place = if self.loader.profile.is_some() {
            Place::code()
        } else {
            Place::variable(env::PROFILE)
        };
        // It becomes part of a path.
        if !profile
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        {
            let problem = Diagnostic::error(&place, "it is not the name of a profile");
            self.problems
                .push(problem.allow("letters, digits, `-` and `_`, such as production"));
            return profile::DEFAULT.to_owned();
        }
        if !profile::KNOWN.contains(&profile)
            && let Some(meant) = closest(profile, profile::KNOWN)
        {
            let warning = Diagnostic::warning(
                &place,
                format!("the profile `{profile}` is not one of the usual ones"),
            );
            self.problems.push(warning.suggest(Some(meant)));
        }
        profile.to_owned()
    }

    /// The base file: the one asked for, or the first that is there.
    fn base(&mut self) -> Option<PathBuf> {
        let variable = self
            .loader
            .environment
            .filled(env::CONFIG_FILE)
            .map(PathBuf::from);
        let use_variable = self.loader.sources == Sources::All;
        if let Some(named) = self
            .loader
            .file
            .clone()
            .or(variable.filter(|_| use_variable))
        {
            return Some(self.loader.directory.join(named));
        }
        let paths = BASES.map(|name| self.loader.directory.join(name));
        self.watched.extend(paths.iter().cloned());
        let mut there = paths.into_iter().filter(|path| path.is_file());
        let base = there.next();
        if let (Some(base), Some(second)) = (&base, there.next()) {
            let message = format!("it is not read, since {} is there", base.display());
            let place = Place::file(&file_name(&second), 0, 0);
            self.problems.push(Diagnostic::warning(&place, message));
        }
        base
    }

    fn profile_file(&mut self, base: Option<&Path>, profile: &str) -> Option<PathBuf> {
        let beside = base
            .and_then(Path::parent)
            .unwrap_or(&self.loader.directory);
        let is_config = beside.file_name().is_some_and(|name| name == "config");
        let folder = if is_config {
            beside.to_owned()
        } else {
            beside.join("config")
        };
        let paths = ENDINGS.map(|ending| folder.join(format!("{profile}.{ending}")));
        self.watched.extend(paths.iter().cloned());
        let found = paths.into_iter().find(|path| path.is_file())?;
        (Some(found.as_path()) != base).then_some(found)
    }

    /// Reads a file and lays it over the tree.
    fn lay(&mut self, tree: Node, path: &Path, must_exist: bool) -> Node {
        self.watched.push(path.to_owned());
        match source::read(path) {
            Ok(Some(mut layer)) => {
                self.read.push(path.to_owned());
                expand(&mut layer, &self.loader.environment, &mut self.problems);
                let layer = seeds::file(layer, &mut self.surroundings());
                merge(tree, layer)
            }
            Ok(None) => {
                if must_exist {
                    let place = Place::file(&file_name(path), 0, 0);
                    self.problems
                        .push(Diagnostic::error(&place, "there is no such file"));
                }
                tree
            }
            Err(problems) => {
                self.read.push(path.to_owned());
                self.problems.extend(problems);
                tree
            }
        }
    }
}
