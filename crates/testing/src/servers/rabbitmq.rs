//! RabbitMQ: how it is started without anything of it staying behind, and how it is asked and told things.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::bounded;
use super::error::ServerError;
use super::program::RABBITMQ_SERVER;
use super::system::{Site, System};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const CONTROL_WITHIN: Duration = Duration::from_secs(60);
/// What a client of AMQP 0-9-1 says first.
const GREETING: &[u8] = b"AMQP\x00\x00\x09\x01";
/// The type of the frame that the server answers with.
const METHOD_FRAME: u8 = 1;
/// The real script. The one in `PATH` changes to another user.
const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";

/// Calls one function of a running Erlang; comes with Erlang.
const CALL: &str = "/usr/bin/erl_call";

/// RabbitMQ with the default user `guest`. Its first port is that of clients; the others are Erlang's.
pub static RABBITMQ: System = System {
    name: "rabbitmq",
    program: &RABBITMQ_SERVER,
    ports: 3,
    ready_within: Duration::from_secs(120),
    stop_within: Duration::from_secs(60),
    prepare,
    command,
    probe,
    url,
};

fn prepare(site: &Site) -> Result<(), ServerError> {
    configure(site, "", &[])
}

/// Writes what a server needs before its first start: its settings, with more lines of `rabbitmq.conf` if wanted, and
/// its plugins. For systems of other crates that differ from [`RABBITMQ`] in no more than that.
///
/// # Errors
/// [`ServerError::Io`].
pub fn configure(site: &Site, settings: &str, plugins: &[&str]) -> Result<(), ServerError> {
    let home = site.directory().join("home");
    fs::create_dir_all(&home).map_err(ServerError::io("create", &home))?;
    let write = |name: &str, text: String| {
        let path = site.directory().join(name);
        fs::write(&path, text).map_err(ServerError::io("write", path))
    };
    let port = site.port();
    write(
        "rabbitmq.conf",
        format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\n\
             log.console = true\nlog.console.level = info\nlog.file = false\n\
             vm_memory_high_watermark.absolute = 1GiB\ndisk_free_limit.absolute = 50MB\n{settings}"
        ),
    )?;
    write("enabled_plugins", format!("[{}].\n", plugins.join(",")))?;
    // Erlang's name service would stay behind as a daemon. This one is a child of the server, and the kernel ends it with
    // its parent. The file is read twice; the first time by the shell that becomes the server.
    write(
        "rabbitmq-env.conf",
        format!(
            "if [ \"$CONF_ENV_FILE_PHASE\" = rabbitmq-env ] && [ -n \"$TRUNKLINE_WITH_EPMD\" ]; then\n  \
             setpriv --pdeathsig KILL -- epmd -address 127.0.0.1 -port {} </dev/null >/dev/null 2>&1 &\nfi\n",
            port_of_names(site)
        ),
    )
}

/// Adds the environment that a server and its tools share.
pub fn command(site: &Site, command: &mut Command) {
    environment(site, command);
    // The script becomes the server, instead of waiting for it.
    command.env("RUNNING_UNDER_SYSTEMD", "1");
    command.env("TRUNKLINE_WITH_EPMD", "1");
}

fn environment(site: &Site, command: &mut Command) {
    let directory = site.directory();
    let at = |name: &str| directory.join(name);
    command
        .env_remove("NOTIFY_SOCKET")
        .env("HOME", at("home"))
        .env("LANG", "C.UTF-8")
        .env("ERL_EPMD_PORT", port_of_names(site).to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", node(site))
        .env("RABBITMQ_DIST_PORT", port_of_nodes(site).to_string())
        .env("RABBITMQ_CONF_ENV_FILE", at("rabbitmq-env.conf"))
        .env("RABBITMQ_MNESIA_BASE", site.data())
        .env("RABBITMQ_LOG_BASE", directory)
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", at("none.config"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins"))
        .env("RABBITMQ_GENERATED_CONFIG_DIR", at("generated"))
        .env("RABBITMQ_FEATURE_FLAGS_FILE", at("feature_flags"))
        .env("RABBITMQ_PID_FILE", at("server.pid"))
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none",
        );
}

fn node(site: &Site) -> String {
    format!("t{}@localhost", site.port())
}

fn port_of_nodes(site: &Site) -> u16 {
    site.ports().get(1).copied().unwrap_or(0)
}

fn port_of_names(site: &Site) -> u16 {
    site.ports().get(2).copied().unwrap_or(0)
}

/// Whether the server greets clients, which it does when everything else of it runs.
///
/// # Errors
/// What was seen instead.
pub fn probe(site: &Site) -> Result<(), String> {
    let greeted = || -> io::Result<u8> {
        let mut stream = TcpStream::connect_timeout(&site.address(), ANSWER_WITHIN)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.write_all(GREETING)?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first[0])
    };
    match greeted() {
        Ok(METHOD_FRAME) => Ok(()),
        Ok(other) => Err(format!("the greeting was answered with the byte {other}")),
        Err(error) => Err(error.to_string()),
    }
}

/// The URL for clients, who log in as `guest`.
#[must_use]
pub fn url(site: &Site) -> String {
    format!("amqp://{}", site.address())
}

/// Runs `rabbitmqctl` on a server and returns what it printed, such as `["list_consumers", "queue_name"]`.
///
/// # Errors
/// `Other` with what it printed when it failed; `TimedOut`; whatever starting it fails with.
pub fn control(site: &Site, words: &[&str]) -> io::Result<String> {
    let mut command = Command::new(Path::new(CONTROL));
    environment(site, &mut command);
    command.arg("--quiet").args(words).stdin(Stdio::null());
    let done = bounded::run(&mut command, CONTROL_WITHIN)?;
    if done.status.success() {
        Ok(done.text)
    } else {
        Err(io::Error::other(done.text))
    }
}

/// Has the server work out an expression of Erlang, such as `length(rabbit_channel:list())`, and returns what came of it as
/// Erlang writes it; numbers, atoms and lists of them are written so that they can be read. Costs a hundredth of
/// [`control`], which starts an Erlang of its own each time.
///
/// # Errors
/// As [`control`].
pub fn ask(site: &Site, expression: &str) -> io::Result<String> {
    let (words, mut pen) = io::pipe()?;
    pen.write_all(format!("{expression}.\n").as_bytes())?;
    drop(pen);
    let mut command = Command::new(CALL);
    environment(site, &mut command);
    command
        .args(["-sname", &node(site), "-c", &cookie(site)?])
        .args(["-timeout", "30", "-e"])
        .stdin(words);
    let done = bounded::run(&mut command, CONTROL_WITHIN)?;
    let answer = done.text.trim();
    let answer = answer
        .strip_prefix("{ok,")
        .and_then(|rest| rest.strip_suffix('}'));
    match answer {
        Some(answer) if done.status.success() => Ok(answer.trim().to_owned()),
        _ => Err(io::Error::other(done.text)),
    }
}

/// What the nodes of Erlang know each other by.
fn cookie(site: &Site) -> io::Result<String> {
    fs::read_to_string(site.directory().join("home").join(".erlang.cookie"))
}

/// Whether a quorum queue has come so far that it survives the death of its server. RabbitMQ writes the register of its
/// quorum queues half a second late; one that is not in it when the server is killed never has a leader again.
#[must_use]
pub fn is_registered(site: &Site, queue: &str) -> bool {
    let register = site.data().join(node(site)).join("quorum").join(node(site));
    let register = fs::read(register.join("names.dets")).unwrap_or_default();
    let mut places = register.windows(queue.len().max(1));
    places.any(|place| place == queue.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::own;
    use super::*;

    #[test]
    fn server_keeps_its_data_and_leaves_nothing_behind() {
        let Some(mut server) = own(&RABBITMQ) else {
            return;
        };
        let vhosts = |server: &super::super::Server| {
            control(server.site(), &["list_vhosts", "name"]).expect("a running server answers")
        };
        control(server.site(), &["add_vhost", "kept"]).expect("a virtual host can be added");
        server.kill().expect("a process can be killed");
        server.restart().expect("it starts again on its data");
        assert!(vhosts(&server).contains("kept"));
        let asked = ask(server.site(), "rabbit_vhost:exists(<<\"kept\">>)");
        assert_eq!(asked.expect("a running server can be asked"), "true");
        ask(server.site(), "no:such()").expect_err("what fails is an error");
        let names = (std::net::Ipv4Addr::LOCALHOST, port_of_names(server.site()));
        drop(server);
        let gone = super::super::wait::Limit::after(Duration::from_secs(20))
            .poll(|| TcpStream::connect(names).is_err());
        assert!(gone, "Erlang's name service stayed behind");
    }
}
