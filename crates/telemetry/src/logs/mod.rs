//! Structured logs whose level can be changed while the process runs.
//!
//! [`Logs`] is the control; the lines are written by a `tracing` layer. [`Logs::install`] makes that layer the process's
//! own subscriber where the application has none; an application with a subscriber of its own adds [`Logs::layer`] to it.
//! Every line carries correlation id, trace id and span id of the [`Context`](trunkline_core::Context) whose scope it
//! was written in.
//!
//! Fields that are named like a secret, and passwords within URLs, are masked. That is a net below
//! [`Secret`](trunkline_core::Secret), not a replacement for it.

mod filter;
mod json;
mod pretty;
mod redact;
mod visit;

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use trunkline_core::{SharedClock, SystemClock};

use crate::{Install, LogFormat, LogLevel, LoggingConfig};
use filter::Levels;

/// Where lines go, and for whom they are written.
///
/// ```
/// use trunkline_telemetry::LogOutput;
///
/// let output = LogOutput::stderr().with_service("order-service").for_people(true).with_color(false);
/// ```
#[derive(Clone)]
pub struct LogOutput {
    service: Arc<str>,
    people: bool,
    color: bool,
    clock: SharedClock,
    writer: SharedWriter,
}

/// The same writer for every layer.
#[derive(Clone)]
struct SharedWriter(Arc<BoxMakeWriter>);

impl<'a> MakeWriter<'a> for SharedWriter {
    type Writer = Box<dyn io::Write + 'a>;

    fn make_writer(&'a self) -> Self::Writer {
        self.0.make_writer()
    }
}

impl fmt::Debug for LogOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOutput")
            .field("service", &self.service)
            .field("people", &self.people)
            .field("color", &self.color)
            .finish_non_exhaustive()
    }
}

impl LogOutput {
    /// Lines to standard error; coloured if it is a terminal.
    #[must_use]
    pub fn stderr() -> Self {
        Self::to(io::stderr).with_color(io::stderr().is_terminal())
    }

    /// Lines to standard output; coloured if it is a terminal.
    #[must_use]
    pub fn stdout() -> Self {
        Self::to(io::stdout).with_color(io::stdout().is_terminal())
    }

    /// Lines to any writer; each line is one write.
    #[must_use]
    pub fn to(writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) -> Self {
        Self {
            service: "".into(),
            people: false,
            color: false,
            clock: SystemClock::shared(),
            writer: SharedWriter(Arc::new(BoxMakeWriter::new(writer))),
        }
    }

    /// Names the service that writes; shown in every JSON line.
    #[must_use]
    pub fn with_service(mut self, service: &str) -> Self {
        self.service = service.into();
        self
    }

    /// Whether somebody reads along: then the format `auto` is `pretty`, else it is `json`.
    #[must_use]
    pub fn for_people(mut self, people: bool) -> Self {
        self.people = people;
        self
    }

    /// Whether pretty lines are coloured.
    #[must_use]
    pub fn with_color(mut self, color: bool) -> Self {
        self.color = color;
        self
    }

    /// The clock that dates the lines.
    #[must_use]
    pub fn with_clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }
}

/// The logs of a process: what is written, changeable at any time. Clones control the same logs.
///
/// ```
/// use trunkline_telemetry::{LogLevel, LogOutput, Logs, LoggingConfig};
///
/// let logs = Logs::new(&LoggingConfig::default(), LogOutput::stderr().with_service("order-service"));
/// if !logs.install() {
///     // The application has a subscriber: it may add `logs.layer()` to it.
/// }
/// logs.set_level(LogLevel::Debug);
/// assert_eq!(logs.level(), LogLevel::Debug);
/// ```
#[derive(Clone, Debug)]
pub struct Logs {
    levels: Levels,
    pretty: bool,
    install: Install,
    output: LogOutput,
}

impl Logs {
    /// Logs as configured. Nothing is written before [`Logs::install`] or [`Logs::layer`].
    #[must_use]
    pub fn new(config: &LoggingConfig, output: LogOutput) -> Self {
        let pretty = match config.format {
            LogFormat::Auto => output.people,
            LogFormat::Json => false,
            LogFormat::Pretty => true,
        };
        Self {
            levels: Levels::new(config),
            pretty,
            install: config.install,
            output,
        }
    }

    /// Makes these logs the subscriber of the process and says whether it did. It does nothing where `install` is
    /// `never`, or where a subscriber is set already: that one is never replaced.
    #[must_use = "when it answers false, nothing is written"]
    pub fn install(&self) -> bool {
        if self.install == Install::Never || tracing::dispatcher::has_been_set() {
            return false;
        }
        let subscriber = tracing_subscriber::registry().with(self.layer());
        // Somebody may have been faster since the question above; theirs stays.
        tracing::subscriber::set_global_default(subscriber).is_ok()
    }

    /// A layer that writes these logs, for a subscriber of the application's own.
    #[must_use]
    pub fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(self.output.writer.clone())
            // A failed write has nobody to be told: standard error is the usual writer.
            .log_internal_errors(false);
        let levels = self.levels.clone();
        if self.pretty {
            let format = pretty::Pretty::new(&self.output);
            let layer = layer.fmt_fields(pretty::PrettyFields).event_format(format);
            layer.with_filter(levels).boxed()
        } else {
            let format = json::Json::new(&self.output);
            let layer = layer.fmt_fields(json::JsonFields).event_format(format);
            layer.with_filter(levels).boxed()
        }
    }

    /// Sets the least level, from the next event on. Levels of single targets stay.
    pub fn set_level(&self, level: LogLevel) {
        self.levels.change(|settings| settings.level = level);
    }

    /// The least level that is set.
    #[must_use]
    pub fn level(&self) -> LogLevel {
        self.levels.level()
    }

    /// Sets the level of one target and those below it, or with `None` takes its own level away.
    pub fn set_target_level(&self, target: &str, level: Option<LogLevel>) {
        self.levels.change(|settings| {
            match level {
                Some(level) => settings.targets.insert(target.to_owned(), level),
                None => settings.targets.remove(target),
            };
        });
    }

    /// Switches debug mode: Trunkline's own events from `debug` on, whatever the level says.
    pub fn set_debug(&self, on: bool) {
        self.levels.change(|settings| settings.debug = on);
    }

    /// Switches events that concern security.
    pub fn set_security(&self, on: bool) {
        self.levels.change(|settings| settings.security = on);
    }
}
