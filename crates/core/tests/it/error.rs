use std::io;

use trunkline_core::{Error, ErrorKind, Origin, Retry};

#[test]
fn the_kind_suggests_whether_a_retry_is_safe() {
    assert_eq!(Error::unavailable("x").retry(), Retry::IfIdempotent);
    assert_eq!(Error::rejected("x").retry(), Retry::Safe);
    assert_eq!(Error::invalid("x").retry(), Retry::Never);
    assert_eq!(
        Error::invalid("x").with_retry(Retry::Safe).retry(),
        Retry::Safe
    );
}

#[test]
fn a_typed_cause_is_found_behind_other_errors() {
    let inner = Error::timeout("no answer").with_source(io::Error::other("reset"));
    let outer = Error::unavailable("call failed").with_source(inner);
    assert_eq!(outer.find::<io::Error>().unwrap().to_string(), "reset");
    assert_eq!(outer.find::<Error>().unwrap().kind(), ErrorKind::Timeout);
    assert!(outer.find::<std::fmt::Error>().is_none());
}

#[test]
fn the_report_shows_where_what_and_why_once() {
    let error = Error::unavailable("cannot connect")
        .with_component("message_broker_default")
        .with_operation("publish")
        .with_context("topic", "orders")
        .with_origin(Origin::Remote)
        .with_source(io::Error::other("cannot connect"));
    assert_eq!(
        error.report().to_string(),
        "message_broker_default: publish: cannot connect (topic=orders)"
    );
    let error = Error::unavailable("cannot connect").with_source(io::Error::other("refused"));
    assert_eq!(error.report().to_string(), "cannot connect: refused");
    assert_eq!(error.to_string(), "cannot connect");
    let error = Error::config("2 problems").with_source(io::Error::other("one\nother"));
    assert_eq!(error.report().to_string(), "2 problems:\none\nother");
}

#[test]
fn an_error_survives_boxing() {
    let boxed: trunkline_core::BoxError = Box::new(Error::conflict("twice"));
    assert_eq!(Error::from_boxed(boxed).kind(), ErrorKind::Conflict);
    let foreign: trunkline_core::BoxError = Box::new(io::Error::other("disk"));
    let wrapped = Error::from_boxed(foreign);
    assert_eq!(wrapped.kind(), ErrorKind::Internal);
    assert!(wrapped.find::<io::Error>().is_some());
}
