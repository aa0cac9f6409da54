//! What stands above every broker, over the embedded one: payloads that are encrypted, signed and kept beside it.

use std::time::Duration;

use trunkline_core::Lifecycle;
use trunkline_core::size::ByteSize;
use trunkline_messaging::claim::ClaimCheckConfig;
use trunkline_messaging::cloudevents::CloudEventsMode;
use trunkline_messaging::compression::CompressionConfig;
use trunkline_messaging::protection::{
    EncryptionConfig, EncryptionKey, SignatureAlgorithm, SigningConfig, SigningKey,
};
use trunkline_messaging::{LetterFilter, Message, MessageBroker, Messaging, Replay};

use crate::roles::connect;

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A message keeps what was done to it through the disk, dead letters and replays, in both modes of events.
#[tokio::test]
async fn a_protected_large_message_survives_dead_letters() {
    for mode in [CloudEventsMode::Binary, CloudEventsMode::Structured] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broker");
        let broker = connect(path.to_str().unwrap()).await.erase();
        let encryption = EncryptionConfig::default().with_key("k", EncryptionKey::new(KEY));
        let signing = SigningConfig::default()
            .with_key("s", SigningKey::new(SignatureAlgorithm::Ed25519, KEY))
            .with_current("s");
        let claims = ClaimCheckConfig::new(directory.path().join("objects"));
        let messaging = Messaging::builder(broker)
            .service("bank")
            .cloudevents(mode)
            .encryption(&encryption.with_current("k"))
            .and_then(|builder| builder.signing(&signing))
            .and_then(|builder| builder.compression(&CompressionConfig::default()))
            .and_then(|builder| builder.claim_check(&claims.with_above(ByteSize::kib(1))))
            .unwrap()
            .build();
        let (sender, mut got) = tokio::sync::mpsc::unbounded_channel();
        let handler = move |text: String, message: Message| {
            let first = !message.headers.contains("trunkline-replays");
            let sent = sender.send(text);
            async move {
                sent.map_err(trunkline_messaging::HandlerError::dead_letter)?;
                match first {
                    true => Err(trunkline_messaging::HandlerError::dead_letter("not yet")),
                    false => Ok(()),
                }
            }
        };
        messaging
            .subscribe("payments")
            .handle(handler)
            .await
            .unwrap();
        messaging.ready().await.unwrap();
        // Large also when it is compressed.
        let numbers = (0..20_000_u64).map(|n| (n * n).to_string());
        let text: String = numbers.collect();
        messaging.to("payments").key("7").send(&text).await.unwrap();
        assert_eq!(got.recv().await.unwrap(), text);
        let letters = messaging.dead_letters();
        let wait = async {
            loop {
                let page = letters.list("bank", &LetterFilter::default(), 0, 1).await;
                if let Some(letter) = page.ok().and_then(|mut page| page.letters.pop()) {
                    return letter;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let letter = tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .unwrap();
        assert_eq!(letter.reason, "handler");
        assert!(
            letter.message.payload.len() < 2_000,
            "it is beside the broker"
        );
        let report = letters.replay("bank", &Replay::default()).await.unwrap();
        assert_eq!(report.replayed, 1);
        assert_eq!(got.recv().await.unwrap(), text);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        messaging.shutdown(deadline).await.unwrap();
    }
}
