//! List, then watch: a collection of objects as it changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::stream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};
use trunkline_core::{Error, ErrorKind, Result};

use crate::client::{Client, Opened};
use crate::error::{ended, of};
use crate::gaps::is_refusal;
use crate::lines::Lines;
use crate::message::{Event, Kind, List, Status};

/// Objects in one part of a list.
const PART: usize = 500;
/// The longest wait before a list is asked for again, and before a watch is that ended at once.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The same where it is refused, there or here: somebody must change what is allowed.
const REFUSED_WAIT: Duration = Duration::from_secs(5);
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// Objects of one kind in one namespace, or in all.
#[derive(Clone, Debug)]
pub(crate) struct Collection {
    /// Such as `/apis/discovery.k8s.io/v1`.
    pub(crate) group: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) namespace: Option<String>,
    /// Such as `labelSelector` and what it selects.
    pub(crate) selector: Option<(&'static str, String)>,
}

impl Collection {
    fn path(&self, options: &[(&str, &str)]) -> String {
        let mut path = self.group.to_owned();
        if let Some(namespace) = &self.namespace {
            path.push_str("/namespaces/");
            path.extend(utf8_percent_encode(namespace, ENCODED));
        }
        path.push('/');
        path.push_str(self.plural);
        let selector = self.selector.as_ref();
        let selector = selector.map(|(key, value)| (*key, value.as_str()));
        for (n, (key, value)) in selector.iter().chain(options).enumerate() {
            let between = if n == 0 { '?' } else { '&' };
            let value = utf8_percent_encode(value, ENCODED);
            // Writing to a text does not fail.
            let _infallible = write!(path, "{between}{key}={value}");
        }
        path
    }
}

/// All objects as they are now, and the version that a watch goes on from.
pub(crate) async fn list<T: Kind>(
    client: &Client,
    collection: &Collection,
) -> Result<(Vec<T>, String)> {
    if let Some(listed) = list_in_parts(client, collection, Some(PART)).await? {
        return Ok(listed);
    }
    // So many changes meanwhile that the rest of the list is no more: all at once.
    let whole = list_in_parts(client, collection, None).await?;
    whole.ok_or_else(|| Error::unavailable("Kubernetes does not list what it has"))
}

/// Whether there is somebody who lists these: asked of what the server has at hand, at next to no cost for it.
pub(crate) async fn try_list<T: Kind>(client: &Client, collection: &Collection) -> Result<()> {
    let cheap = [("limit", "1"), ("resourceVersion", "0")];
    let listed: Option<List<T>> = client.get(&collection.path(&cheap)).await?;
    drop(listed);
    Ok(())
}

async fn list_in_parts<T: Kind>(
    client: &Client,
    collection: &Collection,
    part: Option<usize>,
) -> Result<Option<(Vec<T>, String)>> {
    let mut items = Vec::new();
    let mut more = String::new();
    let limit = part.map(|part| part.to_string());
    loop {
        let mut options = Vec::new();
        options.extend(limit.as_deref().map(|limit| ("limit", limit)));
        if !more.is_empty() {
            options.push(("continue", more.as_str()));
        }
        let listed: Option<List<T>> = client.get(&collection.path(&options)).await?;
        let Some(listed) = listed else {
            return Ok(None);
        };
        items.extend(listed.items);
        more = listed.metadata.more;
        if more.is_empty() {
            return Ok(Some((items, listed.metadata.resource_version)));
        }
    }
}

struct Following<T> {
    client: Arc<Client>,
    collection: Collection,
    items: BTreeMap<(String, String), T>,
    version: String,
    listed: bool,
    lines: Option<Lines>,
    /// Held from one watch to the next.
    leave: Option<OwnedSemaphorePermit>,
    opened: Option<Instant>,
    /// How long it is waited before the next list.
    wait: Duration,
    ended: bool,
}

/// All objects now, then after every change. After an error the next are complete again.
pub(crate) fn snapshots<T: Kind>(
    client: Arc<Client>,
    collection: Collection,
) -> impl Stream<Item = Result<Vec<T>>> + Send + 'static {
    stream::unfold(Following::new(client, collection), async |mut following| {
        if following.ended {
            return None;
        }
        let next = following.next().await;
        if let Err(error) = &next {
            following.listed = false;
            following.lines = None;
            following.leave = None;
            following.opened = None;
            following.wait = match is_refusal(error) || error.kind() == ErrorKind::Rejected {
                true => REFUSED_WAIT,
                false => LONGEST_WAIT,
            };
            following.ended = error.kind() == ErrorKind::Cancelled;
        }
        Some((next, following))
    })
}

impl<T: Kind> Following<T> {
    fn new(client: Arc<Client>, collection: Collection) -> Self {
        Self {
            client,
            collection,
            items: BTreeMap::new(),
            version: String::new(),
            listed: false,
            lines: None,
            leave: None,
            opened: None,
            wait: Duration::ZERO,
            ended: false,
        }
    }

    async fn next(&mut self) -> Result<Vec<T>> {
        loop {
            if !self.listed {
                self.list().await?;
                return Ok(self.snapshot());
            }
            let Some(lines) = &mut self.lines else {
                self.open().await?;
                continue;
            };
            let event = tokio::select! {
                biased;
                () = self.client.closed().cancelled() => return Err(ended()),
                event = lines.next() => event?,
            };
            match event {
                Some(event) => {
                    if self.take_in(event)? {
                        return Ok(self.snapshot());
                    }
                }
                // As it was asked to: it goes on where it was.
                None => self.lines = None,
            }
        }
    }

    async fn list(&mut self) -> Result<()> {
        if !self.wait.is_zero() {
            pause(&self.client, self.wait).await?;
        }
        let (items, version) = list(&self.client, &self.collection).await?;
        self.items = items.into_iter().map(|item| (key(&item), item)).collect();
        self.version = version;
        self.listed = true;
        self.wait = Duration::ZERO;
        Ok(())
    }

    async fn open(&mut self) -> Result<()> {
        if self.leave.is_none() {
            self.leave = Some(self.client.leave_to_watch()?);
        }
        let seconds = self.client.wait().as_secs().max(1).to_string();
        let path = self.collection.path(&[
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", &self.version),
            ("timeoutSeconds", &seconds),
        ]);
        // One that ends at once is not asked again and again.
        if self
            .opened
            .is_some_and(|opened| opened.elapsed() < LONGEST_WAIT / 2)
        {
            pause(&self.client, LONGEST_WAIT).await?;
        }
        self.opened = Some(Instant::now());
        match self.client.open(&path).await? {
            Opened::Lines(lines) => self.lines = Some(lines),
            Opened::Gone => self.begin_anew(),
        }
        Ok(())
    }

    /// Takes in what a watch says; whether anything has changed by it.
    fn take_in(&mut self, event: Event) -> Result<bool> {
        if event.what == "ERROR" {
            let status: Status = serde_json::from_value(event.object).unwrap_or_default();
            if status.code == 410 {
                self.begin_anew();
                return Ok(false);
            }
            return Err(of(status.code, &status));
        }
        let odd = |error: serde_json::Error| {
            Error::internal("an object of Kubernetes is not understood").with_source(error)
        };
        if event.what == "BOOKMARK" {
            let version = event.object.pointer("/metadata/resourceVersion");
            if let Some(version) = version.and_then(serde_json::Value::as_str) {
                version.clone_into(&mut self.version);
            }
            return Ok(false);
        }
        let item: T = serde_json::from_value(event.object).map_err(odd)?;
        self.version.clone_from(&item.metadata().resource_version);
        match event.what.as_str() {
            "ADDED" | "MODIFIED" => {
                self.items.insert(key(&item), item);
                Ok(true)
            }
            "DELETED" => Ok(self.items.remove(&key(&item)).is_some()),
            // A newer server may say more.
            _ => Ok(false),
        }
    }

    /// What happened in between is not known any more: the whole list tells what is now.
    fn begin_anew(&mut self) {
        tracing::debug!(
            target: "trunkline::discovery",
            collection = ?self.collection, version = self.version,
            "Kubernetes does not know the version any more; everything is listed again"
        );
        self.listed = false;
        self.lines = None;
        self.opened = None;
        // Not again and again, should it not know that of its own list either.
        self.wait = LONGEST_WAIT;
    }

    fn snapshot(&self) -> Vec<T> {
        self.items.values().cloned().collect()
    }
}

async fn pause(client: &Client, longest: Duration) -> Result<()> {
    let wait = longest.mul_f64(0.5 + fastrand::f64() / 2.0);
    tokio::select! {
        biased;
        () = client.closed().cancelled() => Err(ended()),
        () = sleep(wait) => Ok(()),
    }
}

fn key(item: &impl Kind) -> (String, String) {
    let metadata = item.metadata();
    (metadata.namespace.clone(), metadata.name.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::KubernetesConfig;
    use crate::message::EndpointSlice;

    fn slices() -> Collection {
        Collection {
            group: "/apis/discovery.k8s.io/v1",
            plural: "endpointslices",
            namespace: Some("shop".to_owned()),
            selector: Some((
                "labelSelector",
                "kubernetes.io/service-name=users".to_owned(),
            )),
        }
    }

    #[tokio::test]
    async fn events_change_what_is_known_and_a_version_that_is_gone_ends_in_the_list() {
        let client = Client::new(&KubernetesConfig::at("127.0.0.1", 9)).unwrap();
        let mut following: Following<EndpointSlice> = Following::new(Arc::new(client), slices());
        following.listed = true;
        let mut take = |what: &str, object: serde_json::Value| {
            let what = what.to_owned();
            let taken = following.take_in(Event { what, object });
            let taken = taken.map_err(|error| error.kind());
            let names = following.items.keys().map(|(_, name)| name.as_str());
            let names = names.collect::<Vec<_>>().join(",");
            (taken, names, following.version.clone(), following.listed)
        };
        let slice = |name: &str, version: &str| json!({"metadata": {"name": name, "namespace": "shop", "resourceVersion": version}});
        for (what, object, changed, names, version) in [
            ("ADDED", slice("a", "5"), true, "a", "5"),
            ("ADDED", slice("b", "6"), true, "a,b", "6"),
            ("BOOKMARK", slice("", "9"), false, "a,b", "9"),
            ("MODIFIED", slice("a", "10"), true, "a,b", "10"),
            ("DELETED", slice("a", "11"), true, "b", "11"),
            ("DELETED", slice("a", "12"), false, "b", "12"),
            ("UNHEARD_OF", slice("c", "13"), false, "b", "13"),
        ] {
            let wanted = (Ok(changed), names.to_owned(), version.to_owned(), true);
            assert_eq!(take(what, object), wanted, "{what}");
        }
        // As the API server says it, in an answer of status 200.
        let gone = json!({"kind": "Status", "reason": "Expired", "code": 410});
        let (taken, _, _, listed) = take("ERROR", gone);
        assert_eq!((taken, listed), (Ok(false), false));
        let broken = json!({"kind": "Status", "reason": "InternalError", "code": 500});
        assert_eq!(take("ERROR", broken).0, Err(ErrorKind::Unavailable));
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(
            slices().path(&[("limit", "5")]),
            "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dusers&limit=5"
        );
    }
}
