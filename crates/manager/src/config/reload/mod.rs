//! Reads the configuration again when a file changes. What cannot be used is refused, and the old one stays.

mod fingerprint;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::sync::{Mutex, watch};
use tokio::time::MissedTickBehavior;
use trunkline_core::task::Scope;
use trunkline_core::{Error, Result, names};

use super::diagnostics::Diagnostics;
use super::loader::{ConfigLoader, Loaded};
use super::model::CommunicationConfig;
use super::tree::join;
use fingerprint::Fingerprints;

/// How often files are looked at, unless told otherwise.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// A configuration and how it came to be current.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConfigState {
    /// The configuration that applies.
    pub config: Arc<CommunicationConfig>,
    /// Counts the configurations, beginning with 0.
    pub generation: u64,
    /// The paths whose values differ from the generation before. Who may have missed one compares for himself:
    /// [`CommunicationConfig::changes_from`].
    pub changed: Arc<[String]>,
    /// Why the latest change was refused; the configuration is the one before it. `None` once it is mended.
    pub rejected: Option<Arc<Diagnostics>>,
}

/// A configuration that follows its files. Clones follow the same ones.
///
/// It looks at the files' times, sizes and contents at an interval, which works on every file system and for the
/// symbolic links that Kubernetes mounts.
#[derive(Clone, Debug)]
pub struct ConfigWatch {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    loader: ConfigLoader,
    state: watch::Sender<ConfigState>,
    files: Mutex<Fingerprints>,
}

impl ConfigWatch {
    /// Loads the configuration and follows its files until the scope stops.
    ///
    /// # Errors
    /// `Config` when the first configuration cannot be used.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is followed before it returns.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub async fn start(loader: ConfigLoader, interval: Duration, scope: &Scope) -> Result<Self> {
        let (loaded, files) = read(loader.clone(), Fingerprints::default()).await?;
        let Loaded { config, found, .. } = loaded;
        let config = config.ok_or_else(|| found.into_error())?;
        let (state, _) = watch::channel(ConfigState {
            config: Arc::new(config),
            generation: 0,
            changed: Arc::from([]),
            rejected: None,
        });
        let inner = Arc::new(Inner {
            loader,
            state,
            files: Mutex::new(files),
        });
        let follower = Arc::clone(&inner);
        let stop = scope.token();
        scope.spawn("config-watch", async move {
            let interval = interval.max(Duration::from_millis(10));
            let mut ticks =
                tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = ticks.tick() => follower.look().await,
                }
            }
        });
        Ok(Self { inner })
    }

    /// The configuration that applies now.
    #[must_use]
    pub fn current(&self) -> Arc<CommunicationConfig> {
        Arc::clone(&self.inner.state.borrow().config)
    }

    /// The configuration as a value to watch.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<ConfigState> {
        self.inner.state.subscribe()
    }

    /// Reads everything again now, changed or not. Returns the paths whose values differ.
    ///
    /// # Errors
    /// `Config` when what is there now cannot be used; the old configuration stays.
    ///
    /// # Cancel safety
    /// Cancel safe: the change is taken over whole or not at all.
    pub async fn reload(&self) -> Result<Arc<[String]>> {
        let mut files = self.inner.files.lock().await;
        self.inner.read_again(&mut files).await
    }
}

impl Inner {
    /// Reads again if a file changed.
    async fn look(&self) {
        let mut files = self.files.lock().await;
        let mut looked_at = files.clone();
        let looked = blocking(move || {
            let changed = looked_at.look_again();
            (changed, looked_at)
        });
        match looked.await {
            Ok((false, now)) => *files = now,
            Ok((true, _)) => {
                if let Err(error) = self.read_again(&mut files).await {
                    tracing::warn!(
                        target: names::target::MANAGER,
                        error = %error.report(),
                        "the changed configuration cannot be used; the old one stays"
                    );
                }
            }
            Err(error) => tracing::error!(
                target: names::target::MANAGER,
                error = %error.report(),
                "the files of the configuration cannot be looked at"
            ),
        }
    }

    async fn read_again(&self, files: &mut Fingerprints) -> Result<Arc<[String]>> {
        let (loaded, now) = read(self.loader.clone(), files.clone()).await?;
        *files = now;
        let Loaded { config, found, .. } = loaded;
        let Some(config) = config else {
            let found = Arc::new(found);
            let rejected = Arc::clone(&found);
            self.state.send_if_modified(|state| {
                let is_new = state.rejected.as_ref() != Some(&rejected);
                state.rejected = Some(rejected);
                is_new
            });
            return Err(Arc::unwrap_or_clone(found).into_error());
        };
        let before = self.state.borrow().clone();
        let changed: Arc<[String]> = config.changes_from(&before.config).into();
        if changed.is_empty() {
            // Nothing to tell but that a refused change is gone.
            self.state
                .send_if_modified(|state| state.rejected.take().is_some());
            return Ok(changed);
        }
        tracing::info!(target: names::target::MANAGER, changed = ?changed, "configuration reloaded");
        self.state.send_replace(ConfigState {
            config: Arc::new(config),
            generation: before.generation + 1,
            changed: Arc::clone(&changed),
            rejected: None,
        });
        Ok(changed)
    }
}

/// Reads every source. Fingerprints are taken before that, so that a change in between is noticed at the next look;
/// when a file turns up that was not followed yet, it is read once more.
async fn read(loader: ConfigLoader, files: Fingerprints) -> Result<(Loaded, Fingerprints)> {
    blocking(move || {
        let mut files = files;
        loop {
            files.look_again();
            let loaded = loader.read();
            if !files.follow(&loaded.watched) {
                return (loaded, files);
            }
        }
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("reading the configuration failed").with_source(error))
}

impl CommunicationConfig {
    /// The paths whose values differ from those of another configuration, in order. A secret that differs is named like
    /// any other.
    #[must_use]
    pub fn changes_from(&self, other: &Self) -> Vec<String> {
        let (new, old) = (self.exposed(), other.exposed());
        let mut paths = Vec::new();
        compare(&new, &old, "", &mut paths);
        paths
    }

    /// The configuration as JSON in which secrets are replaced by marks that differ where they do.
    fn exposed(&self) -> Json {
        let mut value = serde_json::to_value(self).unwrap_or(Json::Null);
        let mut mark = |path: &[&str], secret: Option<&trunkline_core::Secret<String>>| {
            let place = path
                .iter()
                .try_fold(&mut value, |value, key| value.get_mut(key));
            if let (Some(place), Some(secret)) = (place, secret) {
                *place = Json::from(format!(
                    "{:x}",
                    fingerprint::hash(secret.expose().as_bytes())
                ));
            }
        };
        for (name, broker) in self.message_brokers.iter().flatten() {
            mark(
                &["message_brokers", name, "connection", "password"],
                broker.connection.password.as_ref(),
            );
        }
        if let Some(discovery) = &self.service_discovery {
            mark(
                &["service_discovery", "connection", "password"],
                discovery.connection.password.as_ref(),
            );
        }
        mark(&["response_cache", "tier"], self.shared_tier());
        if let Some(store) = &self.event_store {
            mark(
                &["event_store", "connection", "password"],
                store.connection.password.as_ref(),
            );
        }
        value
    }
}

fn compare(new: &Json, old: &Json, path: &str, paths: &mut Vec<String>) {
    match (new, old) {
        (Json::Object(new), Json::Object(old)) => {
            for (key, value) in new {
                compare(
                    value,
                    old.get(key).unwrap_or(&Json::Null),
                    &join(path, key),
                    paths,
                );
            }
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                paths.push(join(path, key));
            }
        }
        (new, old) if new == old => {}
        _ => paths.push(path.to_owned()),
    }
}
