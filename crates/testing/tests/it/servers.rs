//! Real servers: started, killed, restarted, paused, and never left behind.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use trunkline_testing::servers::{
    self, Ending, Launch, Program, REDIS, Server, ServerError, Site, System, redis,
};

/// Which part a process of this test binary plays, when a test starts it again.
const ROLE: &str = "TRUNKLINE_TEST_ROLE";

static ABSENT: Program = Program {
    name: "trunkline-no-such-program",
    package: "trunkline-no-such-package",
    version_arguments: &[],
};

fn get(address: SocketAddr, key: &str) -> Option<String> {
    redis::call(address, &["GET", key]).unwrap()
}

fn set(address: SocketAddr, key: &str, value: &str) {
    assert_eq!(
        redis::call(address, &["SET", key, value])
            .unwrap()
            .as_deref(),
        Some("OK")
    );
}

#[test]
fn data_outlives_kill_and_restart() {
    let Some(mut server) = servers::own(&REDIS) else {
        return;
    };
    let (url, first) = (server.url(), server.pid());
    set(server.address(), "key", "value");

    server.kill().unwrap();
    assert!(!server.is_running());
    assert!(
        redis::call(server.address(), &["PING"]).is_err(),
        "a killed server answered"
    );

    server.restart().unwrap();
    assert_ne!(server.pid(), first);
    assert_eq!(server.url(), url, "clients must find it again");
    assert_eq!(get(server.address(), "key").as_deref(), Some("value"));
}

#[test]
fn restart_of_a_running_server_stops_it_first() {
    let Some(mut server) = servers::own(&REDIS) else {
        return;
    };
    set(server.address(), "key", "value");
    let first = server.pid();
    server.restart().unwrap();
    assert_ne!(server.pid(), first);
    assert!(!is_there(first));
    assert_eq!(get(server.address(), "key").as_deref(), Some("value"));
}

#[test]
fn stop_is_graceful_and_happens_once() {
    let Some(mut server) = servers::own(&REDIS) else {
        return;
    };
    assert_eq!(server.stop().unwrap(), Ending::Stopped);
    assert_eq!(server.stop().unwrap(), Ending::AlreadyGone);
    let log = std::fs::read_to_string(server.site().log()).unwrap();
    assert!(log.contains("Redis is now ready to exit"), "{log}");
    assert!(matches!(
        server.pause(),
        Err(ServerError::NotRunning { system: "redis" })
    ));
}

#[test]
fn paused_server_keeps_connections_and_does_not_answer() {
    let Some(mut server) = servers::own(&REDIS) else {
        return;
    };
    let mut client = TcpStream::connect(server.address()).unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut reply = [0; 7];

    server.pause().unwrap();
    assert!(server.is_running());
    client.write_all(b"PING\r\n").unwrap();
    let error = client.read_exact(&mut reply).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{error}"
    );

    server.resume().unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    client.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"+PONG\r\n");
}

#[test]
fn paused_server_can_be_stopped() {
    let Some(mut server) = servers::own(&REDIS) else {
        return;
    };
    server.pause().unwrap();
    assert_eq!(server.stop().unwrap(), Ending::Stopped);
}

#[test]
fn two_servers_share_nothing() {
    let Some(one) = servers::own(&REDIS) else {
        return;
    };
    let Some(two) = servers::own(&REDIS) else {
        return;
    };
    assert_ne!(one.address(), two.address());
    assert_ne!(one.directory(), two.directory());
    set(one.address(), "key", "one");
    assert_eq!(get(two.address(), "key"), None);
}

#[test]
fn dropped_server_leaves_nothing() {
    let Some(server) = servers::own(&REDIS) else {
        return;
    };
    let (pid, directory) = (server.pid(), server.directory().to_owned());
    assert!(directory.exists());
    drop(server);
    assert!(!is_there(pid));
    assert!(!directory.exists());
}

#[test]
fn extra_arguments_reach_the_server() {
    let launch = Launch::new(&REDIS).arguments(["--appendfsync", "always"]);
    let Some(server) = servers::own_launched(launch) else {
        return;
    };
    // The reply is an array, which `call` does not read: count its words on the wire.
    let mut client = TcpStream::connect(server.address()).unwrap();
    client.write_all(b"CONFIG GET appendfsync\r\n").unwrap();
    let lines: Vec<String> = BufReader::new(client)
        .lines()
        .take(5)
        .map(Result::unwrap)
        .collect();
    assert_eq!(lines[2..], ["appendfsync", "$6", "always"]);
}

#[test]
fn wrong_arguments_are_reported_with_the_log() {
    let launch = Launch::new(&REDIS).arguments(["--no-such-setting", "1"]);
    let error = match launch.start() {
        Ok(_) => panic!("redis started with a wrong setting"),
        Err(ServerError::NotInstalled { .. }) => {
            let nothing = servers::own(&REDIS);
            assert!(nothing.is_none());
            return;
        }
        Err(error) => error,
    };
    assert!(
        matches!(
            error,
            ServerError::Exited {
                system: "redis",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("no-such-setting"), "{error}");
}

/// A port that a stranger takes between its choice and the server's start: the stranger even answers
/// the probe.
mod stolen_port {
    use super::*;

    static THIEF: Mutex<Option<TcpListener>> = Mutex::new(None);

    fn probe(site: &Site) -> Result<(), String> {
        let mut thief = THIEF.lock().unwrap();
        if thief.is_none() {
            *thief = Some(TcpListener::bind((Ipv4Addr::LOCALHOST, site.port())).unwrap());
            return Ok(());
        }
        (REDIS.probe)(site)
    }

    /// Starts late enough for the thief to come first.
    fn command(site: &Site, command: &mut Command) {
        let stolen = THIEF.lock().unwrap().is_some();
        if stolen {
            (REDIS.command)(site, command);
        } else {
            // Never listens on the port that clients get.
            command
                .args(["--port", "0", "--unixsocket"])
                .arg(site.data().join("socket"));
        }
    }

    #[test]
    fn answer_of_a_stranger_does_not_count() {
        let system: &'static System = Box::leak(Box::new(System {
            probe,
            command,
            ..REDIS.clone()
        }));
        let Some(server) = servers::own(system) else {
            return;
        };
        let stolen = THIEF
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .local_addr()
            .unwrap();
        assert_ne!(server.address(), stolen);
        set(server.address(), "key", "value");
    }
}

#[test]
fn server_that_never_listens_is_not_ready() {
    fn probe(_: &Site) -> Result<(), String> {
        Ok(()) // claims to serve
    }
    fn command(site: &Site, command: &mut Command) {
        command
            .args(["--port", "0", "--unixsocket"])
            .arg(site.data().join("socket"));
    }
    let ready_within = Duration::from_millis(300);
    let system: &'static System = Box::leak(Box::new(System {
        probe,
        command,
        ready_within,
        ..REDIS.clone()
    }));
    match Server::start(system) {
        Err(ServerError::NotReady { probe, .. }) => {
            assert!(probe.contains("nobody listens"), "{probe}");
        }
        Err(ServerError::NotInstalled { .. }) => assert!(servers::own(&REDIS).is_none()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn shared_server_is_one_for_all_tests() {
    let Some(url) = servers::shared(&REDIS) else {
        return;
    };
    assert_eq!(servers::shared(&REDIS).as_deref(), Some(url.as_str()));
    let address = url.strip_prefix("redis://").unwrap().parse().unwrap();
    assert_eq!(
        redis::call(address, &["PING"]).unwrap().as_deref(),
        Some("PONG")
    );
}

#[cfg(target_os = "linux")]
#[test]
fn server_dies_with_a_killed_test_process() {
    if servers::own(&REDIS).is_none() || !Path::new("/usr/bin/setpriv").exists() {
        return;
    }
    let mut process = again("hold-a-server", "servers::role")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid: i32 = BufReader::new(process.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .find_map(|line| line.split_once("server pid ")?.1.trim().parse().ok())
        .expect("the other process says which server it started");
    assert!(is_there(pid));
    process.kill().unwrap();
    process.wait().unwrap();
    let mut checks = 0;
    while is_there(pid) {
        checks += 1;
        assert!(checks < 500, "the server outlived its test process");
        // Gives the kernel time without a clock of our own.
        Command::new("sleep").arg("0.02").status().unwrap();
    }
}

#[test]
fn missing_program_is_seen_although_output_is_captured() {
    let skipped = again("ask-for-absent", "servers::role").output().unwrap();
    assert!(skipped.status.success(), "{skipped:?}");
    assert!(
        stderr(&skipped).contains("SKIP trunkline-no-such-program: "),
        "{skipped:?}"
    );
}

#[test]
fn missing_program_fails_where_it_is_required() {
    for list in ["all", "redis,trunkline-no-such-program"] {
        let failed = again("ask-for-absent", "servers::role")
            .env("TRUNKLINE_REQUIRE_LIVE", list)
            .output()
            .unwrap();
        assert!(!failed.status.success(), "{list}: {failed:?}");
    }
}

/// Does nothing, unless another test starts this binary with a role.
#[test]
fn role() {
    let Some(role) = std::env::var_os(ROLE) else {
        return;
    };
    match role.to_str() {
        Some("ask-for-absent") => assert_eq!(servers::tool(&ABSENT), None),
        Some("hold-a-server") => {
            let server = Server::start(&REDIS).unwrap();
            println!("server pid {}", server.pid());
            // Until the other side has gone.
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        }
        _ => panic!("unknown role {role:?}"),
    }
}

/// This test binary once more, running one test with a role.
fn again(role: &str, test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test])
        .env(ROLE, role)
        .env_remove("TRUNKLINE_REQUIRE_LIVE");
    if role == "hold-a-server" {
        command.arg("--nocapture");
    }
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether a process of this number exists and is no zombie.
fn is_there(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
}
