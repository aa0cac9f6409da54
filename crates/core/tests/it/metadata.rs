use bytes::Bytes;
use proptest::prelude::*;
use trunkline_core::{Metadata, Secret};

#[test]
fn names_are_compared_without_case_and_keep_their_spelling() {
    let mut headers = Metadata::new();
    headers.append("Tag", "a");
    headers.append("tAG", "b");
    headers.append("other", "c");
    headers.insert("TAG", "only");
    let all: Vec<_> = headers.iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(all, ["TAG", "other"]);
    assert_eq!(headers.remove("tag").unwrap().as_str(), Some("only"));
    assert!(!headers.contains("tag"));
}

#[test]
fn a_binary_value_is_kept_but_is_no_text() {
    let mut headers = Metadata::new();
    headers.insert("bin", Bytes::from_static(&[0xff, 0x00]));
    assert_eq!(headers.get("bin"), None);
    assert_eq!(headers.value("bin").unwrap().as_bytes(), [0xff, 0x00]);
    headers.insert_if_absent("BIN", "no");
    assert_eq!(headers.len(), 1);
    assert_eq!(format!("{headers:?}"), r#"{"bin": <2 bytes>}"#);
}

#[test]
fn cfg7_a_secret_is_never_shown() {
    let secret = Secret::new("hunter2".to_owned());
    let shown = format!(
        "{secret:?} {secret} {}",
        serde_json::to_string(&secret).unwrap()
    );
    assert!(!shown.contains("hunter2"));
    let read: Secret = serde_json::from_str("\"hunter2\"").unwrap();
    assert_eq!(read.expose(), "hunter2");
}

proptest! {
    #[test]
    fn an_insert_is_what_is_read_and_stands_once(
        before in proptest::collection::vec(("[a-cA-C]{1,2}", "[x-z]{0,3}"), 0..12), name in "[a-cA-C]{1,2}",
    ) {
        let mut headers: Metadata = before.into_iter().collect();
        let others = headers.iter().filter(|(known, _)| !known.eq_ignore_ascii_case(&name)).count();
        headers.insert(name.clone(), "new");
        prop_assert_eq!(headers.get(&name), Some("new"));
        prop_assert_eq!(headers.len(), others + 1);
    }
}
