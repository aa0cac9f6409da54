//! Kubernetes: its API server alone, on an etcd of its own. No controllers, no nodes: what stands there is what tests write.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::error::ServerError;
use super::etcd;
use super::program::{ETCD_SERVER, KUBERNETES_SERVER};
use super::system::{Site, System};

/// The token of a user who may do everything.
pub const ADMIN: &str = "admin-token";
/// The token of the user `reader`, who may do nothing until somebody lets them.
pub const READER: &str = "reader-token";

pub(super) const SCRIPT_NAME: &str = "kube-with-etcd";

/// Starts etcd, and becomes the API server; etcd dies with it.
pub(super) const SCRIPT: &str = "#!/bin/sh
etcd=$1 data=$2 client=http://127.0.0.1:$3 peer=http://127.0.0.1:$4
shift 4
keep=
command -v setpriv >/dev/null && keep='setpriv --pdeathsig KILL --'
$keep \"$etcd\" --name member-1 --data-dir \"$data\" --listen-client-urls $client --advertise-client-urls $client \\
  --listen-peer-urls $peer --initial-advertise-peer-urls $peer --initial-cluster member-1=$peer &
exec \"$(dirname \"$0\")/kube-apiserver\" --etcd-servers=$client \"$@\"
";

/// Signs the tokens of service accounts of test servers; of no use anywhere else.
const SIGNING_KEY: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEILUjtswwG55fKJNJiQWQcfxApkoJAk/4HjQtZf9niCxLoAoGCCqGSM49
AwEHoUQDQgAE99D/+LxF2Y35mDkbUuRONafoflHcnqohmmcUuiV4y3nEfOH4pnSP
i3CvRpK3+CEfAy4Xxc1cRNTzlktDdRB9dA==
-----END EC PRIVATE KEY-----
";
const VERIFYING_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE99D/+LxF2Y35mDkbUuRONafoflHc
nqohmmcUuiV4y3nEfOH4pnSPi3CvRpK3+CEfAy4Xxc1cRNTzlktDdRB9dA==
-----END PUBLIC KEY-----
";

/// The key whose presence in etcd says that the server has made what it needs, `/registry/namespaces/default`.
const MADE: &str = r#"{"key":"L3JlZ2lzdHJ5L25hbWVzcGFjZXMvZGVmYXVsdA==","count_only":true}"#;

/// The API server of Kubernetes, reached at `kubernetes://:token@host:port/default?ca_file=…`. Its ports: HTTPS, and those of
/// etcd for clients and peers. It needs etcd, which is a system of its own here.
pub static KUBERNETES: System = System {
    name: "kubernetes",
    program: &KUBERNETES_SERVER,
    ports: 3,
    ready_within: Duration::from_secs(180),
    stop_within: Duration::from_secs(30),
    prepare,
    command,
    probe,
    url,
};

fn prepare(site: &Site) -> Result<(), ServerError> {
    let tokens = format!("{ADMIN},admin,u1,system:masters\n{READER},reader,u2\n");
    for (name, text) in [
        ("signing.key", SIGNING_KEY),
        ("verifying.key", VERIFYING_KEY),
        ("tokens.csv", &tokens),
    ] {
        let path = site.directory().join(name);
        fs::write(&path, text).map_err(ServerError::io("write", &path))?;
    }
    ETCD_SERVER.locate().map(drop)
}

/// The certificate that the server makes for itself, and that of who signed it.
#[must_use]
pub fn ca_file(site: &Site) -> PathBuf {
    site.data().join("certificates").join("apiserver.crt")
}

fn command(site: &Site, command: &mut Command) {
    let port = |n: usize| site.ports().get(n).copied().unwrap_or(0).to_string();
    let file = |name: &str| site.directory().join(name).display().to_string();
    let etcd = ETCD_SERVER.find().unwrap_or_else(|| PathBuf::from("etcd"));
    command.arg(etcd).arg(site.data().join("etcd"));
    command.args([port(1), port(2)]);
    let certificates = site.data().join("certificates");
    command.arg(format!("--cert-dir={}", certificates.display()));
    command.arg(format!("--secure-port={}", port(0)));
    command.arg(format!("--token-auth-file={}", file("tokens.csv")));
    command.arg(format!(
        "--service-account-key-file={}",
        file("verifying.key")
    ));
    command.arg(format!(
        "--service-account-signing-key-file={}",
        file("signing.key")
    ));
    command.args([
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--api-audiences=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--authorization-mode=RBAC",
        // No controller makes default accounts, and the server itself is on loopback.
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
    ]);
}

/// Ready is: it listens, and has made what it makes when it begins.
fn probe(site: &Site) -> Result<(), String> {
    let patience = Duration::from_secs(5);
    TcpStream::connect_timeout(&site.address(), patience).map_err(|error| error.to_string())?;
    let port = site.ports().get(1).copied().unwrap_or(0);
    let store = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let found = etcd::call(store, "POST", "/v3/kv/range", MADE);
    let found = found.map_err(|error| error.to_string())?;
    if found.contains("\"count\":\"1\"") {
        Ok(())
    } else {
        Err("it has not made its namespaces yet".to_owned())
    }
}

fn url(site: &Site) -> String {
    let (address, ca) = (site.address(), ca_file(site));
    format!(
        "kubernetes://:{ADMIN}@{address}/default?ca_file={}",
        ca.display()
    )
}
