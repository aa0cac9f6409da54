//! Which events are written; changeable while the process runs.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Filter};
use trunkline_core::names::target;

use crate::{LogLevel, LoggingConfig};

#[derive(Clone, Debug)]
pub(super) struct Levels(Arc<RwLock<State>>);

#[derive(Debug)]
struct State {
    settings: Settings,
    targets: Targets,
}

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) level: LogLevel,
    pub(super) targets: BTreeMap<String, LogLevel>,
    pub(super) security: bool,
    pub(super) debug: bool,
}

impl Settings {
    fn targets(&self) -> Targets {
        let mut targets = Targets::new().with_default(filter(self.level));
        if self.debug {
            let level = filter(self.level.max(LogLevel::Debug));
            targets = targets.with_target(target::ROOT, level);
        }
        for (name, level) in &self.targets {
            targets = targets.with_target(name, filter(*level));
        }
        let security = if self.security {
            LevelFilter::TRACE
        } else {
            LevelFilter::OFF
        };
        targets.with_target(target::SECURITY, security)
    }
}

const fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

impl Levels {
    pub(super) fn new(config: &LoggingConfig) -> Self {
        let settings = Settings {
            level: config.level,
            targets: config.targets.clone(),
            security: config.enable_security_logging,
            debug: false,
        };
        let targets = settings.targets();
        Self(Arc::new(RwLock::new(State { settings, targets })))
    }

    pub(super) fn level(&self) -> LogLevel {
        self.read(|state| state.settings.level)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Settings)) {
        {
            let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
            change(&mut state.settings);
            state.targets = state.settings.targets();
        }
        // Each place that logs remembers whether it is wanted: make it ask again. Outside the lock, as it asks here.
        tracing::callsite::rebuild_interest_cache();
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        self.read(|state| {
            state
                .targets
                .would_enable(metadata.target(), metadata.level())
        })
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: Subscriber> Filter<S> for Levels {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.read(|state| {
            let levels = state.targets.iter().map(|(_, level)| level);
            levels.chain(state.targets.default_level()).max()
        })
    }
}
