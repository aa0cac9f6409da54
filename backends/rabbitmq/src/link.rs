//! One connection to the server: how it is made, how its loss is noticed, how it is closed.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_rs::Runtime;
use futures_core::stream::BoxStream;
use futures_util::StreamExt as _;
use lapin::tcp::AsyncTcpStream;
use lapin::types::ShortString;
use lapin::uri::{
    AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism,
};
use lapin::{Channel, ConnectionProperties, Event};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use trunkline_core::task::Scope;
use trunkline_core::{Error, Result, Retry};
use trunkline_messaging::supervisor::Connect;

use crate::config::{AuthMechanism, RabbitMqConfig};
use crate::error;
use crate::line::{Line, Scissors};
use crate::runtime::Kit;
use crate::tls;
use crate::topology::Topology;

/// How often the driver is asked whether it is still connected, beside what it tells by itself.
const ASK: Duration = Duration::from_millis(500);
/// Channels of one connection at most, as the server says by default.
const CHANNELS: u16 = 2047;
/// How long the server may take to answer a farewell, and the driver to end its tasks; nothing depends on either.
pub(crate) const FAREWELL: Duration = Duration::from_secs(2);
/// AMQP's code for a normal end.
const SUCCESS: u16 = 200;

/// A connection that works. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Link(Arc<Inner>);

struct Inner {
    connection: lapin::Connection,
    /// Cuts the socket and ends the driver's tasks unless the connection ended by itself.
    remains: Remains,
    /// Why the server holds publishers back, if it does.
    blocked: watch::Sender<Option<String>>,
    /// There is one listener; the driver gives each event to one of them.
    events: Mutex<Option<BoxStream<'static, Event>>>,
}

/// What the driver has running for one connection. Dropping it ends all of that.
struct Remains {
    scissors: Scissors,
    scope: Scope,
}

impl Drop for Remains {
    fn drop(&mut self) {
        self.scissors.cut();
        self.scope.stop();
    }
}

impl Link {
    /// Opens a channel.
    pub(crate) async fn channel(&self) -> Result<Channel> {
        let opened = self.0.connection.create_channel().await;
        opened.map_err(|error| error::from_driver("open a channel", error))
    }

    /// Whether the driver thinks so, and it has not been given up.
    pub(crate) fn is_connected(&self) -> bool {
        !self.0.remains.scope.is_stopping() && self.0.connection.status().connected()
    }

    /// Returns when the connection has been given up. What the driver was to answer may not be answered after that: its
    /// tasks have ended.
    pub(crate) async fn gone(&self) {
        self.0.remains.scope.token().cancelled_owned().await;
    }

    /// What the driver answers, unless the connection is given up first.
    pub(crate) async fn or_gone<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            answer = answer => answer,
            () = self.gone() => Err(lost()),
        }
    }

    /// Why the server holds publishers back, if it does; as a value to watch.
    pub(crate) fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.0.blocked.subscribe()
    }

    /// Takes in an event; the error when it means that the connection is lost.
    fn heed(&self, event: Event) -> Option<Error> {
        match event {
            Event::ConnectionBlocked(reason) => {
                tracing::warn!(target: "trunkline", reason, "RabbitMQ holds publishers back");
                self.0.blocked.send_replace(Some(reason));
                None
            }
            Event::ConnectionUnblocked => {
                tracing::info!(target: "trunkline", "RabbitMQ takes messages again");
                self.0.blocked.send_replace(None);
                None
            }
            // Channels that are closed by the server are told here, too: their owners know.
            Event::Error(error) if !self.is_connected() => {
                Some(error::from_driver("keep the connection", error))
            }
            _ => None,
        }
    }
}

fn lost() -> Error {
    Error::unavailable("the connection was lost").with_retry(Retry::IfIdempotent)
}

/// Makes connections of one kind.
pub(crate) struct Connector {
    config: Arc<RabbitMqConfig>,
    /// What has to be there before the connection is of use, for the one that publishes.
    topology: Option<Arc<Topology>>,
    /// The node to try next.
    turn: AtomicUsize,
    purpose: &'static str,
}

impl Connector {
    pub(crate) fn new(
        config: Arc<RabbitMqConfig>,
        purpose: &'static str,
        topology: Option<Arc<Topology>>,
    ) -> Self {
        Self {
            config,
            topology,
            turn: AtomicUsize::new(0),
            purpose,
        }
    }

    async fn dial(&self, host: &str, port: u16, scissors: &Scissors) -> Result<Line> {
        let refused = |error: std::io::Error| {
            Error::unavailable(format!("{host}:{port} cannot be reached"))
                .with_retry(Retry::Safe)
                .with_source(error)
        };
        let socket = TcpStream::connect((host, port)).await.map_err(refused)?;
        socket.set_nodelay(true).map_err(refused)?;
        if !self.config.connection.ssl_enabled {
            return Ok(Line::plain(socket, scissors.clone()));
        }
        let config = Arc::clone(&self.config);
        let settings = tokio::task::spawn_blocking(move || tls::settings(&config))
            .await
            .map_err(|error| Error::internal("reading certificates failed").with_source(error))??;
        let name = self.config.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|error| {
            Error::config(format!("`{name}` cannot be the name in a certificate"))
                .with_source(error)
        })?;
        let socket = TlsConnector::from(settings).connect(name, socket).await;
        let socket = socket.map_err(|error| {
            Error::unavailable(format!("no encrypted connection to {host}:{port}"))
                .with_retry(Retry::Safe)
                .with_source(error)
        })?;
        Ok(Line::encrypted(socket, scissors.clone()))
    }

    fn address(&self, host: &str, port: u16) -> AMQPUri {
        let connection = &self.config.connection;
        let external = self.config.auth_mechanism == AuthMechanism::External;
        let guest = || "guest".to_owned();
        let password = connection.password.as_ref();
        AMQPUri {
            // The line is encrypted already.
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: connection.username.clone().unwrap_or_else(guest),
                    password: password.map_or_else(guest, |word| word.expose().clone()),
                },
                host: host.to_owned(),
                port,
            },
            vhost: self.config.virtual_host().to_owned(),
            query: AMQPQueryString {
                frame_max: None,
                channel_max: Some(CHANNELS),
                heartbeat: u16::try_from(self.config.heartbeat.as_secs()).ok(),
                connection_timeout: None,
                auth_mechanism: Some(if external {
                    SASLMechanism::External
                } else {
                    SASLMechanism::Plain
                }),
            },
        }
    }

    async fn open(&self, host: &str, port: u16) -> Result<Link> {
        let remains = Remains {
            scissors: Scissors::default(),
            scope: Scope::new(),
        };
        let line = self.dial(host, port, &remains.scissors).await?;
        let kit = Kit::new(remains.scope.clone(), remains.scissors.clone());
        let line = Mutex::new(Some(line));
        // Called once: the driver's own recovery is off.
        let give = async move |_: AMQPUri, _: Runtime<Kit>| {
            let line = line.lock().unwrap_or_else(PoisonError::into_inner).take();
            line.map(AsyncTcpStream::Plain)
                .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected).into())
        };
        let name = format!("{} ({})", self.config.connection_name, self.purpose);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connection = lapin::Connection::connector(
            self.address(host, port),
            Runtime::new(kit),
            give,
            properties,
        );
        let connection = connection.await.map_err(error::connecting)?;
        let events = connection.events_listener().boxed();
        Ok(Link(Arc::new(Inner {
            connection,
            remains,
            blocked: watch::Sender::new(None),
            events: Mutex::new(Some(events)),
        })))
    }
}

impl Connect for Connector {
    type Connection = Link;

    async fn connect(&self) -> Result<Link> {
        let nodes = self.config.nodes();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (host, port) = nodes
            .get(turn % nodes.len().max(1))
            .ok_or_else(|| Error::config("no host is named"))?;
        let link = self.open(host, *port).await?;
        if let Some(topology) = &self.topology {
            topology.replay(&link).await?;
        }
        Ok(link)
    }

    async fn lost(&self, link: &Link) -> Error {
        let events = link
            .0
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut events = events.unwrap_or_else(|| futures_util::stream::pending().boxed());
        let mut ask = tokio::time::interval(ASK);
        loop {
            tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(event) => if let Some(error) = link.heed(event) {
                        return error;
                    },
                    None => events = futures_util::stream::pending().boxed(),
                },
                _ = ask.tick() => if !link.is_connected() {
                    return lost();
                },
            }
        }
    }

    async fn close(&self, link: Link, deadline: Instant) -> Result<()> {
        let inner = &link.0;
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let patience = now + FAREWELL.min(left / 2);
        let farewell = inner.connection.close(SUCCESS, ShortString::from("closed"));
        // Everything accepted was answered before. That the farewell fails changes nothing: the line is cut.
        if link.is_connected() {
            match tokio::time::timeout_at(patience, farewell).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(target: "trunkline", %error, "a connection did not end cleanly")
                }
                Err(_) => {
                    tracing::debug!(target: "trunkline", "the server did not answer the farewell")
                }
            }
        }
        inner.remains.scissors.cut();
        // Well before the deadline, at which the owner of this gives it up and tells of a failure.
        let patience = Instant::now() + FAREWELL.min(left / 4);
        inner.remains.scope.shutdown(patience.min(deadline)).await;
        Ok(())
    }
}
