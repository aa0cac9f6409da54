//! Trunkline's messages in the hands of clients that are not ours, and theirs in its own.
//!
//! Nothing of ours is on the other side: scripts use the clients as their documentation says, with the names that the guide
//! gives, against real servers. CloudEvents are written and read by the package of their own project.

mod cases;
mod clients;
mod cloud_events;
mod foreign;
mod plain;
mod wire;

use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::runtime::Runtime;
use tokio::time::{Instant, timeout};
use trunkline::core::Id;
use trunkline::messaging::{
    AnyBroker, Destination, Message, MessageBroker as _, MessageBrokerConfig, Subscribe,
    Subscription, SubscriptionState, TopicName,
};
use trunkline_testing::servers::{Launch, Server};

use self::clients::{CLIENTS, Client};
use self::foreign::Foreign;
use crate::entry::{Entry, Options};
use crate::peers::python::version_of;
use crate::report::{Report, Table};

pub(super) static ENTRY: Entry = Entry {
    name: "messaging-interop",
    about: "messages and CloudEvents written by Trunkline are read by clients that are not ours, and the other way: payload and headers are equal.",
    run,
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn run(_: &Options) -> Result<Report> {
    let foreign = Foreign::install()?;
    let mut report = Report::new();
    let mut table = Table::new(
        "What is equal, written by Trunkline and read by it",
        [
            "message",
            "client",
            "read by the client",
            "read by Trunkline",
        ],
    );
    // Clients of one system follow each other and share a server.
    let systems = CLIENTS.chunk_by(|one, next| one.system.name == next.system.name);
    let met: Vec<Result<Met>> = std::thread::scope(|scope| {
        let foreign = &foreign;
        let meet = |clients| scope.spawn(move || meet_all(clients, foreign));
        let meetings: Vec<_> = systems.map(meet).collect();
        let join = |meeting: ScopedJoinHandle<'_, _>| {
            let panicked = |_| Err(anyhow!("a meeting panicked"));
            meeting.join().unwrap_or_else(panicked)
        };
        meetings.into_iter().map(join).collect()
    });
    for met in met {
        for (client, rows) in met? {
            judge(&mut report, &mut table, client, rows);
        }
    }
    report.table(table);
    report.note(format!(
        "CloudEvents by cloudevents {} from PyPI; Redis has no binding of its own, there events are as on RabbitMQ",
        version_of("cloudevents")
    ));
    Ok(report)
}

/// What came of one message in one direction.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    Equal,
    /// It does not apply, and why.
    Lacking(&'static str),
    Differs(String),
}

impl Outcome {
    fn of(difference: Option<String>) -> Self {
        difference.map_or(Self::Equal, Self::Differs)
    }

    fn text(&self) -> String {
        match self {
            Self::Equal => "yes".to_owned(),
            Self::Lacking(why) => format!("— {why}"),
            Self::Differs(how) => format!("NO: {how}"),
        }
    }
}

/// A message, and what came of it in each direction.
struct Row {
    what: String,
    theirs: Outcome,
    ours: Outcome,
}

/// Clients, and what came of their messages.
type Met = Vec<(&'static Client, Vec<Row>)>;

fn meet_all(clients: &'static [Client], foreign: &Foreign) -> Result<Met> {
    let first = clients.first().context("somebody to meet")?;
    let server = Launch::new(first.system).start()?;
    let meet = |client: &'static Client| {
        let rows = meet(client, &server, foreign).with_context(|| client.title())?;
        Ok((client, rows))
    };
    clients.iter().map(meet).collect()
}

fn meet(client: &'static Client, server: &Server, foreign: &Foreign) -> Result<Vec<Row>> {
    let meeting = Meeting::open(client, server, foreign)?;
    let mut rows = plain::exchange(&meeting)?;
    rows.extend(cloud_events::exchange(&meeting)?);
    meeting.close()?;
    Ok(rows)
}

fn judge(report: &mut Report, table: &mut Table, client: &Client, rows: Vec<Row>) {
    let mut wrong = Vec::new();
    let mut equal = 0;
    for row in rows {
        for outcome in [&row.theirs, &row.ours] {
            match outcome {
                Outcome::Equal => equal += 1,
                Outcome::Lacking(_) => {}
                Outcome::Differs(how) => wrong.push(format!("{}: {how}", row.what)),
            }
        }
        table.row([
            row.what,
            client.name.to_owned(),
            row.theirs.text(),
            row.ours.text(),
        ]);
    }
    report.check(
        format!(
            "{}: payload and headers are equal both ways",
            client.title()
        ),
        wrong.is_empty() && equal > 0,
        match wrong.is_empty() {
            true => format!("{equal} messages"),
            false => wrong.join("; "),
        },
    );
}

/// A client, a broker of ours, and the server between them.
struct Meeting<'a> {
    client: &'static Client,
    foreign: &'a Foreign,
    url: String,
    runtime: Runtime,
    broker: AnyBroker,
}

impl<'a> Meeting<'a> {
    fn open(client: &'static Client, server: &Server, foreign: &'a Foreign) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let url = server.url();
        let config = MessageBrokerConfig::from_url(&format!("{url}{}", client.options))?;
        let broker = {
            let _entered = runtime.enter();
            trunkline::backends::open_broker(&config)?
        };
        runtime.block_on(broker.connect())?;
        Ok(Self {
            client,
            foreign,
            url,
            runtime,
            broker,
        })
    }

    /// A topic that nobody else has, made where topics are made.
    fn topic(&self) -> Result<TopicName> {
        let topic = TopicName::new(format!("interop.t{}", Id::new()))?;
        if self.broker.capabilities().durable {
            let declared = self.broker.declare(Destination::Topic(topic.clone()));
            self.runtime.block_on(declared)?;
        }
        Ok(topic)
    }

    /// Listens to a topic; returns when the server knows.
    fn listen(&self, topic: &TopicName) -> Result<Subscription> {
        let subscribe = Subscribe::topics(topic.clone()).with_group("interop");
        self.runtime.block_on(async {
            let subscription = self.broker.subscribe(subscribe).await?;
            let mut state = subscription.state();
            let attached = state.wait_for(|state| *state == SubscriptionState::Attached);
            drop(
                timeout(PATIENCE, attached)
                    .await
                    .context("not attached")??,
            );
            Ok(subscription)
        })
    }

    /// Takes so many messages, in the order in which they come.
    fn take(&self, subscription: &mut Subscription, count: usize) -> Result<Vec<Message>> {
        self.runtime.block_on(async {
            let mut messages = Vec::with_capacity(count);
            while messages.len() < count {
                let next = timeout(PATIENCE, subscription.next()).await;
                let of = format!("{} of {count} messages came", messages.len());
                let delivery = next.context(of)?.context("the stream ended")?;
                messages.push(delivery.message().clone());
                delivery.ack().await?;
            }
            Ok(messages)
        })
    }

    /// Has the client read, and once more where the broker promises at most once and it has missed something: one that is busy
    /// may do so, but not each time.
    fn insist<T>(&self, read: impl Fn() -> Result<T>) -> Result<T> {
        let first = read();
        match &first {
            Err(error) if !self.broker.capabilities().redelivery => {
                eprintln!("  {}: once more, as {error:#}", self.client.title());
                read()
            }
            _ => first,
        }
    }

    fn close(self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        Ok(self.runtime.block_on(self.broker.disconnect(deadline))?)
    }
}
