//! What the server says unasked, and who wants to hear it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use redis::{PushInfo, PushKind, Value};

/// Hears messages of channels. Called on the connection's task: it must not block.
pub(crate) trait Listener: Send + Sync + 'static {
    /// A message has come.
    fn hear(&self, channel: &[u8], payload: Vec<u8>);
}

/// A channel, or a pattern of channels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Channel {
    Exact(String),
    Pattern(String),
}

impl Channel {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Exact(name) | Self::Pattern(name) => name,
        }
    }
}

/// Those who listen. It outlives connections: each new one is told what to subscribe to by the listeners' owners.
#[derive(Default)]
pub(crate) struct Listeners(Mutex<HashMap<Channel, Vec<Weak<dyn Listener>>>>);

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listeners")
            .field(&self.lock().len())
            .finish()
    }
}

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, HashMap<Channel, Vec<Weak<dyn Listener>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, channel: Channel, listener: &Arc<dyn Listener>) {
        let mut listeners = self.lock();
        let own = listeners.entry(channel).or_default();
        own.retain(|known| known.strong_count() > 0);
        if !own.iter().any(|known| is(known, listener)) {
            own.push(Arc::downgrade(listener));
        }
    }

    /// Whether it was the last one there.
    pub(crate) fn remove(&self, channel: &Channel, listener: &Arc<dyn Listener>) -> bool {
        let mut listeners = self.lock();
        let Some(own) = listeners.get_mut(channel) else {
            return false;
        };
        own.retain(|known| known.strong_count() > 0 && !is(known, listener));
        let last = own.is_empty();
        if last {
            listeners.remove(channel);
        }
        last
    }

    pub(super) fn push(&self, info: PushInfo) {
        let mut data = info.data.into_iter();
        let heard = match info.kind {
            PushKind::Message => data
                .next()
                .zip(data.next())
                .map(|(channel, payload)| (None, channel, payload)),
            PushKind::PMessage => match (data.next(), data.next(), data.next()) {
                (Some(pattern), Some(channel), Some(payload)) => {
                    Some((Some(pattern), channel, payload))
                }
                _ => None,
            },
            _ => None,
        };
        let Some((pattern, Value::BulkString(channel), Value::BulkString(payload))) = heard else {
            return;
        };
        let wanted = match pattern {
            None => Channel::Exact(String::from_utf8_lossy(&channel).into_owned()),
            Some(Value::BulkString(pattern)) => {
                Channel::Pattern(String::from_utf8_lossy(&pattern).into_owned())
            }
            Some(_) => return,
        };
        let own: Vec<Arc<dyn Listener>> = self
            .lock()
            .get(&wanted)
            .map(|own| own.iter().filter_map(Weak::upgrade).collect())
            .unwrap_or_default();
        for listener in own {
            listener.hear(&channel, payload.clone());
        }
    }
}

fn is(known: &Weak<dyn Listener>, listener: &Arc<dyn Listener>) -> bool {
    std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(listener))
}
