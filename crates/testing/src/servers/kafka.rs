//! Kafka: one process that is broker and controller, and how it is asked whether it serves.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::bounded;
use super::error::ServerError;
use super::program::KAFKA_SERVER;
use super::system::{Site, System};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const FORMATTED_WITHIN: Duration = Duration::from_secs(60);
/// Longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 1024 * 1024;
/// What the storage is marked with: 16 bytes in base64, the same for every server, which never meet.
const CLUSTER: &str = "dHJ1bmtsaW5lLWthZmthMQ";

/// User and password for the listener that asks for a plain login, and for the one that hashes it.
pub const USER: (&str, &str) = ("app", "app-secret");

/// Kafka without encryption or login on its first port. Its other ports: the controller's, and one that asks for a login
/// (`PLAIN` or `SCRAM-SHA-256`, see [`USER`]), see [`login_port`].
pub static KAFKA: System = System {
    name: "kafka",
    program: &KAFKA_SERVER,
    ports: 3,
    ready_within: Duration::from_secs(120),
    stop_within: Duration::from_secs(60),
    prepare,
    command,
    probe,
    url,
};

/// The port of the listener that asks for a login.
#[must_use]
pub fn login_port(site: &Site) -> u16 {
    site.ports().get(2).copied().unwrap_or_default()
}

/// Tells clients to come to this address from the next start of the server on, such as a link's that fails on demand: they
/// ask the address that they know for those of the brokers, and go there.
///
/// # Errors
/// [`ServerError::Io`]
pub fn advertise(site: &Site, at: SocketAddr) -> Result<(), ServerError> {
    write_properties(site, at)
}

fn write_properties(site: &Site, advertised: SocketAddr) -> Result<(), ServerError> {
    let path = site.directory().join("server.properties");
    fs::write(&path, properties(site, advertised)).map_err(ServerError::io("write", &path))
}

fn prepare(site: &Site) -> Result<(), ServerError> {
    // A second attempt with other ports begins anew.
    let logs = site.data().join("logs");
    match fs::remove_dir_all(&logs) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(ServerError::io("remove", logs)(error));
        }
        _ => {}
    }
    write_properties(site, site.address())?;
    let path = site.directory().join("server.properties");
    let log = site.directory().join("log4j2.properties");
    fs::write(&log, LOGGING).map_err(ServerError::io("write", &log))?;
    let program = KAFKA_SERVER.locate()?;
    let (user, password) = USER;
    let mut format = Command::new(program);
    format
        .args(["format", "--standalone", "--cluster-id", CLUSTER])
        .arg("--add-scram")
        .arg(format!("SCRAM-SHA-256=[name={user},password={password}]"))
        .arg("--config")
        .arg(&path)
        .env("KAFKA_LOG4J", &log)
        .stdin(Stdio::null());
    let done = bounded::run(&mut format, FORMATTED_WITHIN)
        .map_err(ServerError::io("format the storage of", "kafka"))?;
    if done.status.success() {
        Ok(())
    } else {
        let error = io::Error::other(done.text);
        Err(ServerError::io("format the storage of", "kafka")(error))
    }
}

fn properties(site: &Site, advertised: SocketAddr) -> String {
    let [client, control, login] =
        [0, 1, 2].map(|at| site.ports().get(at).copied().unwrap_or_default());
    let logs = site.data().join("logs");
    let logs = logs.display();
    let ((user, password), module) = (USER, "org.apache.kafka.common.security");
    // Small and quick: one copy of everything, no wait for more members of a group, and sessions that end soon after a
    // server was killed, so that it is let in again.
    format!(
        "process.roles=broker,controller\nnode.id=1\n\
         controller.quorum.bootstrap.servers=127.0.0.1:{control}\n\
         listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{control},LOGIN://127.0.0.1:{login}\n\
         advertised.listeners=PLAINTEXT://{advertised},LOGIN://127.0.0.1:{login}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT\n\
         inter.broker.listener.name=PLAINTEXT\ncontroller.listener.names=CONTROLLER\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256\n\
         listener.name.login.plain.sasl.jaas.config={module}.plain.PlainLoginModule required user_{user}=\"{password}\";\n\
         listener.name.login.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;\n\
         log.dirs={logs}\nnum.partitions=1\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=1\n\
         share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
         share.coordinator.state.topic.num.partitions=1\n\
         group.initial.rebalance.delay.ms=0\ngroup.min.session.timeout.ms=1000\n\
         log.cleaner.dedupe.buffer.size=4194304\n\
         broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500\n\
         num.network.threads=2\nnum.io.threads=2\nnum.recovery.threads.per.data.dir=1\n"
    )
}

const LOGGING: &str = "\
rootLogger.level=info
rootLogger.appenderRefs=out
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1} %m%n
";

fn command(site: &Site, command: &mut Command) {
    command
        .arg("serve")
        .arg(site.directory().join("server.properties"))
        .env("KAFKA_LOG4J", site.directory().join("log4j2.properties"));
}

/// Asks for the brokers: the listener is open before the controller has let the broker in, and then there are none.
fn probe(site: &Site) -> Result<(), String> {
    match brokers(site) {
        Ok(0) => Err("it knows of no broker yet".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn brokers(site: &Site) -> io::Result<i32> {
    let mut stream = TcpStream::connect_timeout(&site.address(), ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    // Metadata, version 4, without topics: header (length, key, version, correlation, no client), no topics, none created.
    stream.write_all(&[
        0, 0, 0, 15, 0, 3, 0, 4, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0, 0,
    ])?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > LONGEST_ANSWER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no answer"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    // Behind the correlation and the throttle time.
    let count = answer.get(8..12).and_then(|four| four.try_into().ok());
    count
        .map(i32::from_be_bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a short answer"))
}

fn url(site: &Site) -> String {
    format!("kafka://{}", site.address())
}

#[cfg(test)]
mod tests {
    use super::super::own;
    use super::*;

    #[test]
    fn a_killed_server_comes_back() {
        let Some(mut server) = own(&KAFKA) else {
            return;
        };
        assert_eq!(brokers(server.site()).expect("it answers"), 1);
        server.kill().expect("a process can be killed");
        server.restart().expect("it starts again on its data");
        assert_eq!(brokers(server.site()).expect("it answers"), 1);
    }
}
