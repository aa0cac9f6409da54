//! The same roles against Redis Streams, with pipelines as its documentation shows them: `XADD`, `XREADGROUP`, `XACK`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use super::clock::{cpu_seconds, now};
use super::{Moment, Outcome, PAYLOAD, Role};
use crate::stopwatch::Stopwatch;

const STREAM: &str = "orders";
const GROUP: &str = "mailer";
/// Entries that are read and acknowledged together.
const TOGETHER: &str = "500";

pub(super) fn play(address: SocketAddr, role: Role) -> Result<Outcome> {
    match role {
        Role::Publish { count, batch } => publish(address, count, batch),
        Role::Consume { count } => consume(address, count),
        Role::Confirm {
            publishers,
            seconds,
        } => confirm(address, publishers, Duration::from_secs(seconds)),
        Role::Paced { count, every } => paced(address, count, every),
        Role::Times { count } => times(address, count),
        Role::Idle { .. } => bail!("Redis has no idle consumers to compare"),
    }
}

fn publish(address: SocketAddr, count: usize, batch: usize) -> Result<Outcome> {
    let mut redis = Redis::connect(address)?;
    let body = vec![7; PAYLOAD];
    let (watch, cpu) = (Stopwatch::start(), cpu_seconds());
    let mut sent = 0;
    while sent < count {
        let size = batch.min(count - sent);
        for _ in 0..size {
            redis.command(&[b"XADD", STREAM.as_bytes(), b"*", b"body", &body]);
        }
        redis.flush()?;
        for _ in 0..size {
            redis.reply()?;
        }
        sent += size;
    }
    Ok(Outcome {
        count: sent as u64,
        seconds: watch.seconds(),
        cpu_seconds: cpu_seconds() - cpu,
        ..Outcome::default()
    })
}

fn consume(address: SocketAddr, count: usize) -> Result<Outcome> {
    let mut redis = Redis::connect(address)?;
    redis.join()?;
    let mut begun = None;
    let mut done = 0;
    while done < count {
        let entries = redis.read()?;
        if entries.is_empty() {
            continue;
        }
        begun.get_or_insert_with(|| (Stopwatch::start(), cpu_seconds()));
        redis.acknowledge(&entries)?;
        done += entries.len();
    }
    let (watch, cpu) = begun.context("nothing was to be done")?;
    Ok(Outcome {
        count: done as u64,
        seconds: watch.seconds(),
        cpu_seconds: cpu_seconds() - cpu,
        ..Outcome::default()
    })
}

fn confirm(address: SocketAddr, publishers: usize, time: Duration) -> Result<Outcome> {
    let (watch, cpu) = (Stopwatch::start(), cpu_seconds());
    let publisher = move || -> Result<Vec<u64>> {
        let mut redis = Redis::connect(address)?;
        let body = vec![7; PAYLOAD];
        let mut spans = Vec::new();
        while watch.elapsed() < time {
            let asked = Stopwatch::start();
            redis.command(&[b"XADD", STREAM.as_bytes(), b"*", b"body", &body]);
            redis.flush()?;
            redis.reply()?;
            spans.push(u64::try_from(asked.elapsed().as_micros())?);
        }
        Ok(spans)
    };
    let threads: Vec<_> = (0..publishers).map(|_| thread::spawn(publisher)).collect();
    let mut spans = Vec::new();
    for thread in threads {
        spans.extend(
            thread
                .join()
                .map_err(|_| anyhow!("a publisher panicked"))??,
        );
    }
    Ok(Outcome {
        count: spans.len() as u64,
        seconds: watch.seconds(),
        cpu_seconds: cpu_seconds() - cpu,
        spans,
        ..Outcome::default()
    })
}

#[expect(clippy::disallowed_methods, reason = "one message every so often")]
fn paced(address: SocketAddr, count: usize, every: u64) -> Result<Outcome> {
    let mut redis = Redis::connect(address)?;
    // The consumer is there first.
    thread::sleep(Duration::from_millis(500));
    let body = vec![7; PAYLOAD];
    let mut outcome = Outcome::default();
    for number in 0..count as u64 {
        let id = number.to_string();
        let words: [&[u8]; 7] = [
            b"XADD",
            STREAM.as_bytes(),
            b"*",
            b"id",
            id.as_bytes(),
            b"body",
            &body,
        ];
        redis.command(&words);
        redis.flush()?;
        redis.reply()?;
        outcome.moments.push(Moment {
            message: number,
            at: now(),
        });
        thread::sleep(Duration::from_micros(every));
    }
    Ok(outcome)
}

fn times(address: SocketAddr, count: usize) -> Result<Outcome> {
    let mut redis = Redis::connect(address)?;
    redis.join()?;
    let mut outcome = Outcome::default();
    while outcome.moments.len() < count {
        let entries = redis.read()?;
        let at = now();
        for entry in &entries {
            let id = entry.fields.get(1).context("an entry without an id")?;
            let message = std::str::from_utf8(id)?.parse()?;
            outcome.moments.push(Moment { message, at });
        }
        redis.acknowledge(&entries)?;
    }
    Ok(outcome)
}

/// One connection, and just enough of the protocol.
struct Redis {
    reader: BufReader<TcpStream>,
    waiting: Vec<u8>,
}

#[derive(Debug)]
enum Reply {
    Text(Vec<u8>),
    Array(Vec<Self>),
    Nothing,
}

struct Entry {
    id: Vec<u8>,
    fields: Vec<Vec<u8>>,
}

impl Redis {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            reader: BufReader::with_capacity(1 << 18, stream),
            waiting: Vec::new(),
        })
    }

    /// Makes the group where it is missing; it gets everything.
    fn join(&mut self) -> Result<()> {
        let words = ["XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM"];
        self.command(&words.map(str::as_bytes));
        self.flush()?;
        self.reply().map(|_| ())
    }

    fn read(&mut self) -> Result<Vec<Entry>> {
        let words = [
            "XREADGROUP",
            "GROUP",
            GROUP,
            "one",
            "COUNT",
            TOGETHER,
            "BLOCK",
            "1000",
            "STREAMS",
            STREAM,
            ">",
        ];
        self.command(&words.map(str::as_bytes));
        self.flush()?;
        // [[stream, [[id, [field, value, …]], …]]]
        let Reply::Array(streams) = self.reply()? else {
            return Ok(Vec::new());
        };
        let stream = streams.into_iter().next().context("no stream")?;
        let entries = stream.array()?.into_iter().nth(1).context("no entries")?;
        entries.array()?.into_iter().map(Reply::entry).collect()
    }

    fn acknowledge(&mut self, entries: &[Entry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut words = vec!["XACK".as_bytes(), STREAM.as_bytes(), GROUP.as_bytes()];
        words.extend(entries.iter().map(|entry| entry.id.as_slice()));
        self.command(&words);
        self.flush()?;
        self.reply().map(|_| ())
    }

    fn command(&mut self, words: &[&[u8]]) {
        self.waiting
            .extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.waiting
                .extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.waiting.extend_from_slice(word);
            self.waiting.extend_from_slice(b"\r\n");
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.reader.get_mut().write_all(&self.waiting)?;
        self.waiting.clear();
        Ok(())
    }

    fn reply(&mut self) -> Result<Reply> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let line = line.strip_suffix("\r\n").context("Redis closed")?;
        let (kind, rest) = line.split_at_checked(1).context("no reply")?;
        match kind {
            "+" | ":" => Ok(Reply::Text(rest.as_bytes().to_vec())),
            "$" | "*" if rest == "-1" => Ok(Reply::Nothing),
            "$" => {
                let mut text = vec![0; rest.parse::<usize>()? + 2];
                self.reader.read_exact(&mut text)?;
                text.truncate(text.len() - 2);
                Ok(Reply::Text(text))
            }
            "*" => {
                let count: usize = rest.parse()?;
                let parts = (0..count).map(|_| self.reply());
                Ok(Reply::Array(parts.collect::<Result<_>>()?))
            }
            _ => bail!("Redis: {rest}"),
        }
    }
}

impl Reply {
    fn array(self) -> Result<Vec<Self>> {
        match self {
            Self::Array(parts) => Ok(parts),
            other => bail!("not an array: {other:?}"),
        }
    }

    fn text(self) -> Result<Vec<u8>> {
        match self {
            Self::Text(text) => Ok(text),
            other => bail!("not a text: {other:?}"),
        }
    }

    fn entry(self) -> Result<Entry> {
        let mut parts = self.array()?.into_iter();
        let id = parts.next().context("no id")?.text()?;
        let fields = parts.next().context("no fields")?.array()?;
        Ok(Entry {
            id,
            fields: fields.into_iter().map(Self::text).collect::<Result<_>>()?,
        })
    }
}
