//! Where the server is: named, told by sentinels, or the node of a cluster that has our slot.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, Value};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use trunkline_core::{Error, Result, Retry};

use crate::config::RedisConfig;
use crate::error::{mapped, unexpected};

/// One host of several may take so long before the next is tried.
const ONE_OF_SEVERAL: Duration = Duration::from_secs(3);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Bytes to and from a server.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The server to talk to.
pub(super) async fn find(config: &RedisConfig) -> Result<Address> {
    let hosts = config.hosts()?;
    if let [(host, port)] = hosts.as_slice()
        && config.sentinel_master.is_none()
        && !config.cluster
    {
        let (host, port) = (host.clone(), *port);
        return Ok(Address { host, port });
    }
    let mut last = Error::config("there is no host");
    for (host, port) in hosts {
        let asked = Address { host, port };
        let answer = tokio::time::timeout(ONE_OF_SEVERAL, ask(&asked, config)).await;
        match answer {
            Ok(Ok(address)) => return Ok(address),
            Ok(Err(error)) => last = error,
            Err(_) => last = Error::timeout(format!("{} does not answer", asked.host)),
        }
    }
    Err(last)
}

async fn ask(asked: &Address, config: &RedisConfig) -> Result<Address> {
    if let Some(master) = &config.sentinel_master {
        return from_sentinel(asked, master, config).await;
    }
    if config.cluster {
        return owner(asked, config).await;
    }
    // Several plain hosts: the first that is a master.
    let role = redis::cmd("ROLE");
    match once(asked, &login(config), config, &role).await? {
        Value::Array(words) if words.first().is_some_and(|word| is_text(word, "master")) => {
            Ok(asked.clone())
        }
        _ => {
            Err(Error::unavailable(format!("{} is no master", asked.host)).with_retry(Retry::Safe))
        }
    }
}

/// Asks a sentinel, then the server itself, as a sentinel may not know yet that it has changed.
async fn from_sentinel(asked: &Address, master: &str, config: &RedisConfig) -> Result<Address> {
    let mut login = RedisConnectionInfo::default();
    if let Some(user) = &config.sentinel_username {
        login = login.set_username(user);
    }
    if let Some(password) = &config.sentinel_password {
        login = login.set_password(password.expose());
    }
    let question = redis::cmd("SENTINEL")
        .arg("get-master-addr-by-name")
        .arg(master)
        .clone();
    let answer = once(asked, &login, config, &question).await?;
    let Value::Array(words) = answer else {
        return Err(Error::config(format!(
            "the sentinels know no master `{master}`"
        )));
    };
    let mut words = words.iter().filter_map(text);
    let (Some(host), Some(port)) = (words.next(), words.next()) else {
        return Err(unexpected("the address of a master"));
    };
    let port = port.parse().map_err(|_| unexpected("a master's port"))?;
    let address = Address { host, port };
    let role = once(&address, &self::login(config), config, &redis::cmd("ROLE")).await?;
    match role {
        Value::Array(words) if words.first().is_some_and(|word| is_text(word, "master")) => {
            Ok(address)
        }
        _ => Err(
            Error::unavailable("the sentinels name a server that is no master yet")
                .with_retry(Retry::Safe),
        ),
    }
}

/// The node that has the slot of our keys.
async fn owner(asked: &Address, config: &RedisConfig) -> Result<Address> {
    let login = login(config);
    let slot = redis::cmd("CLUSTER")
        .arg("KEYSLOT")
        .arg(&config.key_prefix)
        .clone();
    let Value::Int(slot) = once(asked, &login, config, &slot).await? else {
        return Err(unexpected("the slot of a key"));
    };
    let slots = redis::cmd("CLUSTER").arg("SLOTS").clone();
    let Value::Array(ranges) = once(asked, &login, config, &slots).await? else {
        return Err(unexpected("the slots of a cluster"));
    };
    for range in ranges {
        let Value::Array(parts) = range else { continue };
        if let [Value::Int(first), Value::Int(last), Value::Array(node), ..] = parts.as_slice()
            && (*first..=*last).contains(&slot)
        {
            let [host, Value::Int(port), ..] = node.as_slice() else {
                return Err(unexpected("a node of a cluster"));
            };
            // Without a name it is the one that was asked.
            let host = text(host).filter(|host| !host.is_empty());
            return Ok(Address {
                host: host.unwrap_or_else(|| asked.host.clone()),
                port: u16::try_from(*port).map_err(|_| unexpected("a node's port"))?,
            });
        }
    }
    Err(Error::unavailable("no node of the cluster has our slot").with_retry(Retry::Safe))
}

fn login(config: &RedisConfig) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default();
    if let Some(user) = &config.connection.username {
        login = login.set_username(user);
    }
    if let Some(password) = &config.connection.password {
        login = login.set_password(password.expose());
    }
    login
}

/// One question on a connection of its own.
async fn once(
    address: &Address,
    login: &RedisConnectionInfo,
    config: &RedisConfig,
    question: &redis::Cmd,
) -> Result<Value> {
    let stream = open(address, config).await?;
    let settings = AsyncConnectionConfig::new().set_response_timeout(None);
    let (mut connection, driver) = MultiplexedConnection::new_with_config(login, stream, settings)
        .await
        .map_err(mapped)?;
    let asking = async { connection.send_packed_command(question).await };
    tokio::select! {
        answer = asking => match answer.map_err(mapped)? {
            Value::ServerError(error) => Err(mapped(error.into())),
            value => Ok(value),
        },
        () = driver => Err(Error::unavailable("the connection to Redis was lost")),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

fn is_text(value: &Value, expected: &str) -> bool {
    text(value).is_some_and(|text| text == expected)
}

/// Opens a connection, encrypted where that is asked for.
pub(super) async fn open(address: &Address, config: &RedisConfig) -> Result<Box<dyn Stream>> {
    let Address { host, port } = address;
    let tcp = TcpStream::connect((host.as_str(), *port))
        .await
        .map_err(|error| {
            Error::unavailable(format!("Redis at {host}:{port} cannot be reached"))
                .with_retry(Retry::Safe)
                .with_source(error)
        })?;
    tcp.set_nodelay(true).map_err(|error| {
        Error::unavailable("the connection to Redis was lost")
            .with_retry(Retry::Safe)
            .with_source(error)
    })?;
    if !config.connection.ssl_enabled {
        return Ok(Box::new(tcp));
    }
    let client = super::tls::client(config)?;
    let name = ServerName::try_from(host.clone()).map_err(|error| {
        Error::config(format!("`{host}` is no name for TLS")).with_source(error)
    })?;
    let encrypted = TlsConnector::from(client).connect(name, tcp).await;
    let encrypted = encrypted.map_err(|error| {
        Error::unavailable(format!("no TLS with Redis at {host}:{port}"))
            .with_retry(Retry::Safe)
            .with_source(error)
    })?;
    Ok(Box::new(encrypted))
}
