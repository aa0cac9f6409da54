//! What is known of an interface before the first call.

use std::fmt;

use http::Method;

use super::check::Check;
use trunkline_resilience::PolicyConfig;

/// An interface of a service: what `#[service_interface]` read.
#[derive(Debug)]
pub struct Interface {
    /// The trait: `Users`.
    pub name: &'static str,
    /// The service that its methods call.
    pub service: &'static str,
    /// What every path begins with: `/api/v1`, or nothing.
    pub base_path: &'static str,
    /// The methods, in the order in which they are written.
    pub operations: &'static [Operation],
}

impl Interface {
    /// The services that its methods call, each once, its own first.
    pub fn services(&self) -> impl Iterator<Item = &'static str> {
        let own = self.service;
        let others = self.operations.iter().enumerate();
        let others = others.filter_map(move |(index, operation)| {
            let service = operation.service?;
            let before = self.operations.iter().take(index);
            let seen = before.filter_map(|known| known.service);
            (service != own && !seen.into_iter().any(|known| known == service)).then_some(service)
        });
        std::iter::once(own).chain(others)
    }
}

/// One method of an interface.
pub struct Operation {
    /// The trait and the method: `Users::get_user`.
    pub name: &'static str,
    /// The method of HTTP.
    pub method: Method,
    /// Its endpoint: `GET /api/v1/users/{user_id}`.
    pub endpoint: &'static str,
    /// The endpoint without the base path, by which configuration may speak of it as well.
    pub also: &'static str,
    /// The service, where it is not the interface's.
    pub service: Option<&'static str>,
    /// Where it is written: `src/users.rs:12`.
    pub place: &'static str,
    /// What its attributes say.
    pub policy: fn() -> PolicyConfig,
    /// Whether each call carries an idempotency key.
    pub keyed: bool,
    /// Where its method is marked `health_check`: fills in what a check asks for.
    pub check: Option<fn(&mut Check)>,
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.endpoint)
    }
}
