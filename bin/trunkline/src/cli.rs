//! The words of the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::output::Format;

/// How services talk to each other: run the demo or a gateway, call services, publish and read messages, look at what
/// is registered, and check the configuration.
#[derive(Debug, Parser)]
#[command(
    name = "trunkline",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong use or configuration, 3 timed out.\n\n\
                  Brokers and registries are named by URL: embedded:///var/lib/app for a directory on this machine, \
                  embedded: for the default one."
)]
pub(crate) struct Cli {
    /// How to print results; errors follow.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "TRUNKLINE_OUTPUT"
    )]
    pub(crate) output: Format,
    /// No colours, as also the variable NO_COLOR asks.
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// More of what happens, on stderr; twice for all of it.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a small system of services on this machine, with nothing installed.
    #[command(
        after_help = "Examples:\n  trunkline demo\n  trunkline demo --check\n  trunkline demo --port 9000 --dir ./demo-data"
    )]
    Demo(Demo),
    /// Run an API gateway.
    #[command(
        after_help = "Examples:\n  trunkline gateway -c communication.yaml\n  \
        trunkline gateway --service users=http://127.0.0.1:8001 --port 8080"
    )]
    Gateway(Gateway),
    /// Check, show or describe the configuration.
    #[command(subcommand, after_help = "Example:\n  trunkline config check")]
    Config(Config),
    /// Say which policy holds for a call, and where each value comes from.
    #[command(
        subcommand,
        after_help = "Example:\n  trunkline policy explain user-service GET /users/1"
    )]
    Policy(Policy),
    /// Call a service by name, with discovery, balancing and policies.
    #[command(
        after_help = "Examples:\n  trunkline call user-service GET /api/v1/users/1\n  \
        trunkline call --registry embedded:///var/lib/app order-service POST /api/v1/orders --data '{\"user_id\":1}'"
    )]
    Call(Call),
    /// Publish a message and wait for the confirm.
    #[command(
        after_help = "Examples:\n  trunkline publish embedded: order.created '{\"id\":1}' --key customer-7\n  \
        cat order.json | trunkline publish embedded:///var/lib/app order.created - --header tenant=a"
    )]
    Publish(Publish),
    /// Print messages as they come.
    #[command(
        after_help = "Examples:\n  trunkline subscribe embedded: 'order.*' --group audit\n  \
        trunkline subscribe embedded:///var/lib/app order.created --from earliest --count 10 --timeout 5s --output json"
    )]
    Subscribe(Subscribe),
    /// Look at dead letters, send them back, or drop them.
    #[command(
        subcommand,
        after_help = "Example:\n  trunkline dlq list embedded:///var/lib/app notifications"
    )]
    Dlq(Dlq),
    /// Look at what is registered, or register something.
    #[command(
        subcommand,
        after_help = "Example:\n  trunkline services list embedded:///var/lib/app"
    )]
    Services(Services),
    /// Print the health document of a running service or gateway.
    #[command(after_help = "Example:\n  trunkline health http://127.0.0.1:8080")]
    Health(Target),
    /// Print the circuits of a running service, or of a gateway that has `circuits: true`.
    #[command(after_help = "Example:\n  trunkline circuits http://127.0.0.1:8080")]
    Circuits(Target),
    /// Print what a service says and hears, as a document of AsyncAPI 3.0.
    ///
    /// From the configuration: its brokers, topics and their schemas. Of a running service that has `server.asyncapi: true`,
    /// its handlers and what it says that it publishes, as well.
    #[command(
        after_help = "Examples:\n  trunkline asyncapi -c communication.yaml > asyncapi.json\n  \
        trunkline asyncapi http://127.0.0.1:8000"
    )]
    Asyncapi(AsyncApi),
    /// Print completions for a shell.
    #[command(
        after_help = "Example:\n  trunkline completions bash > /etc/bash_completion.d/trunkline"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Where the data goes; a fresh temporary directory unless given. An existing one is gone on with.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Port of the gateway; a free one is taken when it is not free.
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// Port of one of the services, instead of any free one. May be repeated.
    #[arg(long = "service-port", value_name = "NAME=PORT", value_parser = service_port)]
    pub(crate) service_ports: Vec<(crate::demo::Member, u16)>,
    /// Run a scripted scenario against the system instead of waiting, and exit 0 only if every step held.
    #[arg(long)]
    pub(crate) check: bool,
    /// Orders in the step of the scenario that kills notifications.
    #[arg(long, default_value_t = 1000, requires = "check")]
    pub(crate) orders: usize,
    /// Run one of the services in this process; the demo starts its own so.
    #[arg(long, hide = true, requires = "dir")]
    pub(crate) service: Option<crate::demo::Member>,
}

#[derive(Debug, Args)]
pub(crate) struct Gateway {
    /// The base file, in place of the one that is searched for; profile and environment apply over it.
    #[arg(short, long)]
    pub(crate) config: Option<PathBuf>,
    /// Address to listen on, over the configuration.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Port to listen on, over the configuration; 0 takes a free one.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// A service at a fixed address: NAME=URL. May be repeated.
    #[arg(long = "service", value_name = "NAME=URL", value_parser = pair)]
    pub(crate) services: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The base file, in place of the one that is searched for; profile and environment apply over it.
    #[arg(short, long)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Report every problem, one line each; exit 0 only if there is none.
    #[command(
        after_help = "Examples:\n  trunkline config check\n  trunkline config check deploy/communication.yaml --output json"
    )]
    Check {
        /// The file to check alone; otherwise the usual search and layers.
        file: Option<PathBuf>,
    },
    /// Print the effective configuration, secrets hidden, with the origin of each value.
    #[command(after_help = "Example:\n  trunkline config show -c communication.yaml")]
    Show(ConfigFile),
    /// Print the JSON Schema, for editors.
    #[command(after_help = "Example:\n  trunkline config schema > communication.schema.json")]
    Schema,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Say which policy holds for a service or one of its endpoints.
    #[command(
        after_help = "Examples:\n  trunkline policy explain user-service\n  trunkline policy explain user-service GET /users/1"
    )]
    Explain {
        /// The service.
        service: String,
        /// The method, for one endpoint.
        #[arg(requires = "path")]
        method: Option<String>,
        /// The path, for one endpoint.
        path: Option<String>,
        #[command(flatten)]
        file: ConfigFile,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Call {
    /// The registry to ask; otherwise the one of the configuration.
    #[arg(long)]
    pub(crate) registry: Option<String>,
    /// The service's name.
    pub(crate) service: String,
    /// The method.
    pub(crate) method: String,
    /// The path, with its query.
    pub(crate) path: String,
    /// The body; `-` reads it from stdin. JSON unless a content-type header says otherwise.
    #[arg(short, long)]
    pub(crate) data: Option<String>,
    /// A header: NAME=VALUE. May be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) headers: Vec<(String, String)>,
    /// Time for the whole call, retries included.
    #[arg(long, default_value = "30s", value_parser = span)]
    pub(crate) timeout: Duration,
    /// Fail (exit 1) on an answer of 400 or more.
    #[arg(long)]
    pub(crate) fail: bool,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// The broker.
    pub(crate) url: String,
    /// The topic.
    pub(crate) topic: String,
    /// The body; `-` or nothing reads it from stdin.
    pub(crate) payload: Option<String>,
    /// The key that keeps order.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// A header: NAME=VALUE. May be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) headers: Vec<(String, String)>,
    /// The media type; JSON when the body is JSON, else text or bytes.
    #[arg(long)]
    pub(crate) content_type: Option<String>,
    /// Send to a queue of that name instead of a topic.
    #[arg(long)]
    pub(crate) queue: bool,
    /// Deliver no earlier than this from now.
    #[arg(long, value_parser = span)]
    pub(crate) delay: Option<Duration>,
    /// Fail when nobody subscribes.
    #[arg(long)]
    pub(crate) mandatory: bool,
    /// Time for the confirm, connecting included.
    #[arg(long, default_value = "10s", value_parser = span)]
    pub(crate) timeout: Duration,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(crate) enum From {
    /// With the oldest message kept.
    Earliest,
    /// With what is published from now on.
    #[default]
    Latest,
}

#[derive(Debug, Args)]
pub(crate) struct Subscribe {
    /// The broker.
    pub(crate) url: String,
    /// The topic, or a pattern: `*` one segment, `#` any number.
    pub(crate) topic: String,
    /// Share the messages with other members of a group, and go on where it was.
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// End after so many messages.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End when no message came for this long; exit 3 if `--count` was not reached.
    #[arg(long, value_parser = span)]
    pub(crate) timeout: Option<Duration>,
    /// Where to begin when the group is new, or there is none.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) from: From,
    /// Read a queue of that name instead of a topic.
    #[arg(long, conflicts_with_all = ["group", "from"])]
    pub(crate) queue: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DlqSource {
    /// The broker.
    pub(crate) url: String,
    /// The consumer group whose dead letters are meant.
    pub(crate) group: String,
}

#[derive(Debug, Args)]
pub(crate) struct DlqFilter {
    /// Only the letter with this message id. May be repeated.
    #[arg(long = "id")]
    pub(crate) ids: Vec<String>,
    /// Only letters that came from this topic.
    #[arg(long)]
    pub(crate) topic: Option<String>,
    /// Only letters whose reason or error has this in it.
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// At most so many.
    #[arg(long)]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// List the dead letters of a group, oldest first.
    #[command(after_help = "Example:\n  trunkline dlq list embedded:///var/lib/app notifications")]
    List {
        #[command(flatten)]
        source: DlqSource,
        #[command(flatten)]
        filter: DlqFilter,
    },
    /// Show one dead letter whole.
    #[command(
        after_help = "Example:\n  trunkline dlq show embedded:///var/lib/app notifications 01a1fd2c-483b-701a-9a48-320199aa285a"
    )]
    Show {
        #[command(flatten)]
        source: DlqSource,
        /// The message id.
        id: String,
    },
    /// Change a dead letter, so that it can be replayed; it goes behind the others.
    #[command(
        after_help = "Example:\n  trunkline dlq edit embedded:///var/lib/app notifications 01a1fd2c-483b-701a-9a48-320199aa285a --payload '{\"id\":7}'"
    )]
    Edit {
        #[command(flatten)]
        source: DlqSource,
        /// The message id.
        id: String,
        /// Another payload; `-` reads it from the standard input.
        #[arg(long)]
        payload: Option<String>,
        /// Another media type of the payload.
        #[arg(long)]
        content_type: Option<String>,
        /// Set a header: NAME=VALUE. May be repeated.
        #[arg(long = "header", value_name = "NAME=VALUE", value_parser = pair)]
        headers: Vec<(String, String)>,
        /// Remove a header. May be repeated.
        #[arg(long, value_name = "NAME")]
        remove_header: Vec<String>,
    },
    /// Send dead letters back to the group they came from, in their order.
    #[command(
        after_help = "Example:\n  trunkline dlq replay embedded:///var/lib/app notifications --reason timeout --rate 10"
    )]
    Replay {
        #[command(flatten)]
        source: DlqSource,
        #[command(flatten)]
        filter: DlqFilter,
        /// At most so many a second.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        rate: Option<u32>,
    },
    /// Drop dead letters for good.
    #[command(
        after_help = "Examples:\n  trunkline dlq purge embedded:///var/lib/app notifications --topic order.cancelled\n  trunkline dlq purge embedded:///var/lib/app notifications --all"
    )]
    Purge {
        #[command(flatten)]
        source: DlqSource,
        #[command(flatten)]
        filter: DlqFilter,
        /// Needed when no filter is given: everything goes.
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Services {
    /// List the services, or the instances of one.
    #[command(
        after_help = "Example:\n  trunkline services list embedded:///var/lib/app user-service"
    )]
    List {
        /// The registry.
        url: String,
        /// The service.
        name: Option<String>,
    },
    /// Print the instances of a service whenever they change.
    #[command(
        after_help = "Example:\n  trunkline services watch embedded:///var/lib/app user-service"
    )]
    Watch {
        /// The registry.
        url: String,
        /// The service; all of them unless given, also those that come later.
        name: Option<String>,
        /// End after so many lists.
        #[arg(long)]
        count: Option<u64>,
    },
    /// Register an instance and keep it registered until stopped.
    #[command(
        after_help = "Example:\n  trunkline services register embedded:///var/lib/app mailer 127.0.0.1:9000 --metadata team=core"
    )]
    Register(Register),
    /// Withdraw an instance.
    #[command(
        after_help = "Example:\n  trunkline services deregister embedded:///var/lib/app mailer 127.0.0.1:9000"
    )]
    Deregister {
        /// The registry.
        url: String,
        /// The service.
        name: String,
        /// Its id, or host:port.
        instance: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Register {
    /// The registry.
    pub(crate) url: String,
    /// The service.
    pub(crate) name: String,
    /// Where it is: HOST:PORT, or [IPV6]:PORT.
    pub(crate) address: String,
    /// A pair that callers see: NAME=VALUE. May be repeated.
    #[arg(long = "metadata", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) metadata: Vec<(String, String)>,
    /// The instance's version.
    #[arg(long, visible_alias = "service-version", default_value = "1.0.0")]
    pub(crate) version: String,
    /// Path that callers ask whether it is well. Nobody asks unless it is given.
    #[arg(long, value_name = "PATH")]
    pub(crate) health_check_path: Option<String>,
    /// How long it stays registered without a sign of life.
    #[arg(long, default_value = "10s", value_parser = span)]
    pub(crate) ttl: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct AsyncApi {
    /// Base URL of a running service; otherwise the configuration is described.
    #[arg(conflicts_with = "config")]
    pub(crate) url: Option<String>,
    /// Time to wait for the answer.
    #[arg(long, default_value = "5s", value_parser = span)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Base URL of the service.
    #[arg(default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// Time to wait for the answer.
    #[arg(long, default_value = "5s", value_parser = span)]
    pub(crate) timeout: Duration,
}

fn service_port(text: &str) -> Result<(crate::demo::Member, u16), String> {
    let wrong = || "write NAME=PORT, such as orders=9001".to_owned();
    let (name, port) = text.split_once('=').ok_or_else(wrong)?;
    let member = clap::ValueEnum::from_str(name, false)?;
    Ok((member, port.parse().map_err(|_| wrong())?))
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

fn span(text: &str) -> Result<Duration, String> {
    trunkline::duration::parse(text).map_err(|error| error.to_string())
}
