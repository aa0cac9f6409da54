use serde_json::json;
use trunkline_core::{ErrorKind, Problem};

#[test]
fn what_is_absent_is_not_written() {
    let text = serde_json::to_value(Problem::default()).unwrap();
    assert_eq!(text, json!({}));
}

#[test]
fn every_member_survives_a_round_trip() {
    let problem = Problem::new(422, "Unprocessable Content")
        .with_type("https://trunkline.dev/problems/invalid")
        .with_detail("`items` is empty")
        .with_instance("/orders/7")
        .with_extension("errors", json!([{ "field": "items" }]));
    let text = serde_json::to_string(&problem).unwrap();
    assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
}

#[test]
fn members_of_the_wrong_type_are_ignored() {
    let problem: Problem = serde_json::from_value(json!({
        "type": 7, "title": null, "status": "404", "detail": "gone", "balance": 30
    }))
    .unwrap();
    assert_eq!(problem.status, None);
    assert_eq!(problem.title, "");
    assert_eq!(problem.detail.as_deref(), Some("gone"));
    assert_eq!(problem.extensions["balance"], 30);
    assert!(serde_json::from_str::<Problem>("[1]").is_err());
}

#[test]
fn an_extension_cannot_take_a_name_of_the_specification() {
    let problem = Problem::new(500, "Internal Server Error").with_extension("status", 200);
    assert_eq!(problem.status, Some(500));
    assert!(problem.extensions.is_empty());
}

#[test]
fn a_status_has_a_kind() {
    for (status, kind) in [
        (400, ErrorKind::Invalid),
        (401, ErrorKind::Unauthenticated),
        (403, ErrorKind::Denied),
        (404, ErrorKind::NotFound),
        (408, ErrorKind::Timeout),
        (409, ErrorKind::Conflict),
        (422, ErrorKind::Invalid),
        (429, ErrorKind::RateLimited),
        (500, ErrorKind::Internal),
        (501, ErrorKind::Unsupported),
        (503, ErrorKind::Unavailable),
        (504, ErrorKind::Timeout),
        (507, ErrorKind::Exhausted),
    ] {
        assert_eq!(Problem::kind_of(status), kind, "{status}");
    }
}

#[test]
fn it_reads_as_a_sentence() {
    let problem = Problem::new(404, "Not Found");
    assert_eq!(problem.to_string(), "Not Found");
    assert_eq!(
        problem.with_detail("no user 42").to_string(),
        "Not Found: no user 42"
    );
}
