//! `trunkline subscribe`

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use serde::Serialize;
use serde_json::Value;
use trunkline::messaging::{
    Delivery, Message, MessageBroker as _, Start, Subscribe, Subscription, SubscriptionState,
    TopicName, TopicPattern,
};

use crate::cli;
use crate::exit::{ExitCode, TimedOut};
use crate::open;
use crate::output::Output;
use crate::stop;

/// A message as one line of JSON.
#[derive(Serialize)]
pub(super) struct Line {
    pub(super) topic: String,
    key: Option<String>,
    pub(super) headers: BTreeMap<String, String>,
    content_type: Option<String>,
    pub(super) payload: Value,
    pub(super) attempt: u32,
}

pub(crate) async fn run(args: cli::Subscribe, output: &Output) -> anyhow::Result<ExitCode> {
    let subscribe = subscribe_of(&args)?;
    let stop = stop::asked();
    let broker = open::broker(&args.url).await?;
    let subscription = broker.subscribe(subscribe).await?;
    announce(&args, &subscription, output);
    let ended = tokio::select! {
        ended = print_messages(&args, subscription, output) => ended,
        () = stop => Ok(ExitCode::Done),
    };
    open::close(&broker, output).await;
    ended
}

fn subscribe_of(args: &cli::Subscribe) -> anyhow::Result<Subscribe> {
    let mut subscribe = if args.queue {
        Subscribe::queue(TopicName::new(&args.topic)?)
    } else {
        Subscribe::topics(TopicPattern::new(&args.topic)?)
    };
    if let Some(group) = &args.group {
        subscribe = subscribe.with_group(group);
    }
    let start = match args.from {
        cli::From::Earliest => Start::Earliest,
        cli::From::Latest => Start::Latest,
    };
    // No more than asked for may be taken away from other members of the group: it would come to them as a second
    // attempt.
    let prefetch = if args.count.is_some() { 1 } else { 100 };
    Ok(subscribe.with_start(start).with_prefetch(prefetch))
}

fn announce(args: &cli::Subscribe, subscription: &Subscription, output: &Output) {
    match &*subscription.state().borrow() {
        SubscriptionState::Detached { reason } => {
            output.warn(format!(
                "not attached yet ({reason}); trying again until it is"
            ));
        }
        _ => output.note(format!("subscribed to {}; Ctrl-C ends", args.topic)),
    }
}

async fn print_messages(
    args: &cli::Subscribe,
    mut subscription: Subscription,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    let mut seen = 0;
    loop {
        match next(&mut subscription, args.timeout).await {
            Next::Message(delivery) => {
                show(&delivery, output)?;
                seen += 1;
                if args.count == Some(seen) {
                    // Before the place of this message is free for another one.
                    drop(subscription);
                    delivery.ack().await?;
                    break;
                }
                delivery.ack().await?;
            }
            Next::Closed => bail!("the subscription ended after {seen} messages"),
            Next::Silence(time) => {
                let Some(count) = args.count else { break };
                let time = trunkline::duration::format(time);
                let missing = format!("{seen} of {count} messages, then none for {time}");
                return Err(TimedOut(missing).into());
            }
        }
    }
    Ok(ExitCode::Done)
}

enum Next {
    Message(Delivery),
    Closed,
    Silence(Duration),
}

async fn next(subscription: &mut Subscription, patience: Option<Duration>) -> Next {
    let delivery = match patience {
        None => subscription.next().await,
        Some(patience) => match tokio::time::timeout(patience, subscription.next()).await {
            Ok(delivery) => delivery,
            Err(_) => return Next::Silence(patience),
        },
    };
    delivery.map_or(Next::Closed, Next::Message)
}

fn show(delivery: &Delivery, output: &Output) -> anyhow::Result<()> {
    let line = line(
        delivery.message(),
        delivery.info().destination.name().as_str(),
        delivery.attempt(),
    );
    if output.is_json() {
        return output.json_line(&line);
    }
    let key = line
        .key
        .as_deref()
        .map(|key| format!(" key={key}"))
        .unwrap_or_default();
    let again = if line.attempt > 1 {
        format!(" attempt={}", line.attempt)
    } else {
        String::new()
    };
    let head = output.faint(&format!("{}{key}{again}", line.topic));
    output.line(format!("{head} {}", text_of(&line.payload)))
}

/// A message as programs read it; bytes that are no text are shown as base-16 so that nothing is lost.
pub(super) fn line(message: &Message, topic: &str, attempt: u32) -> Line {
    let headers = message.headers.iter();
    Line {
        topic: topic.to_owned(),
        key: message.key.as_deref().map(readable),
        headers: headers
            .map(|(name, value)| (name.to_owned(), readable(value.as_bytes())))
            .collect(),
        content_type: message.content_type.clone(),
        payload: payload(message),
        attempt,
    }
}

/// JSON as it is, everything else as a string.
fn payload(message: &Message) -> Value {
    let json = message
        .content_type
        .as_deref()
        .is_none_or(|kind| kind.contains("json"));
    json.then(|| serde_json::from_slice(&message.payload).ok())
        .flatten()
        .unwrap_or_else(|| Value::String(readable(&message.payload)))
}

fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes
            .iter()
            .fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
    }
}

/// The payload as people read it.
pub(super) fn text_of(payload: &Value) -> String {
    match payload {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
