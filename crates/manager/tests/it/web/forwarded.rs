//! A gateway that calls the services behind it itself as well: the two do not get into each other's way.

use axum::Router;
use axum::http::{Method, StatusCode};
use tokio::net::TcpStream;
use tokio::time::timeout;
use trunkline_manager::CommunicationManager;

use super::access::before;
use super::{PATIENCE, ask, free_port, served};
use crate::scripted::config;

/// Failures in a row that open a circuit.
const ENOUGH: usize = 5;

async fn forwarded(gateway: std::net::SocketAddr, method: &str) -> u16 {
    let request = format!("{method} /api/v1/users/1");
    ask(gateway, &request, "").await.status
}

/// `None` where it was refused here.
async fn own(manager: &CommunicationManager, method: Method) -> Option<StatusCode> {
    let client = manager.http_client("user-service").unwrap();
    let sent = timeout(PATIENCE, client.request(method, "/users/1").send()).await;
    match sent.unwrap() {
        Ok(answer) => Some(answer.status()),
        Err(error) => {
            assert!(error.circuit_open().is_some(), "{error}");
            None
        }
    }
}

#[tokio::test]
async fn forwarded_traffic_and_own_calls_open_no_circuit_of_each_other() {
    let answer = |method: Method| async move {
        match method == Method::GET {
            true => StatusCode::OK,
            false => StatusCode::INTERNAL_SERVER_ERROR,
        }
    };
    let directory = tempfile::tempdir().unwrap();
    let config = config().server(free_port()).embedded_path(directory.path());
    let users = CommunicationManager::new(config.build().unwrap());
    served(&users, Router::new().fallback(answer), async |users| {
        for strangers_fail in [true, false] {
            let (manager, gateway) = before(users, true);
            manager.initialize().await.unwrap();
            let asks = async {
                let listening = async {
                    while TcpStream::connect(gateway).await.is_err() {
                        tokio::task::yield_now().await;
                    }
                };
                timeout(PATIENCE, listening).await.unwrap();
                for _ in 0..ENOUGH {
                    if strangers_fail {
                        assert_eq!(forwarded(gateway, "POST").await, 500);
                    } else {
                        assert_eq!(own(&manager, Method::POST).await.unwrap(), 500);
                    }
                }
                let (passed, called) = (
                    forwarded(gateway, "GET").await,
                    own(&manager, Method::GET).await,
                );
                if strangers_fail {
                    assert_eq!((passed, called), (503, Some(StatusCode::OK)));
                } else {
                    assert_eq!((passed, called), (200, None));
                }
                let circuits = manager.circuits();
                let states: Vec<_> = circuits.iter().map(|one| (one.calls, one.state)).collect();
                let expected = match strangers_fail {
                    true => [("own", "closed"), ("forwarded", "open")],
                    false => [("own", "open"), ("forwarded", "closed")],
                };
                assert_eq!(states, expected, "{circuits:?}");
                let health = manager.health_status();
                let component = &health.components["http_client_user-service"];
                let said = component.last_error.as_deref();
                assert_eq!(said, Some("circuit of user-service is open"));
                manager.request_shutdown();
            };
            let (ended, ()) = tokio::join!(manager.serve_gateway(), asks);
            ended.unwrap();
            manager.shutdown().await.unwrap();
        }
    })
    .await;
}
