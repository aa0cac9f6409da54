//! How often each side says that it lives: what both agree on.

use std::time::Duration;

use trunkline_messaging::MessageBroker as _;
use trunkline_rabbitmq::{RabbitMqBroker, RabbitMqConfig};
use trunkline_testing::servers::{Server, rabbitmq};

use crate::fixture::{disconnect, until, with_server};

/// What the server has agreed on with every connection of that name, in seconds.
fn agreed(server: &Server, name: &str) -> Vec<u64> {
    let words = ["list_connections", "-q", "timeout", "client_properties"];
    let listed = rabbitmq::control(server.site(), &words).unwrap();
    let own = listed.lines().filter(|line| line.contains(name));
    own.map(|line| line.split('\t').next().unwrap().trim().parse().unwrap())
        .collect()
}

/// 600 s are asked for as they are written, and both keep to what the server says, which is 60 s unless it was told
/// otherwise; 10 s are asked for by default, and kept to.
#[test]
fn x_29_the_shorter_heartbeat_is_agreed_on() {
    with_server(async |server| {
        for (asked, expected) in [(Some(600), 60), (Some(7), 7), (None, 10)] {
            let mut config = RabbitMqConfig::from_url(&server.url()).unwrap();
            if let Some(asked) = asked {
                config = config.with_heartbeat(Duration::from_secs(asked));
            }
            let name = format!("heartbeat-{}", trunkline_core::Id::new());
            config.connection_name = name.clone();
            let broker = RabbitMqBroker::new(config).unwrap();
            until("connecting", async || broker.connect().await.is_ok()).await;
            let known = async || !agreed(server, &name).is_empty();
            until("the server lists the connection", known).await;
            for seconds in agreed(server, &name) {
                assert_eq!(seconds, expected, "asked for {asked:?}");
            }
            disconnect(&broker).await;
        }
    });
}
