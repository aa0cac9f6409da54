//! The connections of one broker: one for publishing, and as many for consumers as are needed.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use tokio::time::Instant;
use trunkline_core::Result;
use trunkline_messaging::supervisor::{Reconnect, Supervisor};

use crate::config::RabbitMqConfig;
use crate::link::Connector;
use crate::topology::Topology;

/// Consumers on one connection before another one is opened.
const CONSUMERS_EACH: usize = 64;

pub(crate) type Connection = Supervisor<Connector>;

pub(crate) struct Pool {
    config: Arc<RabbitMqConfig>,
    publishing: Connection,
    consuming: Mutex<Consuming>,
}

#[derive(Default)]
struct Consuming {
    connections: Vec<(Connection, Arc<()>)>,
    begun: bool,
    closed: bool,
}

/// A consumer's place on a connection, for as long as it is kept.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) connection: Connection,
    /// Counted by its references.
    _seat: Arc<()>,
}

impl Pool {
    pub(crate) fn new(config: Arc<RabbitMqConfig>, topology: Arc<Topology>) -> Self {
        let connector = Connector::new(Arc::clone(&config), "publishing", Some(topology));
        let publishing = Supervisor::new(connector, reconnect(&config));
        Self {
            config,
            publishing,
            consuming: Mutex::default(),
        }
    }

    pub(crate) fn publishing(&self) -> &Connection {
        &self.publishing
    }

    /// A place for one more consumer, on a new connection where the others are full and one more is allowed.
    pub(crate) fn place(&self) -> Place {
        let mut consuming = self
            .consuming
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let most = usize::try_from(self.config.connection_pool_size).unwrap_or(usize::MAX);
        let count = |seat: &Arc<()>| Arc::strong_count(seat) - 1;
        let least = consuming
            .connections
            .iter()
            .min_by_key(|(_, seat)| count(seat));
        if let Some((connection, seat)) = least
            && (count(seat) < CONSUMERS_EACH || consuming.connections.len() + 1 >= most)
        {
            return Place {
                connection: connection.clone(),
                _seat: Arc::clone(seat),
            };
        }
        let connector = Connector::new(Arc::clone(&self.config), "consuming", None);
        let connection = Supervisor::new(connector, reconnect(&self.config));
        if consuming.begun && !consuming.closed {
            connection.start();
        }
        let seat = Arc::new(());
        consuming
            .connections
            .push((connection.clone(), Arc::clone(&seat)));
        Place {
            connection,
            _seat: seat,
        }
    }

    /// Begins to connect; fails when the first attempt does, and goes on trying.
    pub(crate) async fn connect(&self) -> Result<()> {
        let consuming = {
            let mut consuming = self
                .consuming
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            consuming.begun = true;
            connections(&consuming)
        };
        let (published, consumed) = futures_util::future::join(
            self.publishing.connect(),
            join_all(consuming.iter().map(Supervisor::connect)),
        )
        .await;
        published?;
        consumed.into_iter().collect()
    }

    /// The connections of consumers as they are now.
    pub(crate) fn consuming(&self) -> Vec<Connection> {
        connections(
            &self
                .consuming
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    pub(crate) async fn close(&self, deadline: Instant) -> Result<()> {
        let consuming = {
            let mut consuming = self
                .consuming
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            consuming.closed = true;
            connections(&consuming)
        };
        let (published, consumed) = futures_util::future::join(
            self.publishing.close(deadline),
            join_all(
                consuming
                    .iter()
                    .map(|connection| connection.close(deadline)),
            ),
        )
        .await;
        published?;
        consumed.into_iter().collect()
    }
}

fn connections(consuming: &Consuming) -> Vec<Connection> {
    let connections = consuming.connections.iter();
    connections
        .map(|(connection, _)| connection.clone())
        .collect()
}

fn reconnect(config: &RabbitMqConfig) -> Reconnect {
    Reconnect::default()
        .with_delays(config.reconnect_delay, config.max_reconnect_delay)
        .with_attempt_timeout(config.connection_timeout)
        .with_wait(config.request_timeout)
}
