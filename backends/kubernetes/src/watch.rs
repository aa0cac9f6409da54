//! Lists as they change, of all namespaces of a service together.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, SelectAll};
use tokio::time::{Instant, sleep_until};
use trunkline_core::{ErrorKind, Result};
use trunkline_discovery::{InstanceList, InstanceWatch, ServiceInstance, ServiceName};

use crate::family::Families;
use crate::follow::{Collection, snapshots};
use crate::gaps::is_refusal;
use crate::message::{EndpointSlice, Service};
use crate::registry::Shared;

/// How long another family of addresses must be the better one before everybody moves to it.
const SETTLED: Duration = Duration::from_secs(1);

pub(crate) fn watch(shared: &Arc<Shared>, service: &ServiceName) -> InstanceWatch {
    let lists = Watching::new(shared, service);
    let lists = stream::unfold(lists, async |mut watching| {
        let list = watching.next().await?;
        Some((list, watching))
    });
    InstanceWatch::new(lists)
}

/// What one of the collections of a watch says.
enum Said {
    Slices(usize, Result<Vec<EndpointSlice>>),
    Services(usize, Result<Vec<Service>>),
}

/// What is known of one collection.
#[derive(Clone)]
enum Part<T> {
    /// It was not listed yet.
    Unknown,
    Known(Vec<T>),
    /// It may not be read, or is not there: as if it were empty.
    Refused,
}

struct Watching {
    shared: Arc<Shared>,
    service: ServiceName,
    said: SelectAll<BoxStream<'static, Said>>,
    namespaces: Vec<Option<String>>,
    slices: Vec<Part<EndpointSlice>>,
    services: Vec<Part<Service>>,
    last: Option<(Vec<ServiceInstance>, Families)>,
    /// When another family is believed to be the better one.
    settled: Option<Instant>,
}

impl Watching {
    fn new(shared: &Arc<Shared>, service: &ServiceName) -> Self {
        let (of_slices, of_services) = (shared.slices_of(service), shared.services_of(service));
        let namespaces: Vec<Option<String>> = of_slices
            .iter()
            .map(|Collection { namespace, .. }| namespace.clone())
            .collect();
        let (slices, services) = (
            vec![Part::Unknown; of_slices.len()],
            vec![Part::Unknown; of_services.len()],
        );
        let mut said: Vec<BoxStream<'static, Said>> = Vec::new();
        for (at, part) in of_slices.into_iter().enumerate() {
            let lists = snapshots::<EndpointSlice>(Arc::clone(&shared.client), part);
            said.push(lists.map(move |items| Said::Slices(at, items)).boxed());
        }
        for (at, part) in of_services.into_iter().enumerate() {
            let lists = snapshots::<Service>(Arc::clone(&shared.client), part);
            said.push(lists.map(move |items| Said::Services(at, items)).boxed());
        }
        Self {
            shared: Arc::clone(shared),
            service: service.clone(),
            said: said.into_iter().collect(),
            namespaces,
            slices,
            services,
            last: None,
            settled: None,
        }
    }

    async fn next(&mut self) -> Option<Result<InstanceList>> {
        loop {
            let settled = self.settled.unwrap_or_else(Instant::now);
            let said = tokio::select! {
                said = self.said.next() => Some(said?),
                () = sleep_until(settled), if self.settled.is_some() => None,
            };
            match said.map(|said| self.take(said)) {
                None | Some(Ok(())) => {}
                Some(Err(error)) if error.kind() == ErrorKind::Cancelled => return None,
                Some(Err(error)) => {
                    // After an error the list is told again, changed or not.
                    self.last = None;
                    return Some(Err(error));
                }
            }
            if let Some(list) = self.news() {
                return Some(Ok(list));
            }
        }
    }

    fn take(&mut self, said: Said) -> Result<()> {
        match said {
            Said::Slices(at, Err(error)) if is_refusal(&error) => {
                put(&mut self.slices, at, Part::Refused);
                if self.slices.iter().all(|part| matches!(part, Part::Refused)) {
                    return Err(error);
                }
                self.shared.gaps.refused(self.namespace(at), &error);
            }
            Said::Slices(at, items) => {
                put(&mut self.slices, at, Part::Known(items?));
                self.shared.gaps.readable(self.namespace(at));
            }
            Said::Services(at, Err(error)) if is_refusal(&error) => {
                put(&mut self.services, at, Part::Refused);
                self.shared.without_annotations(self.namespace(at), &error);
            }
            Said::Services(at, items) => put(&mut self.services, at, Part::Known(items?)),
        }
        Ok(())
    }

    fn namespace(&self, at: usize) -> &str {
        shown(self.namespaces.get(at).and_then(Option::as_ref))
    }

    /// The list, if all parts of it are known and it is another one than last time.
    fn news(&mut self) -> Option<InstanceList> {
        let (slices, services) = (whole(&self.slices)?, whole(&self.services)?);
        let (found, families) = self.shared.found(&self.service, &slices, &services);
        let now = Instant::now();
        if let Some((last, before)) = &self.last {
            if *last == found {
                self.settled = None;
                return None;
            }
            if families.leaves_some_of(before) && *self.settled.get_or_insert(now + SETTLED) > now {
                return None;
            }
        }
        self.settled = None;
        self.last = Some((found.clone(), families));
        Some(InstanceList::new(found, 0))
    }
}

/// How a namespace is called.
pub(crate) fn shown(namespace: Option<&String>) -> &str {
    namespace.map_or("*", String::as_str)
}

fn put<T>(parts: &mut [Part<T>], at: usize, new: Part<T>) {
    if let Some(part) = parts.get_mut(at) {
        *part = new;
    }
}

fn whole<T: Clone>(parts: &[Part<T>]) -> Option<Vec<T>> {
    let mut all = Vec::new();
    for part in parts {
        match part {
            Part::Unknown => return None,
            Part::Known(items) => all.extend_from_slice(items),
            Part::Refused => {}
        }
    }
    Some(all)
}
