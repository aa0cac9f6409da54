//! Messaging: typed topics, groups, retries, dead letters, and questions with answers.
//!
//! `cargo run -p trunkline-examples --example messaging`
#![expect(clippy::print_stdout, reason = "an example shows what it sees")]

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use trunkline::messaging::{Attempt, HandlerError, LetterFilter, Topic};
use trunkline::{CommunicationConfig, CommunicationManager, ErrorKind};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct UserCreated {
    id: u64,
    email: String,
}

const USER_CREATED: Topic<UserCreated> = Topic::new("user.created");

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let config = CommunicationConfig::builder()
        .service_name("user-service")
        .embedded_path(directory.path())
        .build()?;
    let manager = CommunicationManager::new(config);
    manager.initialize().await?;
    let messaging = manager.messaging()?;

    // Two groups: each gets every message once.
    let (mailer, mut mails) = mpsc::unbounded_channel();
    let send = move |event: UserCreated, attempt: Attempt| {
        let mailer = mailer.clone();
        async move {
            if event.email.is_empty() {
                return Err(HandlerError::dead_letter("no address"));
            }
            if attempt.0 == 1 {
                return Err(HandlerError::retry_after(
                    "the mail server is busy",
                    Duration::from_millis(20),
                ));
            }
            mailer.send((event, attempt.0)).map_err(HandlerError::retry)
        }
    };
    messaging
        .subscribe(USER_CREATED)
        .group("mailer")
        .handle(send)
        .await?;
    let (auditor, mut audit) = mpsc::unbounded_channel();
    messaging
        .subscribe("user.*")
        .group("audit")
        .handle(move |event: serde_json::Value| {
            let sent = auditor.send(event).map_err(HandlerError::retry);
            async move { sent }
        })
        .await?;

    let ada = UserCreated {
        id: 1,
        email: "ada@example.com".into(),
    };
    messaging.publish(USER_CREATED, &ada).await?;
    let (mailed, attempt) = mails.recv().await.context("no mail")?;
    ensure!(
        mailed == ada && attempt == 2,
        "{mailed:?}, attempt {attempt}"
    );
    let seen = audit.recv().await.context("nothing audited")?;
    ensure!(seen["id"] == 1, "{seen}");
    println!("mailed at attempt {attempt}, audited {seen}");

    // What cannot be handled is kept, with the reason.
    let nobody = UserCreated {
        id: 2,
        email: String::new(),
    };
    messaging.publish(USER_CREATED, &nobody).await?;
    let letters = messaging.dead_letters();
    let letter = loop {
        match letters
            .list("mailer", &LetterFilter::default(), 0, 10)
            .await
        {
            Ok(page) if !page.letters.is_empty() => break page.letters,
            // The first dead letter makes the queue.
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let letter = letter.first().context("no letter")?;
    ensure!(letter.attempts == 1, "{letter:?}");
    println!("dead letter: {} ({})", letter.message.id, letter.error);

    // A question, and the one answer to it.
    messaging
        .subscribe("user.count")
        .respond(async |_: serde_json::Value| Ok::<u64, HandlerError>(2))
        .await?;
    let users: u64 = messaging.request("user.count", &()).await?;
    ensure!(users == 2, "{users} users");
    manager.shutdown().await?;
    Ok(())
}
