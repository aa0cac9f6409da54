use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{Instant, advance};
use trunkline_core::{
    Baggage, Context, CorrelationFormat, CorrelationId, Metadata, Propagation, TraceContext,
};

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_is_never_extended() {
    let context = Context::new().with_timeout(Duration::from_secs(2));
    let nested = context.clone().with_timeout(Duration::from_secs(10));
    assert_eq!(nested.deadline(), context.deadline());
    let tighter = context.with_timeout(Duration::from_secs(1));
    assert_eq!(tighter.remaining(), Some(Duration::from_secs(1)));
    advance(Duration::from_secs(3)).await;
    assert!(tighter.is_expired());
    assert_eq!(tighter.remaining(), Some(Duration::ZERO));
    assert_eq!(tighter.without_deadline().remaining(), None);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_travels_as_time_that_remains() {
    let propagation = Propagation::default();
    let context = Context::new().with_timeout(Duration::from_millis(500));
    advance(Duration::from_millis(200)).await;
    let mut headers = Metadata::new();
    propagation.inject(&context, &mut headers);
    assert_eq!(headers.get("x-request-timeout-ms"), Some("300"));
    let received = propagation.extract(&headers);
    assert_eq!(
        received.deadline(),
        Some(Instant::now() + Duration::from_millis(300))
    );
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_grpc_is_understood() {
    for (text, expected) in [
        ("250m", Some(Duration::from_millis(250))),
        ("3S", Some(Duration::from_secs(3))),
        ("123456789S", None),
        ("S", None),
        ("", None),
        ("5x", None),
    ] {
        let headers: Metadata = [("grpc-timeout", text)].into_iter().collect();
        assert_eq!(
            Propagation::default().extract(&headers).remaining(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn x31_a_foreign_correlation_id_is_kept_if_sound_and_replaced_if_not() {
    let propagation = Propagation::default().with_correlation_header("X-Request-Id");
    let sound: Metadata = [("x-request-id", "order-service-1736418600000-k3j9x2m1p")]
        .into_iter()
        .collect();
    assert_eq!(
        propagation.extract(&sound).correlation_id().as_str(),
        "order-service-1736418600000-k3j9x2m1p"
    );
    for bad in ["", "with space", "ümlaut", &"x".repeat(129)] {
        let headers: Metadata = [("x-request-id", bad)].into_iter().collect();
        let made = propagation.extract(&headers);
        assert_ne!(made.correlation_id().as_str(), bad);
        assert!(CorrelationId::accept(made.correlation_id().as_str()).is_some());
    }
}

#[test]
fn x31_new_ids_can_have_the_format_of_service_and_time() {
    let propagation = Propagation::default()
        .with_service("order-service")
        .with_format(CorrelationFormat::Service);
    let context = propagation.new_context();
    let id = context.correlation_id().as_str();
    let (rest, random) = id.rsplit_once('-').unwrap();
    let (service, millis) = rest.rsplit_once('-').unwrap();
    assert_eq!(service, "order-service");
    assert!(millis.parse::<u64>().unwrap() > 1_700_000_000_000);
    assert!((1..=9).contains(&random.len()) && random.bytes().all(|c| c.is_ascii_alphanumeric()));
}

#[test]
fn the_trace_goes_on_under_the_senders_span() {
    let propagation = Propagation::default();
    let sent = Context::new();
    let mut headers = Metadata::new();
    propagation.inject(&sent, &mut headers);
    let received = propagation.extract(&headers);
    assert_eq!(received.trace().trace_id(), sent.trace().trace_id());
    assert_eq!(received.trace().parent(), Some(sent.trace().span_id()));
    assert_ne!(received.trace().span_id(), sent.trace().span_id());
}

#[test]
fn malformed_trace_headers_begin_a_new_trace() {
    let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert!(TraceContext::parse(valid, None).unwrap().is_sampled());
    for bad in [
        "",
        "00",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
    ] {
        assert!(TraceContext::parse(bad, None).is_none(), "{bad}");
    }
    let future = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra";
    assert!(TraceContext::parse(future, None).is_some());
    let with_state = TraceContext::parse(valid, Some("vendor=1")).unwrap();
    assert_eq!(with_state.child().tracestate(), Some("vendor=1"));
    assert!(
        TraceContext::parse(valid, Some(&"x".repeat(513)))
            .unwrap()
            .tracestate()
            .is_none()
    );
}

#[tokio::test]
async fn the_context_is_visible_in_its_scope_and_in_spawned_tasks_only() {
    let context = Context::new();
    let id = context.correlation_id().clone();
    let inside = context
        .scope(async {
            trunkline_core::task::spawn("child", async { Context::current() })
                .await
                .unwrap()
        })
        .await;
    assert_eq!(inside.unwrap().correlation_id(), &id);
    assert!(Context::current().is_none());
    let bound = context.sync_scope(|| Context::bind(async { Context::current() }));
    assert_eq!(bound.await.unwrap().correlation_id(), &id);
}

#[test]
fn baggage_is_bounded_and_refuses_what_does_not_fit() {
    let mut baggage = Baggage::default();
    for n in 0..100 {
        baggage = baggage.with(&format!("key{n}"), "value");
    }
    assert_eq!(baggage.iter().count(), 64);
    assert_eq!(Baggage::parse(" , "), Baggage::default());
    assert!(Baggage::parse(" , ").is_empty());
    assert_eq!(baggage.with("not a token", "x"), baggage);
    assert_eq!(baggage.with("key0", &"x".repeat(9000)), baggage);
    assert!(Baggage::parse(&"a=b,".repeat(3000)).is_empty());
    assert_eq!(
        Baggage::parse("a=1;prop=x, b = 2 ,=3,c").get("b"),
        Some("2")
    );
}

proptest! {
    #[test]
    fn baggage_round_trips(pairs in proptest::collection::vec(("[a-z]{1,8}", ".{0,20}"), 0..8)) {
        let baggage = pairs.iter().fold(Baggage::default(), |all, (name, value)| all.with(name, value));
        let read = Baggage::parse(&baggage.to_header());
        for (name, value) in baggage.iter() {
            prop_assert_eq!(read.get(name), Some(value));
        }
    }

    #[test]
    fn headers_of_any_content_never_panic(
        correlation in ".{0,200}", parent in ".{0,80}", state in ".{0,80}", baggage in ".{0,80}", timeout in ".{0,24}",
    ) {
        let headers: Metadata = [
            ("x-correlation-id", correlation.as_str()),
            ("traceparent", &parent),
            ("tracestate", &state),
            ("baggage", &baggage),
            ("x-request-timeout-ms", &timeout),
            ("grpc-timeout", &timeout),
        ].into_iter().collect();
        let context = Propagation::default().extract(&headers);
        prop_assert!(CorrelationId::accept(context.correlation_id().as_str()).is_some());
    }
}

#[test]
fn without_tracing_no_trace_is_written_and_what_others_send_is_read() {
    let quiet = Propagation::default().with_tracing(false);
    assert!(!quiet.is_tracing() && Propagation::default().is_tracing());
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = TraceContext::parse(parent, Some("vendor=1")).unwrap();
    let context = Context::new().with_trace(trace);
    let mut headers = Metadata::new();
    quiet.inject(&context, &mut headers);
    assert_eq!(headers.get("traceparent"), None);
    assert_eq!(headers.get("tracestate"), None);
    let id = headers.get("x-correlation-id");
    assert_eq!(id, Some(context.correlation_id().as_str()));

    Propagation::default().inject(&context, &mut headers);
    let read = quiet.extract(&headers);
    assert_eq!(read.trace().trace_id(), context.trace().trace_id());
}

#[test]
fn every_header_name_is_a_setting() {
    let propagation = Propagation::default()
        .with_service("orders")
        .with_service_header("X-Caller")
        .with_deadline_header("X-Left")
        .with_correlation_header("X-Request-Id");
    let mut headers = Metadata::new();
    let context = Context::new().with_timeout(Duration::from_secs(9));
    propagation.inject(&context, &mut headers);
    assert_eq!(headers.get("x-caller"), Some("orders"));
    assert!(headers.get("x-left").is_some() && headers.get("x-request-id").is_some());
    assert!(headers.get("x-service-name").is_none());
    let caller = propagation.extract(&headers);
    assert_eq!(
        caller.identity().map(|caller| &*caller.service),
        Some("orders")
    );
}
