//! A good guest: nothing global is installed over the application's own.

use trunkline_manager::CommunicationManager;
use trunkline_messaging::MessageBrokerConfig;
use trunkline_messaging::memory::MemoryBroker;
use trunkline_telemetry::{Install, LoggingConfig};

use crate::alone;
use crate::scripted::{Scripted, config, in_memory};

/// Each role needs a process in which nothing is installed yet.
#[tokio::test]
#[ignore = "a process that other tests start"]
async fn the_other_process() {
    let installed = tracing::dispatcher::has_been_set;
    match alone::role().as_str() {
        "auto" => {
            let config = config().logging(LoggingConfig::default()).build().unwrap();
            let manager = CommunicationManager::new(config);
            assert!(!installed(), "making a manager installs nothing");
            manager.initialize().await.unwrap();
            assert!(installed());
            manager.shutdown().await.unwrap();
        }
        "never" => {
            let logging = LoggingConfig::default().with_install(Install::Never);
            let manager = CommunicationManager::new(config().logging(logging).build().unwrap());
            manager.initialize().await.unwrap();
            manager.shutdown().await.unwrap();
            assert!(!installed());
        }
        "own" => {
            let own = tracing_subscriber::registry();
            tracing::subscriber::set_global_default(own).unwrap();
            let config = config().logging(LoggingConfig::default()).build().unwrap();
            let manager = CommunicationManager::new(config);
            manager.initialize().await.unwrap();
            manager.shutdown().await.unwrap();
            let still = tracing::dispatcher::get_default(|dispatch| {
                dispatch.is::<tracing_subscriber::Registry>()
            });
            assert!(still, "the application's subscriber was replaced");
        }
        other => panic!("there is no role `{other}`"),
    }
}

#[test]
fn man12_a_subscriber_is_installed_only_where_there_is_none_and_never_if_told_so() {
    for role in ["auto", "never", "own"] {
        alone::play("guest::the_other_process", role);
    }
}

#[tokio::test(start_paused = true)]
async fn man12_a_handler_that_panics_is_contained() {
    let manager = in_memory();
    manager.initialize().await.unwrap();
    let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |message: serde_json::Value| {
        let sender = sender.clone();
        async move {
            assert_ne!(message, "bad", "a bug in the handler");
            sender.send(message).unwrap();
            Ok(())
        }
    };
    manager
        .subscribe_to_topic("default", "orders", handler)
        .await
        .unwrap();
    manager
        .publish_message("default", "orders", "bad")
        .await
        .unwrap();
    manager
        .publish_message("default", "orders", "good")
        .await
        .unwrap();
    assert_eq!(heard.recv().await.unwrap(), "good");
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn man12_two_managers_live_side_by_side() {
    let (one, other) = (in_memory(), in_memory());
    one.initialize().await.unwrap();
    other.initialize().await.unwrap();
    one.shutdown().await.unwrap();
    other
        .publish_message("default", "orders", "1")
        .await
        .unwrap();
    other.shutdown().await.unwrap();
}

#[cfg(feature = "http")]
#[tokio::test]
async fn man12_the_http_client_is_a_tower_service() {
    fn is_service<S: tower_service::Service<http::Request<trunkline_http::Body>>>(_: &S) {}
    let manager = CommunicationManager::new(config().build().unwrap());
    is_service(&manager.http_client("users").unwrap());
    manager.shutdown().await.unwrap();
}

#[test]
fn man12_the_broker_itself_is_within_reach_with_and_without_a_prefix() {
    for prefix in ["", "staging."] {
        let config = config()
            .prefix(prefix)
            .message_broker("default", MessageBrokerConfig::memory());
        let manager = CommunicationManager::new(config.build().unwrap());
        let broker = manager.message_broker("default").unwrap();
        assert!(
            broker.downcast_ref::<MemoryBroker>().is_some(),
            "`{prefix}`"
        );
        assert!(broker.downcast_ref::<Scripted>().is_none());
    }
}

/// The only choice of this process that the application could make itself.
#[cfg(feature = "http")]
#[tokio::test]
async fn man12_no_crypto_provider_is_installed() {
    let client = trunkline_http::HttpClientConfig::new("https://localhost:1");
    let config = config().http_client("secure", client).build().unwrap();
    let manager = CommunicationManager::new(config);
    manager.initialize().await.unwrap();
    let client = manager.http_client("secure").unwrap();
    client.get("/").send().await.unwrap_err();
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    manager.shutdown().await.unwrap();
}
