//! `trunkline asyncapi`.

use std::time::Duration;

use axum::Router;
use serde_json::{Value, json};
use trunkline::messaging::{MessageBrokerConfig, Topic};
use trunkline::server::ServerConfig;
use trunkline::{CommunicationConfig, CommunicationManager};

use crate::place::{Place, SOON, keys};
use crate::upstream::Upstream;

const FILE: &str = r#"
service: { name: shop, version: 2.1.0 }
prefix: staging
message_broker:
  type: rabbitmq
  host: "rabbit-1:5672,rabbit-2:5672"
  username: shop
  password: not-to-be-seen
topics:
  order.*:
    schema: order.json
  bill.paid:
    consume: { max_crashes: 1 }
"#;

#[tokio::test]
async fn a_configuration_is_described() {
    let place = Place::new();
    place.file("communication.yaml", FILE);
    place.file("order.json", r#"{"type": "object", "required": ["id"]}"#);
    let told = place.run(&["asyncapi"]).await.done();
    assert!(!told.text().contains("not-to-be-seen"));
    let document: Value = told.json();
    assert_eq!(document["asyncapi"], "3.0.0");
    assert_eq!(
        document["info"],
        json!({ "title": "shop", "version": "2.1.0" })
    );
    assert_eq!(keys(&document["channels"]), ["bill.paid", "order.word"]);
    let payload = &document["components"]["messages"]["order.word"]["payload"];
    assert_eq!(payload["schema"]["required"], json!(["id"]));
    let servers = &document["servers"];
    assert_eq!(keys(servers), ["default", "default.2"]);
    assert_eq!(servers["default.2"]["host"], "rabbit-2:5672");
    assert_eq!(servers["default"]["protocol"], "amqp");
    let prefix = servers["default"]["description"].as_str().unwrap();
    assert!(prefix.contains("`staging.`"), "{prefix}");
    // The same check as before a deployment.
    std::fs::remove_file(place.path().join("order.json")).unwrap();
    for command in [&["asyncapi"][..], &["config", "check"]] {
        let refused = place.run(command).await.ended(2);
        let said = format!("{}{}", refused.text(), refused.stderr);
        assert!(said.contains("communication.yaml:11: "), "{said}");
        assert!(said.contains("`order.json` does not exist"), "{said}");
    }
}

#[tokio::test]
async fn a_running_service_is_asked() {
    const PAID: Topic<String> = Topic::new("order.paid");
    let mut server = ServerConfig::default().with_listen("127.0.0.1", 0);
    server.asyncapi = true;
    let place = Place::new();
    let config = CommunicationConfig::builder()
        .service_name("shop")
        .embedded_path(place.data())
        .message_broker("default", MessageBrokerConfig::memory())
        .server(server)
        .build()
        .unwrap();
    let manager = CommunicationManager::new(config);
    manager.initialize().await.unwrap();
    let messaging = manager.messaging().unwrap();
    messaging.publishes::<String, _>(PAID).unwrap();
    let handler = |_: Value| async {};
    messaging
        .subscribe("order.*")
        .group("audit")
        .handle(handler)
        .await
        .unwrap();
    let app = manager
        .microservice(Router::new())
        .unwrap()
        .build()
        .unwrap();
    let asks = async {
        let address = tokio::time::timeout(SOON, async {
            loop {
                match app.local_addr() {
                    Some(address) => return address,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        let url = format!("http://{}", address.await.unwrap());
        let document: Value = place.run(&["asyncapi", &url]).await.done().json();
        manager.request_shutdown();
        document
    };
    let (ended, document) = tokio::join!(manager.run_app(app.clone()), asks);
    ended.unwrap();
    manager.shutdown().await.unwrap();
    assert_eq!(document["info"]["title"], "shop");
    let operations = &document["operations"];
    let expected = ["receive.order.word.audit", "send.order.paid"];
    assert_eq!(keys(operations), expected);
    assert_eq!(operations["receive.order.word.audit"]["x-group"], "audit");

    // One that serves none says what is missing.
    let upstream = Upstream::of(Router::new()).await;
    let url = format!("http://{}", upstream.address());
    let refused = place.run(&["asyncapi", &url]).await.ended(1);
    assert!(refused.stderr.contains("server.asyncapi: true"));
}
