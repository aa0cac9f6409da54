//! A changed file is read again, checked first, and refused when it cannot be used.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::task::Scope;
use trunkline_manager::ConfigWatch;

use super::{Files, assert_line};

const INTERVAL: Duration = Duration::from_millis(50);

async fn stop(scope: Scope) {
    assert_eq!(
        scope
            .shutdown(Instant::now() + Duration::from_secs(10))
            .await,
        0
    );
}

#[tokio::test]
async fn a_changed_file_is_taken_over() {
    let files = Files::new(&[(
        "communication.yaml",
        "prefix: one.\nservices: {a: {host: x}}\n",
    )]);
    let scope = Scope::new();
    let watch = ConfigWatch::start(files.loader(&[]), INTERVAL, &scope)
        .await
        .unwrap();
    let mut states = watch.subscribe();
    assert_eq!(watch.current().prefix.as_deref(), Some("one."));

    files.write(
        "communication.yaml",
        "prefix: two.\nservices: {a: {host: x, retry_attempts: 7}, b: {host: y}}\n",
    );
    states.changed().await.unwrap();
    let state = states.borrow_and_update().clone();
    assert_eq!(state.generation, 1);
    assert_eq!(state.config.prefix.as_deref(), Some("two."));
    assert_eq!(
        *state.changed,
        ["prefix", "services.a.retry.max_attempts", "services.b"].map(str::to_owned)
    );
    stop(scope).await;
}

#[tokio::test]
async fn a_bad_change_is_refused_and_the_old_configuration_stays() {
    let files = Files::new(&[("communication.yaml", "prefix: one.\n")]);
    let scope = Scope::new();
    let watch = ConfigWatch::start(files.loader(&[]), INTERVAL, &scope)
        .await
        .unwrap();
    let mut states = watch.subscribe();

    files.write("communication.yaml", "prefix: two.\nloging: {}\n");
    states.changed().await.unwrap();
    let state = states.borrow_and_update().clone();
    assert_eq!(state.generation, 0);
    assert_eq!(state.config.prefix.as_deref(), Some("one."));
    assert_line(
        &files.lines(state.rejected.as_deref().unwrap()),
        &["communication.yaml:2: loging", "`logging`"],
    );
    assert!(watch.reload().await.is_err());

    files.write("communication.yaml", "prefix: one.\n");
    states.changed().await.unwrap();
    let state = states.borrow_and_update().clone();
    assert!(state.rejected.is_none());
    assert_eq!(
        (state.generation, state.config.prefix.as_deref()),
        (0, Some("one."))
    );
    stop(scope).await;
}

#[tokio::test]
async fn a_new_profile_file_and_a_rotated_secret_are_noticed() {
    let files = Files::new(&[
        (
            "communication.yaml",
            "message_broker: {type: rabbitmq, host: h, password_file: secret}\n",
        ),
        ("secret", "old"),
    ]);
    let scope = Scope::new();
    let watch = ConfigWatch::start(files.loader(&[]), INTERVAL, &scope)
        .await
        .unwrap();
    let mut states = watch.subscribe();

    files.write("config/development.yaml", "debug_mode: true\n");
    states.changed().await.unwrap();
    assert_eq!(
        *states.borrow_and_update().changed,
        ["debug_mode".to_owned()]
    );

    files.write("secret", "new");
    states.changed().await.unwrap();
    let state = states.borrow_and_update().clone();
    assert_eq!(
        *state.changed,
        ["message_brokers.default.connection.password".to_owned()]
    );
    let password = state.config.message_brokers.as_ref().unwrap()["default"]
        .connection
        .password
        .clone();
    assert_eq!(password.unwrap().expose(), "new");
    stop(scope).await;
}

#[tokio::test]
async fn a_change_that_keeps_size_and_time_is_noticed() {
    let files = Files::new(&[("communication.yaml", "prefix: one.\n")]);
    let scope = Scope::new();
    let watch = ConfigWatch::start(files.loader(&[]), INTERVAL, &scope)
        .await
        .unwrap();
    let mut states = watch.subscribe();
    let path = files.path().join("communication.yaml");
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    // An editor's way: a new file takes the old one's place, here with its time, too.
    files.write("new.yaml", "prefix: two.\n");
    let new = files.path().join("new.yaml");
    std::fs::File::options()
        .write(true)
        .open(&new)
        .unwrap()
        .set_modified(before)
        .unwrap();
    std::fs::rename(&new, &path).unwrap();
    states.changed().await.unwrap();
    assert_eq!(watch.current().prefix.as_deref(), Some("two."));
    stop(scope).await;
}

#[tokio::test]
async fn a_removed_file_takes_its_settings_back() {
    let files = Files::new(&[("communication.yaml", "prefix: one.\n")]);
    let scope = Scope::new();
    let watch = ConfigWatch::start(files.loader(&[]), INTERVAL, &scope)
        .await
        .unwrap();
    std::fs::remove_file(files.path().join("communication.yaml")).unwrap();
    let changed = watch.reload().await.unwrap();
    assert_eq!(*changed, ["prefix".to_owned()]);
    assert_eq!(watch.current().prefix, None);
    assert!(watch.reload().await.unwrap().is_empty());
    stop(scope).await;
}

#[tokio::test]
async fn a_first_configuration_that_cannot_be_used_is_an_error() {
    let files = Files::new(&[("communication.yaml", "loging: {}\n")]);
    let scope = Scope::new();
    let error = ConfigWatch::start(files.loader(&[]), INTERVAL, &scope)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), trunkline_core::ErrorKind::Config);
    assert!(scope.is_empty());
}
