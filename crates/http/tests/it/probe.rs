//! Health checks over HTTP.

use http::Request;
use hyper::body::Incoming;
use trunkline_core::ErrorKind;
use trunkline_discovery::{Probe, ServiceInstance, ServiceName};
use trunkline_http::HttpProbe;

use crate::rig::{Server, status, text, transport};

#[tokio::test]
async fn an_instance_is_well_when_it_says_so() {
    let server = Server::start(async |request: Request<Incoming>| {
        assert_eq!(request.method(), http::Method::GET);
        match request.uri().path() {
            "/health" => text("fine"),
            "/moved" => status(302),
            "/ill" => status(503),
            _ => status(404),
        }
    })
    .await;
    let probe = HttpProbe::new(transport());
    let ask = async |path: &str| {
        let name = ServiceName::new("users").unwrap();
        let mut instance = ServiceInstance::new(name, "127.0.0.1", server.address.port());
        instance.health_check_path = path.to_owned();
        probe.probe(&instance).await.map_err(|error| error.kind())
    };
    assert_eq!(ask("/health").await, Ok(()));
    assert_eq!(ask("/moved").await, Ok(()));
    assert_eq!(ask("/ill").await, Err(ErrorKind::Unavailable));
    assert_eq!(ask("/missing").await, Err(ErrorKind::NotFound));
    assert_eq!(ask("no path").await, Err(ErrorKind::Invalid));
    assert_eq!(server.count.total(), 1, "checks reuse their connection");
    server.stop().await;
    assert_eq!(ask("/health").await, Err(ErrorKind::Unavailable));
}
