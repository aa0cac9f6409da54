//! Who subscribes or publishes before the server is there gets what was asked for once it is, without asking again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, sleep, timeout};
use trunkline::Context;
use trunkline::core::{Id, task};
use trunkline::messaging::{
    AnyBroker, Destination, Message, MessageBroker as _, Publish, Subscribe, SubscriptionState,
    TopicName,
};

use super::brokers::{self, Stage, Subject};
use crate::entry::{Entry, Options};
use crate::report::{Report, Table};

pub(super) static ENTRY: Entry = Entry {
    name: "messaging-late-start",
    about: "the first subscribe, and the first publish with a long enough deadline, while the server is down: both succeed later by themselves.",
    run,
};

/// How long the server is away at first.
const AWAY: Duration = Duration::from_secs(3);
/// How long anything may take once it is there.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long each took after the server had come.
struct Late {
    attached: Duration,
    confirmed: Duration,
    delivered: Duration,
}

fn run(_: &Options) -> Result<Report> {
    let mut report = Report::new();
    let mut table = Table::new(
        "After the server had come",
        [
            "broker",
            "subscription attached",
            "publish confirmed",
            "message delivered",
        ],
    );
    for subject in brokers::ALL {
        let late = prove(subject);
        let seen = match &late {
            Ok(late) => {
                let text = |span: Duration| format!("{:.2} s", span.as_secs_f64());
                table.row([
                    subject.name.to_owned(),
                    text(late.attached),
                    text(late.confirmed),
                    text(late.delivered),
                ]);
                "yes".to_owned()
            }
            Err(error) => format!("{error:#}"),
        };
        let what = format!("{}: both succeed by themselves", subject.name);
        report.check(what, late.is_ok(), seen);
    }
    report.table(table);
    Ok(report)
}

fn prove(subject: &Subject) -> Result<Late> {
    let mut stage = Stage::set(subject)?;
    stage.server.kill()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let broker = stage.broker()?;
    let topic = TopicName::new(format!("late.t{}", Id::new()))?;
    let subscribing = runtime.block_on(async {
        // As a service that does not need it to start.
        let first = broker.connect().await;
        ensure!(first.is_err(), "connecting succeeded without a server");
        let subscribe = Subscribe::topics(topic.clone()).with_group("late");
        Ok(timeout(PATIENCE, broker.subscribe(subscribe)).await??)
    });
    let mut subscription = subscribing?;
    let entered = runtime.enter();
    let publishing = task::spawn("publisher", publish(broker.clone(), topic.clone()));
    drop(entered);
    runtime.block_on(async { sleep(AWAY).await });
    ensure!(
        !publishing.is_finished(),
        "the publish did not wait for the server"
    );
    stage.server.restart()?;
    let came = Instant::now();
    let late = runtime.block_on(async {
        let confirmed = timeout(PATIENCE, publishing)
            .await
            .context("no confirm")???;
        let mut state = subscription.state();
        let attached = state.wait_for(|state| *state == SubscriptionState::Attached);
        drop(
            timeout(PATIENCE, attached)
                .await
                .context("not attached")??,
        );
        let attached = came.elapsed();
        // The first may have been published before the broker knew of the group: this one was not.
        publish(broker.clone(), topic).await?;
        let delivery = timeout(PATIENCE, subscription.next())
            .await
            .context("no delivery")?;
        delivery.context("the stream ended")?.ack().await?;
        anyhow::Ok(Late {
            attached,
            confirmed: confirmed.saturating_duration_since(came),
            delivered: came.elapsed(),
        })
    })?;
    runtime.block_on(broker.disconnect(Instant::now() + PATIENCE))?;
    Ok(late)
}

/// Publishes with a deadline far away; says when it was confirmed.
async fn publish(broker: AnyBroker, topic: TopicName) -> Result<Instant> {
    let publish = Publish::new(Destination::Topic(topic), Message::new("here"));
    let context = Context::new().with_timeout(PATIENCE);
    context.scope(broker.publish(publish)).await?;
    Ok(Instant::now())
}
