//! What holds for every command: help, completions, errors, streams.

use std::process::Stdio;

use crate::place::{Outcome, PROGRAM, Place, Running};

const COMMANDS: [&[&str]; 24] = [
    &["demo"],
    &["gateway"],
    &["config"],
    &["config", "check"],
    &["config", "show"],
    &["config", "schema"],
    &["policy"],
    &["policy", "explain"],
    &["call"],
    &["publish"],
    &["subscribe"],
    &["dlq"],
    &["dlq", "list"],
    &["dlq", "show"],
    &["dlq", "replay"],
    &["dlq", "purge"],
    &["services"],
    &["services", "list"],
    &["services", "watch"],
    &["services", "register"],
    &["services", "deregister"],
    &["health"],
    &["circuits"],
    &["completions"],
];

#[tokio::test]
async fn the_help_of_each_command_has_an_example_of_it() {
    let place = Place::new();
    for command in COMMANDS {
        let help = place.run(&[command, &["--help"]].concat()).await.done();
        let (_, examples) = help
            .text()
            .split_once("\nExample")
            .unwrap_or_else(|| panic!("{command:?} has no example: {}", help.text()));
        let example = format!("trunkline {}", command.join(" "));
        assert!(examples.contains(&example), "{examples}");
    }
}

#[tokio::test]
async fn the_help_lists_every_command_and_the_exit_codes() {
    let place = Place::new();
    let help = place.run(&["--help"]).await.done();
    for command in COMMANDS {
        assert!(
            help.text().contains(&format!("\n  {}", command[0])),
            "{command:?}"
        );
    }
    let codes = "0 done, 1 failed, 2 wrong use or configuration, 3 timed out";
    assert!(help.text().contains(codes));
    assert!(
        place
            .run(&["help", "dlq", "purge"])
            .await
            .done()
            .text()
            .contains("--all")
    );
}

#[tokio::test]
async fn the_version_is_that_of_the_crate() {
    let version = Place::new().run(&["--version"]).await.done();
    assert_eq!(
        version.text(),
        concat!("trunkline ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[tokio::test]
async fn what_is_not_understood_is_exit_2_and_told_on_stderr() {
    let place = Place::new();
    for (args, says) in [
        (&[][..], "Usage: trunkline"),
        (&["subscrbe"], "'subscribe'"),
        (&["config"], "Usage: trunkline config"),
        (&["publish", "embedded:"], "<TOPIC>"),
        (&["--output", "xml", "config", "schema"], "text, json"),
        (&["demo", "--orders", "5"], "--check"),
        (&["completions", "klingon"], "klingon"),
    ] {
        place.run(args).await.refused(2, says);
    }
}

#[tokio::test]
async fn errors_are_json_where_results_are() {
    let place = Place::new();
    for args in [
        &["--output", "json", "subscrbe"][..],
        &["--output=json", "config"],
        &["publish", "embedded:", "--output", "json"],
        &["publish", "embedded:", "a b", "1", "--output", "json"],
        &[
            "services",
            "register",
            "embedded:",
            "web",
            "nowhere",
            "--output",
            "json",
        ],
    ] {
        let refused = place.run(args).await.refused(2, "");
        assert_eq!(refused.error()["kind"], "invalid", "{args:?}");
        assert!(
            !refused.error()["error"]
                .as_str()
                .unwrap()
                .starts_with("error")
        );
    }
    // What comes after `--` is no option, and the last one counts.
    place
        .run(&["publish", "no url", "t", "--", "--output=json"])
        .await
        .refused(2, "error: ");
    let as_text = ["subscrbe", "--output=json", "--output", "text"];
    place.run(&as_text).await.refused(2, "error: ");
}

#[tokio::test]
async fn the_format_can_come_from_the_environment() {
    let place = Place::new();
    for args in [&["publish", "embedded:", "a b", "1"][..], &["subscrbe"]] {
        let mut command = place.command(args);
        command.env("TRUNKLINE_OUTPUT", "json");
        let refused = Outcome::of(command).await.refused(2, "");
        assert_eq!(refused.error()["kind"], "invalid");
    }
}

#[tokio::test]
async fn nothing_is_coloured_where_nobody_looks() {
    let place = Place::new();
    for args in [
        &["config", "show"][..],
        &["--no-color", "publish", "no url", "t", "1"],
    ] {
        let said = place.run(args).await;
        assert!(!said.text().contains('\u{1b}') && !said.stderr.contains('\u{1b}'));
    }
}

#[tokio::test]
async fn completions_know_the_commands_of_each_shell() {
    let place = Place::new();
    for (shell, has) in [
        ("bash", "complete -F _trunkline"),
        ("zsh", "#compdef trunkline"),
        ("fish", "complete -c trunkline"),
    ] {
        let script = place.run(&["completions", shell]).await.done();
        for word in [has, "subscribe", "deregister", "purge"] {
            assert!(script.text().contains(word), "{shell}: {word}");
        }
    }
}

#[tokio::test]
async fn bash_takes_its_completions() {
    let place = Place::new();
    let script = place.run(&["completions", "bash"]).await.done();
    place.file("completions.bash", script.text());
    let ask = "source completions.bash; COMP_WORDS=(trunkline sub); COMP_CWORD=1; \
               _trunkline trunkline sub trunkline; echo \"${COMPREPLY[*]}\"";
    let mut bash = tokio::process::Command::new("bash");
    bash.args(["--norc", "-c", ask])
        .current_dir(place.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    assert_eq!(Outcome::of(bash).await.done().text(), "subscribe\n");
}

#[tokio::test]
async fn a_reader_that_leaves_is_no_failure() {
    let place = Place::new();
    for args in [
        &["completions", "bash"][..],
        &["config", "schema"],
        &["config", "show"],
    ] {
        let mut child = place.command(args).spawn().unwrap();
        drop(child.stdout.take());
        let ended = Outcome::end_of(child).await.done();
        assert_eq!(ended.stderr, "", "{args:?}");
    }
}

#[tokio::test]
async fn head_gets_its_line() {
    let place = Place::new();
    let piped = format!("set -o pipefail; '{PROGRAM}' completions zsh | head -n 1");
    let mut bash = tokio::process::Command::new("bash");
    bash.args(["-c", &piped])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    bash.current_dir(place.path());
    assert_eq!(
        Outcome::of(bash).await.done().text(),
        "#compdef trunkline\n"
    );
}

#[tokio::test]
async fn a_result_that_cannot_be_written_is_a_failure() {
    let place = Place::new();
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = place.command(&["config", "schema"]);
    command.stdout(full);
    Outcome::of(command)
        .await
        .refused(1, "cannot print the result");
}

#[tokio::test]
async fn verbose_tells_on_stderr_what_happens() {
    let place = Place::new();
    let mut gateway = Running::of(place.command(&["gateway", "--port", "0", "-v"]));
    gateway.remark("DEBUG").await;
    let url = place.url();
    let args = [
        "call",
        "nobody",
        "GET",
        "/",
        "--registry",
        &url,
        "--timeout",
        "500ms",
    ];
    let quiet = place.run(&args).await;
    let verbose = place.run(&[&args[..], &["-vv"]].concat()).await;
    assert_eq!(quiet.stderr.lines().count(), 1, "{}", quiet.stderr);
    assert!(verbose.stderr.contains("trunkline::"), "{}", verbose.stderr);
    assert_eq!(quiet.code, verbose.code);
}
