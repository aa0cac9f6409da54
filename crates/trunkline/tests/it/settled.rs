//! What the guides of the older SDKs contradict each other about, as it was settled; each test has the number of its entry.

use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use trunkline::http::{ServiceError, ServiceSdk};
use trunkline::service_interface;
use trunkline::telemetry::Format;

use crate::interface::policy::manager;
use crate::interface::server::Server;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|end| end == "rs") => found.push(path),
            false => {}
        }
    }
}

/// what is named otherwise here is found by its older name, in the documentation and in the guide.
#[test]
fn x_1_the_older_names_are_aliases() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(crates).unwrap() {
        sources(&entry.unwrap().path().join("src"), &mut files);
    }
    let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
    let all: String = files.iter().map(read).collect();
    let guide = read(&crates.join("../docs/guide/migrating.md"));
    for name in [
        "HTTPClient",
        "EnhancedHTTPClient",
        "AdvancedHTTPClient",
        "ServiceHttpClient",
        "ServiceSDK",
        "ServiceSDKConfig",
        "CircuitOpenError",
        "CircuitBreakerOpenError",
        "ServiceClientError",
        "ServiceTimeoutError",
        "ServiceUnavailableError",
        "ValidationError",
        "CommunicationError",
        "CommunicationConfigurationError",
        "APIGateway",
        "get_message_broker",
        "get_http_client",
        "get_service_discovery",
        "get_event_store",
        "get_health_status",
        "get_communication_manager",
        "get_client",
        "get_circuit_state",
        "service_call",
        "cached_service_call",
        "retry_on_failure",
        "retry_attempts",
        "max_retries",
    ] {
        let alias = format!("#[doc(alias = \"{name}\")]");
        assert!(all.contains(&alias), "no alias {name}");
        assert!(guide.contains(name), "the guide has no {name}");
    }
}

// The first has no base path; one of its methods belongs to another service.
#[service_interface("product-service")]
trait Products {
    #[get("/products/{id}")]
    async fn product(&self, id: u64) -> Result<u64, ServiceError>;

    #[get("/stock/{id}", service = "stock-service")]
    async fn stock(&self, id: u64) -> Result<u64, ServiceError>;
}

async fn number() -> Server {
    Server::start(|seen, _| match seen.uri.ends_with("/7") {
        true => Ok("7"),
        false => Err(StatusCode::INTERNAL_SERVER_ERROR),
    })
    .await
}

fn port(server: &Server) -> &str {
    server.url.rsplit(':').next().unwrap()
}

fn services(products: &Server, stock: &Server) -> String {
    format!(
        "policies: {{ default: {{ retry: {{ enabled: false }}, circuit_breaker: {{ enabled: false }} }} }}\n\
         services:\n  product-service: {{ host: 127.0.0.1, port: {} }}\n  \
         stock-service: {{ host: 127.0.0.1, port: {} }}\n",
        port(products),
        port(stock)
    )
}

/// the service at a method is called in place of the trait's, a trait needs no base path, and clients come from a
/// manager, from an SDK, or from the global manager.
#[tokio::test]
async fn x_41_where_generated_clients_come_from_and_lead_to() {
    let (products, stock) = (number().await, number().await);
    let manager = manager(&services(&products, &stock)).await;
    let header = |seen: &str| {
        let seen = seen.to_owned();
        async move |mut request: trunkline::http::ServiceRequest, next: trunkline::http::Next| {
            request.set_header("x-made-by", &seen)?;
            next.run(request).await
        }
    };
    let sdk: ServiceSdk = manager.service_sdk().middleware(header("sdk"));
    let missing = trunkline::typed_client::<ProductsClient>().unwrap_err();
    assert!(
        missing.to_string().contains("initialize_communication"),
        "{missing}"
    );
    let of_sdk: ProductsClient = sdk.typed_client();
    for (client, made_by) in [
        (manager.client::<ProductsClient>(), None),
        (of_sdk, Some("sdk")),
    ] {
        assert_eq!(client.product(7).await.unwrap(), 7);
        assert_eq!(client.stock(7).await.unwrap(), 7);
        let (product, in_stock) = (products.last(), stock.last());
        assert_eq!(product.line(), "GET /products/7");
        assert_eq!(in_stock.line(), "GET /stock/7");
        for seen in [product, in_stock] {
            assert_eq!(seen.header("x-made-by"), made_by);
        }
    }
    manager.shutdown().await.unwrap();

    let global = crate::interface::policy::config(&services(&products, &stock));
    trunkline::initialize_communication(global).await.unwrap();
    let of_global: ProductsClient = trunkline::typed_client().unwrap();
    assert_eq!(of_global.product(7).await.unwrap(), 7);
    assert_eq!(of_global.stock(7).await.unwrap(), 7);
    trunkline::shutdown_communication().await.unwrap();
    assert!(of_global.product(7).await.is_err());
    assert!(trunkline::typed_client::<ProductsClient>().is_err());
    assert_eq!((products.seen().len(), stock.seen().len()), (3, 3));
}

/// one counter of failed calls, in which the service is a label, and what is called a template.
#[tokio::test]
async fn x_47_the_service_is_a_label_and_no_part_of_a_name() {
    let (products, stock) = (number().await, number().await);
    let manager = manager(&services(&products, &stock)).await;
    let client: ProductsClient = manager.client();
    for id in 100..130 {
        assert!(client.product(id).await.is_err());
        assert!(client.stock(id).await.is_err());
    }
    let text = manager.metrics().render(Format::Prometheus).unwrap();
    let samples: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("trunkline_service_call_errors_total{"))
        .collect();
    assert_eq!(samples.len(), 2, "{samples:#?}");
    for (service, template) in [
        ("product-service", "GET /products/{id}"),
        ("stock-service", "GET /stock/{id}"),
    ] {
        let one = samples
            .iter()
            .find(|line| line.contains(&format!("service=\"{service}\"")))
            .unwrap();
        assert!(one.contains(template) && one.ends_with(" 30"), "{one}");
    }
    for line in text.lines() {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(
            !name.contains("product") && !name.contains("stock"),
            "{line}"
        );
    }
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/migrating.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let row = "| metric `service_call_error.{service}` | `trunkline_service_call_errors_total{service=…}` |";
    assert!(guide.contains(row));
    manager.shutdown().await.unwrap();
}
