use std::time::Duration;

use tower::{Layer, Service, ServiceExt, service_fn};
use trunkline_core::{Error, ErrorKind};
use trunkline_resilience::fallback::FallbackLayer;
use trunkline_resilience::timeout::Deadline;

const SECOND: Duration = Duration::from_secs(1);

async fn answer(request: u32, result: Result<u32, Error>, _: Deadline) -> Result<u32, Error> {
    let cause = result.unwrap_err();
    match cause.kind() {
        ErrorKind::Unavailable | ErrorKind::Timeout => Ok(request + 1000),
        _ => Err(cause),
    }
}

#[tokio::test(start_paused = true)]
async fn answers_failures_with_the_request_at_hand() {
    let layer = FallbackLayer::new(answer, 10 * SECOND);
    let mut service = layer.layer(service_fn(|request: u32| async move {
        match request {
            0 => Ok(0),
            1 => Err(Error::unavailable("down")),
            2 => Err(Error::not_found("no such thing")),
            _ => std::future::pending().await,
        }
    }));
    let mut ask = async |request| service.ready().await?.call(request).await;
    assert_eq!(ask(0).await.unwrap(), 0);
    assert_eq!(ask(1).await.unwrap(), 1001);
    assert_eq!(ask(2).await.unwrap_err().kind(), ErrorKind::NotFound);
    let began = tokio::time::Instant::now();
    assert_eq!(ask(3).await.unwrap(), 1003);
    assert_eq!(began.elapsed(), Duration::from_millis(9750));
}
