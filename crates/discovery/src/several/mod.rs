//! Several registries as one.
//!
//! What is announced is announced in all of them; what is found is put together from all of them. Each is on its own: one
//! that is away, slow or empty neither blocks nor empties the others.

mod announcing;
mod disagreement;
mod finding;
mod gather;
mod known;
mod lists;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use trunkline_core::task::Scope;
use trunkline_core::{Error, ErrorKind, Result};

use crate::erased::{AnyRegistry, AnyResolver};
use crate::instance::ServiceName;
use crate::pulse::{Listener, Pulse};
use crate::registry::Registry;
use crate::report::{Reporter, Weight};
use crate::resolver::Resolver;
use announcing::Announcements;
pub use disagreement::Disagreement;
use known::Known;

/// How long the others are waited for once one has answered.
const PATIENCE: Duration = Duration::from_secs(1);

/// How one list is made of those of several registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResolveRule {
    /// All instances of all registries. What has the same id, or the same host and port, is one instance, seen as the
    /// earlier registry sees it.
    #[default]
    Merged,
    /// The instances of the first registry that has any.
    Ordered,
}

/// Several registries as one: registers in all of them, and finds by their order or merged.
///
/// - An announcement stands when one registry took it. Each of the others is tried again by itself until it took it as well,
///   and told at every renewal; registries that announce nothing ([`Unsupported`](ErrorKind::Unsupported)) are not asked
///   again.
/// - A registry that is away counts with what it said last, behind those that answer. What a registry that answers has seen
///   to go is not kept for one that does not.
/// - Each is asked every two seconds whether it is there: one that accepts and never answers is away a few seconds later, and
///   is asked anew as soon as it is back.
/// - Waiting ends a second after the first answer, and at once for one that was late before or is watched; what a slow
///   registry says then is there for the next time. A question that fails moves nothing while the watch stands.
///
/// Clones are one.
///
/// ```
/// use std::time::Duration;
/// use trunkline_discovery::{MemoryRegistry, Registry, Resolver, ResolveRule, ServiceInstance, ServiceName, Several};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let (old, new) = (MemoryRegistry::new(), MemoryRegistry::new());
/// let both = Several::builder()
///     .member("old", old.clone(), old.clone())
///     .member("new", new.clone(), new.clone())
///     .rule(ResolveRule::Merged)
///     .build();
/// let users = ServiceName::new("users")?;
/// both.register(ServiceInstance::new(users.clone(), "10.0.0.7", 8001), Duration::from_secs(10)).await?;
/// assert_eq!(old.resolve(&users).await?.instances, new.resolve(&users).await?.instances);
/// assert_eq!(both.resolve(&users).await?.instances.len(), 1);
/// assert!(both.disagreement(&users).is_none());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Several(Arc<Shared>);

struct Shared {
    members: Vec<Member>,
    rule: ResolveRule,
    known: Mutex<Known>,
    announcements: Mutex<Announcements>,
    reporter: OnceLock<Reporter>,
    scope: Scope,
}

struct Member {
    name: Arc<str>,
    registry: AnyRegistry,
    resolver: AnyResolver,
    /// Whether it answers at all.
    pulse: Arc<Pulse>,
    /// Counts questions that are under way.
    questions: Arc<()>,
    /// The services that it listed last.
    listed: Mutex<Vec<ServiceName>>,
    /// What it could not do when it was last asked to.
    problems: Mutex<BTreeMap<Purpose, String>>,
}

impl Member {
    /// Listens to whether it answers; from the first time on it is asked now and then.
    fn listen(&self, scope: &Scope) -> Listener {
        self.pulse.listen(scope)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody listens any more.
        self.scope.stop();
    }
}

/// What a registry was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    Announcing,
    Finding,
    Answering,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Announcing => "announcing",
            Self::Finding => "finding",
            Self::Answering => "answering",
        }
    }
}

/// One of several registries, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberStanding {
    /// Its name.
    pub name: String,
    /// What it could not do when it was last asked to; none when all went well.
    pub problem: Option<String>,
}

/// Puts [`Several`] together.
#[derive(Debug, Default)]
#[must_use]
pub struct SeveralBuilder {
    members: Vec<(Arc<str>, AnyRegistry, AnyResolver)>,
    rule: ResolveRule,
}

impl SeveralBuilder {
    /// Adds a registry behind those that were added before.
    pub fn member(
        mut self,
        name: impl Into<Arc<str>>,
        registry: impl Registry,
        resolver: impl Resolver,
    ) -> Self {
        let member = (name.into(), registry.erase(), resolver.erase());
        self.members.push(member);
        self
    }

    /// How one list is made of theirs. Default [`ResolveRule::Merged`].
    pub fn rule(mut self, rule: ResolveRule) -> Self {
        self.rule = rule;
        self
    }

    /// All of them as one. Nothing is asked until somebody asks.
    #[must_use]
    pub fn build(self) -> Several {
        let members = self.members.into_iter();
        let members: Vec<Member> = members
            .map(|(name, registry, resolver)| Member {
                name,
                pulse: Pulse::new(Some(registry.clone())),
                registry,
                resolver,
                questions: Arc::default(),
                listed: Mutex::default(),
                problems: Mutex::default(),
            })
            .collect();
        Several(Arc::new(Shared {
            known: Mutex::new(Known::new(members.len(), self.rule)),
            members,
            rule: self.rule,
            announcements: Mutex::default(),
            reporter: OnceLock::new(),
            scope: Scope::new(),
        }))
    }
}

impl Several {
    /// Puts several registries together.
    pub fn builder() -> SeveralBuilder {
        SeveralBuilder::default()
    }

    /// The registries in their order, and what is wrong with each.
    #[must_use]
    pub fn standing(&self) -> Vec<MemberStanding> {
        let members = self.0.members.iter();
        members
            .map(|member| {
                let problems = lock(&member.problems);
                let told = problems.iter();
                let told: Vec<String> = told
                    .map(|(purpose, problem)| format!("{}: {problem}", purpose.as_str()))
                    .collect();
                MemberStanding {
                    name: member.name.as_ref().to_owned(),
                    problem: (!told.is_empty()).then(|| told.join("; ")),
                }
            })
            .collect()
    }

    /// How the registries that answer differ about a service, as far as they were asked about it. Shortly after a change
    /// they do.
    #[must_use]
    pub fn disagreement(&self, service: &ServiceName) -> Option<Disagreement> {
        self.known().disagreement(service, &self.names())
    }

    /// Shuts it down: watches end, and every call fails with `Cancelled`. The registries themselves stay open.
    pub fn shutdown(&self) {
        self.0.scope.stop();
    }

    /// From now on, what is wrong is told here as well.
    pub(crate) fn report_to(&self, reporter: Reporter) {
        let names: Vec<String> = self.names().iter().map(ToString::to_string).collect();
        reporter.detail("registries", names);
        // The first one stays: it is what the others are told by, too.
        drop(self.0.reporter.set(reporter));
    }

    fn names(&self) -> Vec<Arc<str>> {
        let members = self.0.members.iter();
        members.map(|member| Arc::clone(&member.name)).collect()
    }

    fn name(&self, at: usize) -> &str {
        self.0.members.get(at).map_or("", |member| &member.name)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.0.known)
    }

    fn check_open(&self) -> Result<()> {
        if self.0.scope.is_stopping() {
            return Err(Error::cancelled("the registries were shut down"));
        }
        Ok(())
    }

    /// Remembers how it went with one of them.
    fn went(&self, at: usize, purpose: Purpose, problem: Option<&Error>) {
        let Some(member) = self.0.members.get(at) else {
            return;
        };
        let told = problem.map(|error| error.report().to_string());
        {
            let mut problems = lock(&member.problems);
            match &told {
                Some(told) => problems.insert(purpose, told.clone()),
                None => problems.remove(&purpose),
            };
        }
        let Some(reporter) = self.0.reporter.get() else {
            return;
        };
        let who = format!("{} {}", purpose.as_str(), member.name);
        match problem {
            None => reporter.works(&who),
            Some(error) => {
                let text = format!(
                    "the registry {} fails at {}: {error}",
                    member.name,
                    purpose.as_str()
                );
                reporter.failed(&who, Weight::Degraded, Error::new(error.kind(), text));
            }
        }
    }

    /// What none of them could do.
    fn none_could(&self, what: &str, mut errors: Vec<(usize, Error)>) -> Error {
        // What cannot be done at all says less than what went wrong.
        errors.sort_by_key(|(at, error)| (error.kind() == ErrorKind::Unsupported, *at));
        let mut told = Vec::new();
        for (at, error) in &errors {
            told.push(format!("{}: {error}", self.name(*at)));
        }
        let told = told.join("; ");
        match errors.into_iter().next() {
            Some((_, error)) => {
                Error::new(error.kind(), format!("no registry could {what}: {told}"))
                    .with_source(error)
            }
            None => Error::unsupported(format!("there is no registry that could {what}")),
        }
    }
}

impl fmt::Debug for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Several")
            .field("members", &self.names())
            .field("rule", &self.0.rule)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answer of a task; one that was stopped has none.
async fn answer_of<T>(answered: oneshot::Receiver<Result<T>>) -> Result<T> {
    let stopped = |_| Err(Error::cancelled("the registries were shut down"));
    answered.await.unwrap_or_else(stopped)
}

fn no_answer_yet() -> Error {
    Error::timeout("it has not answered yet")
}

/// By the id of what was announced.
type ById<T> = HashMap<String, T>;
