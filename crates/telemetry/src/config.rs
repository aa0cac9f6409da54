//! Settings of logs and metrics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trunkline_core::{CorrelationFormat, Error, Result, names};

/// What is logged, how it looks, and under which header correlation ids travel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LoggingConfig {
    /// Least level that is logged. Default `info`.
    pub level: LogLevel,
    /// Levels of single targets, such as `trunkline::call: debug`. Default: none.
    pub targets: BTreeMap<String, LogLevel>,
    /// How a line looks. Default `auto`: `pretty` on a terminal in development, else `json`.
    pub format: LogFormat,
    /// Header that carries the correlation id. Default `X-Correlation-ID`.
    #[schemars(length(min = 1), extend("format" = "header-name"))]
    pub correlation_header: String,
    /// How a new correlation id looks. Default `uuid`.
    pub correlation_format: CorrelationFormat,
    /// Whether events that concern security are logged, whatever `level` says. Default true.
    pub enable_security_logging: bool,
    /// Whether Trunkline may install a log subscriber. Default `auto`: only where the application has none.
    pub install: Install,
}

impl Default for LoggingConfig {
    fn default() -> Self {
        Self {
            level: LogLevel::default(),
            targets: BTreeMap::new(),
            format: LogFormat::default(),
            correlation_header: names::header::CORRELATION_ID.to_owned(),
            correlation_format: CorrelationFormat::default(),
            enable_security_logging: true,
            install: Install::default(),
        }
    }
}

impl LoggingConfig {
    /// Sets the least level that is logged.
    #[must_use]
    pub fn with_level(mut self, level: LogLevel) -> Self {
        self.level = level;
        self
    }

    /// Sets the level of one target.
    #[must_use]
    pub fn with_target(mut self, target: impl Into<String>, level: LogLevel) -> Self {
        self.targets.insert(target.into(), level);
        self
    }

    /// Sets how a line looks.
    #[must_use]
    pub fn with_format(mut self, format: LogFormat) -> Self {
        self.format = format;
        self
    }

    /// Sets the header that carries the correlation id.
    #[must_use]
    pub fn with_correlation_header(mut self, name: impl Into<String>) -> Self {
        self.correlation_header = name.into();
        self
    }

    /// Sets how a new correlation id looks.
    #[must_use]
    pub fn with_correlation_format(mut self, format: CorrelationFormat) -> Self {
        self.correlation_format = format;
        self
    }

    /// Says whether a log subscriber may be installed.
    #[must_use]
    pub fn with_install(mut self, install: Install) -> Self {
        self.install = install;
        self
    }
}

/// A least level.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Nothing.
    #[serde(alias = "OFF")]
    Off,
    /// What failed and was not mended.
    #[serde(alias = "ERROR")]
    Error,
    /// What went wrong and was mended, or will go wrong.
    #[serde(alias = "WARN", alias = "WARNING", alias = "warning")]
    Warn,
    /// What an operator wants to know.
    #[default]
    #[serde(alias = "INFO")]
    Info,
    /// What a developer wants to know.
    #[serde(alias = "DEBUG")]
    Debug,
    /// Everything.
    #[serde(alias = "TRACE")]
    Trace,
}

impl LogLevel {
    /// The level as configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How a log line looks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `pretty` on a terminal in development, else `json`.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Whether something global may be installed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Install {
    /// Only where the application has installed none.
    #[default]
    Auto,
    /// Never; the application does it.
    Never,
}

/// Settings of the metrics of one manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct MetricsConfig {
    /// Upper bounds of the latency histograms' buckets, in seconds, ascending. Default: 14 bounds from 1 ms to 30 s.
    #[schemars(length(min = 1, max = 64))]
    pub latency_buckets: Vec<f64>,
    /// Different label sets kept in one metric; further ones are counted under `other`. Default 1000.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_label_sets: u32,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            latency_buckets: vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            ],
            max_label_sets: 1000,
        }
    }
}

impl MetricsConfig {
    /// Sets the upper bounds of the latency histograms' buckets, in seconds.
    #[must_use]
    pub fn with_latency_buckets(mut self, bounds: Vec<f64>) -> Self {
        self.latency_buckets = bounds;
        self
    }

    /// Sets how many label sets one metric keeps.
    #[must_use]
    pub fn with_max_label_sets(mut self, sets: u32) -> Self {
        self.max_label_sets = sets;
        self
    }

    /// Whether the bounds of the buckets make sense.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](trunkline_core::ErrorKind::Config) when they are not positive, finite and ascending, or
    /// there are none.
    pub(crate) fn check(&self) -> Result<()> {
        let bounds = &self.latency_buckets;
        let positive = bounds.iter().all(|bound| *bound > 0.0 && bound.is_finite());
        if positive && !bounds.is_empty() && bounds.is_sorted_by(|one, next| one < next) {
            return Ok(());
        }
        Err(Error::config(
            "latency_buckets: the bounds must be positive seconds in ascending order, such as [0.005, 0.1, 1]",
        ))
    }
}
