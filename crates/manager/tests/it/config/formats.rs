//! YAML, TOML and JSON, with all that their writers are used to, and what is refused.

use trunkline_telemetry::LogLevel;

use super::{Files, assert_line, check_yaml, yaml};

#[test]
fn anchors_aliases_and_merge_keys_are_understood() {
    let config = yaml(
        "policies:\n  base: &base\n    retry: {max_attempts: 2, backoff: 3}\n  strict:\n    <<: *base\n    retry: {max_attempts: 5}\n\
         \x20 same: *base\n",
    )
    .unwrap();
    assert_eq!(config.policies["base"].retry.max_attempts, Some(2));
    assert_eq!(config.policies["same"], config.policies["base"]);
    let strict = &config.policies["strict"].retry;
    // What is written wins whole over what is merged, as YAML says.
    assert_eq!((strict.max_attempts, strict.backoff), (Some(5), None));
}

#[test]
fn of_merged_lists_the_earlier_wins() {
    let config = yaml(
        "policies:\n  a: &a {request_timeout: 1s}\n  b: &b {request_timeout: 2s, retry: false}\n  c: {<<: [*a, *b]}\n",
    )
    .unwrap();
    let merged = &config.policies["c"];
    assert_eq!(merged.request_timeout.unwrap().as_secs(), 1);
    assert_eq!(merged.retry.enabled, Some(false));
}

#[test]
fn an_alias_inside_its_own_anchor_is_refused() {
    assert_line(
        &check_yaml("policies: &p\n  a: *p\n"),
        &[":2:", "the alias stands inside the value"],
    );
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", "));
    }
    assert_line(&check_yaml(&text), &["more than 50000 values"]);
}

#[test]
fn a_key_written_twice_is_an_error_with_both_lines() {
    let yaml = "debug_mode: true\nlogging: {level: info}\ndebug_mode: false\n";
    assert_line(
        &check_yaml(yaml),
        &[
            "communication.yaml:3:",
            "`debug_mode` is written twice",
            "communication.yaml:1",
        ],
    );
    let json = Files::new(&[(
        "communication.json",
        "{\"debug_mode\": true,\n \"debug_mode\": false}",
    )]);
    assert_line(
        &json.check(&[]),
        &["communication.json:2:", "written twice"],
    );
    let toml = Files::new(&[(
        "communication.toml",
        "debug_mode = true\ndebug_mode = false\n",
    )]);
    assert_line(
        &toml.check(&[]),
        &["communication.toml:2:", "duplicate key"],
    );
}

#[test]
fn deep_nesting_is_refused_in_every_format() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_line(
        &check_yaml(&format!("x: {}\n", nested(5000))),
        &["communication.yaml:1"],
    );
    let deep = nested(100);
    assert_line(
        &check_yaml(&format!("x: {deep}\n")),
        &["nested deeper than 64 levels"],
    );
    let json = Files::new(&[(
        "communication.json",
        &format!("{{\"x\": {}}}", nested(5000)),
    )]);
    assert_line(&json.check(&[]), &["nested deeper than 64 levels"]);
    let toml = Files::new(&[("communication.toml", &format!("x = {deep}\n"))]);
    assert_line(&toml.check(&[]), &["communication.toml:1"]);
    let block: String = (0..200)
        .map(|level| format!("{}a:\n", " ".repeat(level)))
        .collect();
    assert_line(&check_yaml(&block), &["nested deeper than 64 levels"]);
}

#[test]
fn a_huge_file_is_refused() {
    let text = format!("# {}\n", "x".repeat(1024 * 1024));
    assert_line(
        &check_yaml(&text),
        &["communication.yaml: is larger than 1 MiB"],
    );
}

#[test]
fn text_that_is_not_utf_8_is_refused() {
    let files = Files::new(&[]);
    std::fs::write(files.path().join("communication.yaml"), b"a: \xff\n").unwrap();
    assert_line(&files.check(&[]), &["communication.yaml: is not UTF-8"]);
}

#[test]
fn a_byte_order_mark_and_an_empty_file_are_fine() {
    for text in [
        "",
        "\n",
        "# nothing\n",
        "---\n",
        "\u{feff}debug_mode: true\n",
        "communication:\n",
    ] {
        yaml(text).unwrap();
    }
    assert!(yaml("\u{feff}debug_mode: true\n").unwrap().debug_mode);
}

#[test]
fn syntax_errors_have_lines() {
    assert_line(
        &check_yaml("a: 1\nb: [1, 2\n"),
        &["communication.yaml:", "not YAML"],
    );
    let json = Files::new(&[("communication.json", "{\n  \"debug_mode\": yes\n}")]);
    assert_line(
        &json.check(&[]),
        &["communication.json:2:", "not JSON", "true, false, null"],
    );
    let toml = Files::new(&[("communication.toml", "debug_mode = true\nx ==\n")]);
    assert_line(&toml.check(&[]), &["communication.toml:2:", "not TOML"]);
    assert_line(
        &check_yaml("a: 1\n---\nb: 2\n"),
        &["communication.yaml:3:", "second document"],
    );
    assert_line(
        &check_yaml("- a\n"),
        &["the file holds a list", "sections with keys"],
    );
    assert_line(&check_yaml("debug_mode: !secret x\n"), &["tag"]);
}

#[test]
fn plain_yaml_is_what_the_setting_wants() {
    let config = yaml(
        "service: {name: 007, version: 1.10}\nmetrics: {max_label_sets: 1e3}\ndebug_mode: yes\nservices: {a: {metadata: {flag: no, n: 1.0}}}\n",
    )
    .unwrap();
    assert_eq!(config.service.name.as_deref(), Some("007"));
    assert_eq!(config.service.version, "1.10");
    assert_eq!(config.metrics.max_label_sets, 1000);
    assert!(config.debug_mode);
    let metadata = &config.service_config("a").unwrap().metadata;
    assert_eq!(
        (metadata["flag"].as_str(), metadata["n"].as_str()),
        ("no", "1.0")
    );
}

#[test]
fn toml_tables_of_every_form_are_read() {
    let text = "debug_mode = true\nservice.name = \"orders\"\nservice.version = 2.0\n\n[logging]\nlevel = 'DEBUG'\n\
                targets = { \"a.b\" = \"warn\" }\n\n[policies.slow]\nrequest_timeout = 5\n\n[[gateway.routes]]\npath = \"/x\"\n\
                service = \"users\"\n";
    let files = Files::new(&[("communication.toml", text)]);
    let config = files.load(&[]).unwrap();
    assert!(config.debug_mode);
    assert_eq!(config.service.version, "2.0");
    assert_eq!(config.logging.level, LogLevel::Debug);
    assert_eq!(config.logging.targets["a.b"], LogLevel::Warn);
    assert_eq!(
        config.policies["slow"].request_timeout.unwrap().as_secs(),
        5
    );
    assert_eq!(
        config
            .place("policies.slow.request_timeout")
            .unwrap()
            .line(),
        Some(10)
    );
    #[cfg(feature = "gateway")]
    assert_eq!(config.gateway.as_ref().unwrap().routes[0].service, "users");
}

#[test]
fn json_escapes_and_numbers_are_read() {
    let text = r#"{"service": {"name": "a\u0062c", "version": "\ud83d\ude00\t\""}, "policies": {"p": {"retry": {"backoff": 1.5e0}}}}"#;
    let config = Files::new(&[("communication.json", text)])
        .load(&[])
        .unwrap();
    assert_eq!(config.service.name.as_deref(), Some("abc"));
    assert_eq!(config.service.version, "😀\t\"");
    assert_eq!(config.policies["p"].retry.backoff, Some(1.5));
    for bad in [
        r#"{"a": "\ud83d"}"#,
        r#"{"a": 01}"#,
        r#"{"a": 1,}"#,
        "{\"a\": \"\n\"}",
        r#"{"a": 1} x"#,
        "{'a': 1}",
    ] {
        let lines = Files::new(&[("communication.json", bad)]).check(&[]);
        assert_line(&lines, &["not JSON"]);
    }
}
