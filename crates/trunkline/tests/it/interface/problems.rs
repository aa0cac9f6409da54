//! What a service says of an error: the type that an author named, its rules, and how it is packed.

use std::fmt;

use axum::http::StatusCode;
use garde::Validate;
use serde::{Deserialize, Serialize};
use trunkline::http::ServiceError;
use trunkline::service_interface;

use super::server::Server;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate)]
struct Refused {
    #[garde(range(min = 1, max = 99))]
    code: u32,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}", self.code)
    }
}

#[service_interface("gates", validate)]
trait Gates {
    #[get("/gates/{id}")]
    #[retry(enabled = false)]
    async fn open(&self, id: u32) -> Result<(), ServiceError<Refused>>;
}

fn packed(code: u32) -> Vec<u8> {
    // A map of one entry, with a short text for its key.
    let mut bytes = b"\x81\xa4code".to_vec();
    bytes.push(u8::try_from(code).unwrap());
    bytes
}

#[tokio::test]
async fn error_types_keep_their_rules_however_they_are_packed() {
    let server = Server::start(|seen, _| {
        let (kind, body) = match seen.uri.as_str() {
            "/gates/1" => ("application/json", br#"{"code":7}"#.to_vec()),
            "/gates/2" => ("application/json", br#"{"code":100}"#.to_vec()),
            "/gates/3" => ("application/msgpack", packed(8)),
            "/gates/4" => ("application/msgpack", packed(0)),
            _ => ("application/msgpack", b"{".to_vec()),
        };
        (StatusCode::CONFLICT, [("content-type", kind)], body)
    })
    .await;
    let gates = GatesClient::new(server.client());
    for (id, code) in [(1, 7), (3, 8)] {
        match gates.open(id).await.unwrap_err() {
            ServiceError::Status(answer) => assert_eq!(answer.problem, Refused { code }),
            other => panic!("{id}: {other}"),
        }
    }
    for (id, field) in [(2, "code"), (4, "code"), (5, ".")] {
        let error = gates.open(id).await.unwrap_err();
        assert!(!matches!(error, ServiceError::Status(_)), "{id}: {error}");
        assert_eq!(error.status_code().unwrap(), 409, "{id}");
        let mismatch = error.mismatch().unwrap();
        assert_eq!(mismatch.fields.first().unwrap().path, field, "{id}");
    }
}
