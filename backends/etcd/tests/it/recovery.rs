//! What happens to the server, and what comes of it: killed, wiped, paused, cut off, not there yet.

use std::fs;
use std::time::Duration;

use tokio::runtime::Handle;
use trunkline_discovery::{RegistrationState, Registry, Resolver, ServiceInstance};
use trunkline_etcd::EtcdRegistry;
use trunkline_testing::faults::Relay;
use trunkline_testing::servers::etcd::call;

use crate::world::{Process, config, name, own_server, until, with};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_again_and_again_is_found_again() {
    let Some(mut server) = own_server().await else {
        return;
    };
    let link = Relay::to(server.address()).unwrap();
    let process = Process::new(&config(link.address()));
    process.in_order().await;
    let (tasks, open) = (Handle::current().metrics().num_alive_tasks(), link.open());
    for round in 0..3 {
        server = with(server, |server| server.kill().unwrap()).await;
        process.degraded().await;
        server = with(server, |server| server.restart().unwrap()).await;
        process.in_order().await;
        assert_eq!(process.ids().await, ["users-1"], "round {round}");
    }
    until("no more connections than before", async || {
        link.open() <= open + 1
    })
    .await;
    // One may belong to the connection, and one waits for those who are thought of as gone; one more for each round is too many.
    until("no more tasks than before", async || {
        Handle::current().metrics().num_alive_tasks() <= tasks + 2
    })
    .await;
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_lost_everything_is_told_again() {
    let Some(mut server) = own_server().await else {
        return;
    };
    let process = Process::new(&config(server.address()));
    process.in_order().await;
    // The revision grows, so that it is lower afterwards.
    let other = EtcdRegistry::new(&config(server.address())).unwrap();
    for n in 0..20 {
        let passing =
            ServiceInstance::new(name("others"), "127.0.0.1", 9000 + n).with_id(format!("o-{n}"));
        other
            .register(passing, Duration::from_secs(600))
            .await
            .unwrap();
    }
    let known = other.resolve(&name("others")).await.unwrap();
    assert_eq!(known.instances.len(), 20);
    server = with(server, |server| {
        server.kill().unwrap();
        let data = server.site().data();
        for entry in fs::read_dir(&data).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
    })
    .await;
    process.degraded().await;
    let server = with(server, |server| server.restart().unwrap()).await;
    assert!(
        other
            .resolve(&name("others"))
            .await
            .unwrap()
            .instances
            .is_empty(),
        "it forgot"
    );
    // The lease is renewed every third of its time: the next renewal finds that it is gone.
    until("announced again", async || {
        process.registration.announcements() == 2
    })
    .await;
    process.in_order().await;
    assert_eq!(process.ids().await, ["users-1"]);
    // The watch lives in the new history: it sees what changes now.
    let late = ServiceInstance::new(name("users"), "127.0.0.1", 8002).with_id("users-2");
    other
        .register(late, Duration::from_secs(600))
        .await
        .unwrap();
    until("the newcomer is seen", async || {
        process.ids().await == ["users-1", "users-2"]
    })
    .await;
    process.end().await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_noticed_and_believed_again_afterwards() {
    let Some(mut server) = own_server().await else {
        return;
    };
    let process = Process::new(&config(server.address()));
    process.in_order().await;
    server = with(server, |server| server.pause().unwrap()).await;
    process.degraded().await;
    until("the registration is not kept up", async || {
        matches!(process.registration.state(), RegistrationState::Lost(_))
    })
    .await;
    server = with(server, |server| server.resume().unwrap()).await;
    process.in_order().await;
    assert_eq!(process.ids().await, ["users-1"]);
    process.end().await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_breaks_or_falls_silent_heals_without_a_change_being_missed() {
    let Some(server) = own_server().await else {
        return;
    };
    let link = Relay::to(server.address()).unwrap();
    let process = Process::new(&config(link.address()));
    process.in_order().await;
    let other = EtcdRegistry::new(&config(server.address())).unwrap();
    let newcomer = |n: u16| {
        ServiceInstance::new(name("users"), "127.0.0.1", 8000 + n).with_id(format!("users-{n}"))
    };
    let long = Duration::from_secs(600);
    for _ in 0..5 {
        link.reset_all();
        process.in_order().await;
    }
    // It leaves and another one comes while nothing passes.
    let leaving = other.register(newcomer(2), long).await.unwrap();
    until("seen", async || {
        process.ids().await == ["users-1", "users-2"]
    })
    .await;
    link.stall(true);
    process.degraded().await;
    other.deregister(&leaving).await.unwrap();
    other.register(newcomer(3), long).await.unwrap();
    assert_eq!(
        process.ids().await,
        ["users-1", "users-2"],
        "nothing is known of it yet"
    );
    link.stall(false);
    process.in_order().await;
    until("no ghost stays", async || {
        process.ids().await == ["users-1", "users-3"]
    })
    .await;
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_starts_without_the_server_and_picks_it_up() {
    let Some(server) = own_server().await else {
        return;
    };
    let server = with(server, |server| server.kill().unwrap()).await;
    let process = Process::new(&config(server.address()));
    until("it says that it cannot", async || {
        matches!(
            process.registration.state(),
            RegistrationState::Pending(Some(_))
        )
    })
    .await;
    assert!(!process.is_well() && !process.serves());
    let server = with(server, |server| server.restart().unwrap()).await;
    process.in_order().await;
    process.end().await;
    drop(server);
}

/// Takes everything that happened so far out of the server's memory.
fn compact(server: &trunkline_testing::servers::Server) {
    let range = call(
        server.address(),
        "POST",
        "/v3/kv/range",
        r#"{"key":"AA=="}"#,
    )
    .unwrap();
    let range: serde_json::Value = serde_json::from_str(&range).unwrap();
    let revision = range["header"]["revision"].as_str().unwrap();
    let asked = format!(r#"{{"revision":"{revision}"}}"#);
    call(server.address(), "POST", "/v3/kv/compaction", &asked).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_was_compacted_meanwhile_leaves_no_ghosts() {
    let Some(server) = own_server().await else {
        return;
    };
    let link = Relay::to(server.address()).unwrap();
    let process = Process::new(&config(link.address()));
    process.in_order().await;
    let other = EtcdRegistry::new(&config(server.address())).unwrap();
    let newcomer = |n: u16| {
        ServiceInstance::new(name("users"), "127.0.0.1", 8000 + n).with_id(format!("users-{n}"))
    };
    let long = Duration::from_secs(600);
    let leaving = other.register(newcomer(2), long).await.unwrap();
    until("seen", async || {
        process.ids().await == ["users-1", "users-2"]
    })
    .await;
    link.stall(true);
    process.degraded().await;
    other.deregister(&leaving).await.unwrap();
    other.register(newcomer(3), long).await.unwrap();
    compact(&server);
    link.stall(false);
    process.in_order().await;
    until("what is now is known", async || {
        process.ids().await == ["users-1", "users-3"]
    })
    .await;
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_watch_goes_on_where_it_was_though_that_was_compacted() {
    let Some(server) = own_server().await else {
        return;
    };
    let mut settings = config(server.address());
    settings.wait = Duration::from_millis(200);
    let registry = EtcdRegistry::new(&settings).unwrap();
    let (users, other) = (name("users"), name("other"));
    let mut watch = registry.watch(&users).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap().instances.is_empty());
    let waiting = trunkline_core::task::spawn("watch", async move { (watch.next().await, watch) });
    for n in 0..5 {
        let noise = ServiceInstance::new(other.clone(), "127.0.0.1", 9000 + n);
        registry
            .register(noise, Duration::from_secs(600))
            .await
            .unwrap();
        compact(&server);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert!(!waiting.is_finished(), "nothing has changed for it");
    let instance = ServiceInstance::new(users.clone(), "127.0.0.1", 8001);
    registry
        .register(instance.clone(), Duration::from_secs(600))
        .await
        .unwrap();
    let (list, _watch) = tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(list.unwrap().unwrap().instances, [instance]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_lost_is_told_and_made_again() {
    let Some(server) = own_server().await else {
        return;
    };
    let process = Process::new(&config(server.address()));
    process.in_order().await;
    // As an operator, or a cluster that was restored, takes it away.
    let leases = call(server.address(), "POST", "/v3/lease/leases", "{}").unwrap();
    let leases: serde_json::Value = serde_json::from_str(&leases).unwrap();
    let lease = leases["leases"][0]["ID"].as_str().unwrap();
    call(
        server.address(),
        "POST",
        "/v3/lease/revoke",
        &format!(r#"{{"ID":"{lease}"}}"#),
    )
    .unwrap();
    until("announced again", async || {
        process.registration.announcements() == 2
    })
    .await;
    process.in_order().await;
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_away_is_left_for_another() {
    let Some(server) = own_server().await else {
        return;
    };
    // The relays stand for two members of one cluster.
    let (one, two) = (
        Relay::to(server.address()).unwrap(),
        Relay::to(server.address()).unwrap(),
    );
    let mut settings = config(one.address());
    settings.endpoints = vec![one.address().to_string(), two.address().to_string()];
    let process = Process::new(&settings);
    process.in_order().await;
    assert_eq!(two.accepted(), 0, "the first one answers");
    one.refuse(true);
    one.reset_all();
    until("the other one is asked", async || two.accepted() > 0).await;
    process.in_order().await;
    two.refuse(true);
    two.reset_all();
    one.refuse(false);
    process.in_order().await;
    assert_eq!(process.ids().await, ["users-1"]);
    process.end().await;
}
