//! One manager for the whole process. The only test that may use it: there is one.

use serde_json::json;
use trunkline_core::ErrorKind;
use trunkline_manager::{communication_manager, initialize_communication, shutdown_communication};
use trunkline_messaging::MessageBrokerConfig;

use crate::scripted::config;

#[tokio::test(start_paused = true)]
async fn man3_x46_the_global_instance() {
    assert!(communication_manager().is_none());
    shutdown_communication().await.unwrap();
    let memory = || {
        config()
            .message_broker("redis", MessageBrokerConfig::memory())
            .build()
            .unwrap()
    };

    // A start that fails leaves none behind.
    let wrong = config()
        .message_broker("redis", MessageBrokerConfig::new("redis"))
        .build()
        .unwrap();
    initialize_communication(wrong).await.unwrap_err();
    assert!(communication_manager().is_none());

    let made = initialize_communication(memory()).await.unwrap();
    let manager = communication_manager().unwrap();
    assert!(manager.is_initialized());
    let login = json!({ "event": "user_login" });
    manager
        .publish_message("redis", "events", &login)
        .await
        .unwrap();

    let error = initialize_communication(memory()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(made.is_initialized(), "the first one was harmed");

    shutdown_communication().await.unwrap();
    assert!(communication_manager().is_none() && made.is_shutdown());
    // Another one may follow.
    initialize_communication(memory()).await.unwrap();
    shutdown_communication().await.unwrap();
}
