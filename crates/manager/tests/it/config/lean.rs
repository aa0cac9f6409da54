//! What a build without features says of settings that it does not serve.

use super::check_yaml;

#[test]
fn sections_that_are_left_out_name_their_feature() {
    let lines = check_yaml("http_client: {timeout: 5}\nserver: {port: 1}\ngateway: {port: 2}\n");
    assert_eq!(lines.len(), 3, "{lines:#?}");
    for (line, feature) in lines.iter().zip(["http", "server", "gateway"]) {
        assert!(
            line.contains("warning") && line.contains(&format!("needs the feature `{feature}`")),
            "{line}"
        );
    }
}

#[cfg(not(feature = "embedded"))]
#[test]
fn an_embedded_broker_names_its_feature() {
    let lines = check_yaml("message_broker: {type: embedded}\n");
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].contains("needs the feature `embedded`; using it fails; allowed: memory"),
        "{lines:?}"
    );
}
