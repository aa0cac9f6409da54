//! `trunkline publish`

use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use trunkline::messaging::{
    Destination, Message, MessageBroker as _, Publish, Receipt, Routed, TopicName,
};
use trunkline::{Context, Propagation};

use super::{body, guess_content_type};
use crate::cli;
use crate::exit::{ExitCode, TimedOut};
use crate::open;
use crate::output::Output;

/// What is printed of a confirm.
#[derive(Serialize)]
struct Confirmed {
    id: String,
    destination: String,
    routed: Option<bool>,
    position: Option<u64>,
}

pub(crate) async fn run(args: cli::Publish, output: &Output) -> anyhow::Result<ExitCode> {
    let publish = publish_of(&args)?;
    let destination = publish.destination.to_string();
    let deadline = Instant::now() + args.timeout;
    let time = trunkline::duration::format(args.timeout);
    let broker = timeout_at(deadline, open::broker(&args.url))
        .await
        .map_err(|_| {
            TimedOut(format!(
                "not connected within {time}; nothing was published"
            ))
        })??;
    let context = Context::current_or_new().with_timeout(args.timeout);
    let sent = timeout_at(deadline, context.scope(broker.publish(publish))).await;
    open::close(&broker, output).await;
    let receipt = sent.map_err(|_| {
        TimedOut(format!(
            "no confirm within {time}; the message may have been published"
        ))
    })??;
    output.result(&confirmed(receipt, destination), |confirmed| {
        let nobody = if confirmed.routed == Some(false) {
            " (nobody subscribes)"
        } else {
            ""
        };
        format!(
            "published {} to {}{nobody}",
            confirmed.id, confirmed.destination
        )
    })?;
    Ok(ExitCode::Done)
}

fn publish_of(args: &cli::Publish) -> anyhow::Result<Publish> {
    let name = TopicName::new(&args.topic)?;
    let destination = if args.queue {
        Destination::Queue(name)
    } else {
        Destination::Topic(name)
    };
    let payload = body(args.payload.as_deref())?;
    let content_type = args
        .content_type
        .clone()
        .unwrap_or_else(|| guess_content_type(&payload).to_owned());
    let mut message = Message::new(payload).with_content_type(content_type);
    if let Some(key) = &args.key {
        message = message.with_key(key.clone());
    }
    let propagation = Propagation::default().with_service("trunkline-cli");
    propagation.inject(&Context::current_or_new(), &mut message.headers);
    for (name, value) in &args.headers {
        message = message.with_header(name, value);
    }
    let mut publish = Publish::new(destination, message);
    publish.delay = args.delay;
    publish.mandatory |= args.mandatory;
    Ok(publish)
}

fn confirmed(receipt: Receipt, destination: String) -> Confirmed {
    let routed = match receipt.routed {
        Routed::Yes => Some(true),
        Routed::No => Some(false),
        Routed::Unknown => None,
    };
    Confirmed {
        id: receipt.id,
        destination,
        routed,
        position: receipt.position,
    }
}
