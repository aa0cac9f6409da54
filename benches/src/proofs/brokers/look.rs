//! What servers know of messages that are missing, asked past everything that is under test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use trunkline_testing::servers::{nats as nats_server, rabbitmq as rabbitmq_server};

use super::Stage;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The stream of topics.
const STREAM: &str = "TRUNKLINE";
/// Longest answer that is read, in bytes.
const LONGEST: usize = 16 * 1024 * 1024;

/// The streams, their consumers, and whether the stream of topics has the messages at these positions.
pub(super) fn nats(stage: &Stage, positions: &[u64]) -> Result<Vec<String>> {
    let text = nats_server::monitor(
        stage.server.site(),
        "/jsz?accounts=true&streams=true&consumers=true",
    )?;
    let server: Value = serde_json::from_str(&text).context("/jsz is JSON")?;
    let mut lines = Vec::new();
    for account in list(&server, "account_details") {
        for stream in list(account, "stream_detail") {
            lines.push(format!("stream {}: {}", stream["name"], stream["state"]));
            for consumer in list(stream, "consumer_detail") {
                let mut known = consumer.clone();
                if let Some(known) = known.as_object_mut() {
                    known.retain(|name, _| name.starts_with("num_") || is_floor(name));
                }
                lines.push(format!("consumer {}: {known}", consumer["name"]));
            }
        }
    }
    let mut asker = Asker::connect(stage)?;
    for position in positions {
        let rest = format!("STREAM.MSG.GET.{STREAM}");
        let answer = asker.ask(&rest, &json!({ "seq": position }))?;
        let stored = match answer.get("message") {
            Some(message) => format!("stored on {} at {}", message["subject"], message["time"]),
            None => format!("not in the stream: {}", answer["error"]["description"]),
        };
        lines.push(format!("position {position}: {stored}"));
    }
    Ok(lines)
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

fn is_floor(name: &str) -> bool {
    name == "delivered" || name == "ack_floor"
}

/// Asks JetStream over a connection of its own.
struct Asker {
    stream: BufReader<TcpStream>,
}

impl Asker {
    fn connect(stage: &Stage) -> Result<Self> {
        let stream = TcpStream::connect(stage.server.address())?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        let mut asker = Self {
            stream: BufReader::new(stream),
        };
        let greeting = asker.line()?;
        ensure!(greeting.starts_with("INFO"), "no greeting: {greeting}");
        let (user, password) = nats_server::USER;
        let login = json!({ "verbose": false, "pedantic": false, "headers": true, "user": user, "pass": password });
        asker.say(&format!("CONNECT {login}\r\nSUB answer.look 1\r\n"))?;
        Ok(asker)
    }

    fn say(&mut self, text: &str) -> Result<()> {
        Ok(self.stream.get_mut().write_all(text.as_bytes())?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the server hung up");
        Ok(line.trim_end().to_owned())
    }

    fn ask(&mut self, rest: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        let size = body.len();
        self.say(&format!(
            "PUB $JS.API.{rest} answer.look {size}\r\n{body}\r\n"
        ))?;
        loop {
            let line = self.line()?;
            if line == "PING" {
                self.say("PONG\r\n")?;
            }
            let mut words = line.split(' ');
            if words.next() != Some("MSG") {
                ensure!(!line.starts_with("-ERR"), "the server complains: {line}");
                continue;
            }
            let size: usize = words.next_back().unwrap_or_default().parse()?;
            ensure!(size <= LONGEST, "an answer of {size} bytes");
            let mut answer = vec![0; size + "\r\n".len()];
            self.stream.read_exact(&mut answer)?;
            return Ok(serde_json::from_slice(&answer)?);
        }
    }
}

/// The queues: what lies in them, and what consumers hold.
pub(super) fn rabbitmq(stage: &Stage, _: &[u64]) -> Result<Vec<String>> {
    let words = [
        "list_queues",
        "name",
        "messages_ready",
        "messages_unacknowledged",
        "consumers",
    ];
    let text = rabbitmq_server::control(stage.server.site(), &words)?;
    Ok(text.lines().map(|line| format!("queue {line}")).collect())
}
