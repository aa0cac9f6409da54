//! Settings of discovery by Kubernetes.

use std::path::PathBuf;
use std::time::Duration;

use trunkline_core::{Connection, Result, Secret};
use trunkline_discovery::{OptionReader, ServiceDiscoveryConfig};

/// Where API servers listen for clients outside the cluster.
const PORT: u16 = 6443;

/// Where pods find the account that they run as.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where pods reach the API server, if nothing else says so.
const IN_CLUSTER: (&str, u16) = ("kubernetes.default.svc", 443);

/// Of which family the addresses of a service are, where it has those of both: its pods have one of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IpFamily {
    /// The family by which more endpoints are ready, for each service; IPv4 where that is the same.
    #[default]
    Auto,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

const FAMILIES: [(&str, IpFamily); 3] = [
    ("auto", IpFamily::Auto),
    ("v4", IpFamily::V4),
    ("v6", IpFamily::V6),
];

/// Settings of discovery by Kubernetes. In configuration the places are those of `service_discovery`, the rest are its
/// `options`, by the same names.
///
/// ```
/// use trunkline_discovery::ServiceDiscoveryConfig;
/// use trunkline_kubernetes::KubernetesConfig;
///
/// let neutral = ServiceDiscoveryConfig::from_url("kubernetes:///shop?port=http")?;
/// let config = KubernetesConfig::from_neutral(&neutral)?;
/// assert_eq!(config.namespaces, ["shop"]);
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KubernetesConfig {
    /// Who is asked.
    pub(crate) server: Server,
    /// The namespaces in which services are looked up; `*` stands for all. Default: that of the pod or of the context, else
    /// `default`.
    pub namespaces: Vec<String>,
    /// The port of services, by name or number. Default: the only one; of several `http`, `https`, or the first.
    pub port: Option<String>,
    /// `http` or `https`. Default: what the port says (`appProtocol`, or its name), else `http`.
    pub protocol: Option<String>,
    /// Which addresses are taken of a service that has IPv4 and IPv6. Default `auto`.
    pub ip: IpFamily,
    /// Whether the annotations of Services are read: `trunkline/version`, `trunkline/health-check-path`,
    /// `trunkline/metadata.<name>`. The account needs to read `services`, too. Default false.
    pub annotations: bool,
    /// How long a watch lasts until it is opened anew where it was: by this a server that hangs is noticed. Default `30s`.
    pub wait: Duration,
    /// Watches that may be open at a time, beside everything else: each service has one in every namespace, and another one where
    /// annotations are read. What more are asked for is told that it is not kept current. Default 4096.
    pub max_watches: u32,
    /// Time for one request. Default `5s`.
    pub request_timeout: Duration,
    /// The token of the account. Default: that of the pod or of the context.
    pub token: Option<Secret<String>>,
    /// File with the token, read again every 10 s and when the token is refused. Default: as `token`.
    pub token_file: Option<PathBuf>,
    /// File with root certificates, PEM. Default: that of the pod or of the context, else the system's.
    pub ca_file: Option<PathBuf>,
    /// File with the certificate that this side shows, PEM. Default: that of the context.
    pub client_certificate: Option<PathBuf>,
    /// File with its private key, PEM. Default: that of the context.
    pub client_key: Option<PathBuf>,
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The cluster that this process runs in, by the account in a directory.
    InCluster {
        account: PathBuf,
        at: Option<(String, u16)>,
    },
    /// What a kubeconfig file says.
    Kubeconfig {
        path: PathBuf,
        context: Option<String>,
    },
    /// This one.
    At { host: String, port: u16, tls: bool },
}

impl KubernetesConfig {
    /// The cluster that this process runs in, with the account of its pod.
    #[must_use]
    pub fn in_cluster() -> Self {
        Self::of(Server::InCluster {
            account: ACCOUNT.into(),
            at: None,
        })
    }

    /// Says where the API server is for pods, unless the option `api_server` does: what the variables `KUBERNETES_SERVICE_HOST`
    /// and `KUBERNETES_SERVICE_PORT` hold, which every pod has. A library does not read them; the manager does. They work where
    /// the DNS of the cluster is not asked (`hostNetwork`) and while it is away; without them the server is
    /// `kubernetes.default.svc`. Outside a cluster they say nothing.
    ///
    /// ```
    /// use trunkline_kubernetes::KubernetesConfig;
    ///
    /// let config = KubernetesConfig::in_cluster().with_service_variables(Some("10.96.0.1"), Some("443"));
    /// ```
    #[must_use]
    pub fn with_service_variables(mut self, host: Option<&str>, port: Option<&str>) -> Self {
        if let Server::InCluster { at: at @ None, .. } = &mut self.server {
            let host = host.map(bare).filter(|host| !host.is_empty());
            let port = port.filter(|port| !port.trim().is_empty());
            let port = port.map_or(Some(IN_CLUSTER.1), |port| port.trim().parse().ok());
            *at = host.zip(port).map(|(host, port)| (host.to_owned(), port));
        }
        self
    }

    /// What the current context of a kubeconfig file says.
    #[must_use]
    pub fn kubeconfig(path: impl Into<PathBuf>) -> Self {
        Self::of(Server::Kubeconfig {
            path: path.into(),
            context: None,
        })
    }

    /// This server, over TLS.
    #[must_use]
    pub fn at(host: impl Into<String>, port: u16) -> Self {
        Self::of(Server::At {
            host: host.into(),
            port,
            tls: true,
        })
    }

    fn of(server: Server) -> Self {
        Self {
            server,
            namespaces: Vec::new(),
            port: None,
            protocol: None,
            ip: IpFamily::Auto,
            annotations: false,
            wait: Duration::from_secs(30),
            max_watches: 4096,
            request_timeout: Duration::from_secs(5),
            token: None,
            token_file: None,
            ca_file: None,
            client_certificate: None,
            client_key: None,
        }
    }

    /// Reads the settings out of those of any registry.
    ///
    /// # Errors
    /// `Config` with everything that is wrong, one line each, by the path of the setting.
    pub fn from_neutral(neutral: &ServiceDiscoveryConfig) -> Result<Self> {
        let mut options = OptionReader::new(neutral);
        let connection = &neutral.connection;
        let mut config = Self::of(server(connection, &mut options));
        config.namespaces = namespaces(connection, &mut options);
        config.port = options.text("port");
        let protocols = [("http", "http"), ("https", "https")];
        let protocol = options.choice("protocol", &protocols);
        config.protocol = protocol.map(str::to_owned);
        config.ip = options.choice("ip", &FAMILIES).unwrap_or_default();
        config.annotations = options.flag("annotations").unwrap_or_default();
        config.wait = options.duration("wait").unwrap_or(config.wait);
        let watches = options.count("max_watches");
        config.max_watches = watches.unwrap_or(config.max_watches);
        let timeout = options.duration("request_timeout");
        config.request_timeout = timeout.unwrap_or(config.request_timeout);
        config.token.clone_from(&connection.password);
        config.token_file = options.path("token_file");
        config.ca_file = options.path("ca_file");
        config.client_certificate = options.path("client_certificate");
        config.client_key = options.path("client_key");
        if connection.username.is_some() {
            let text = "Kubernetes knows no users with passwords; give a token as the password, or a client certificate";
            options.problem_at("connection.username", text);
        }
        if config.token.is_some() && config.token_file.is_some() {
            options.problem("token_file", "a token is given as well; give one of them");
        }
        if config.client_key.is_some() && config.client_certificate.is_none() {
            options.problem(
                "client_key",
                "is the key of no certificate; add `client_certificate`",
            );
        }
        if config.wait < Duration::from_secs(1) {
            options.problem("wait", "must be at least 1 s");
        }
        if config.max_watches == 0 {
            options.problem("max_watches", "must be at least 1");
        }
        options.finish()?;
        Ok(config)
    }
}

impl Server {
    /// Where a pod reaches the API server.
    pub(crate) fn in_cluster(at: Option<&(String, u16)>) -> (&str, u16) {
        at.map_or(IN_CLUSTER, |(host, port)| (host, *port))
    }
}

/// An address of IPv6 stands in brackets or not.
fn bare(host: &str) -> &str {
    let host = host.trim();
    let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    inner.unwrap_or(host)
}

/// `host:port`, an address of IPv6 in brackets.
fn place(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let is_whole = !bare(host).is_empty() && (!host.contains(':') || bare(host) != host);
    is_whole.then(|| (bare(host).to_owned(), port))
}

fn written(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn server(connection: &Connection, options: &mut OptionReader) -> Server {
    let kubeconfig = options.path("kubeconfig");
    let context = options.text("context");
    let account = options.path("account");
    let tls = options.flag("tls");
    let api_server = options.text("api_server");
    let at = api_server.as_deref().and_then(place);
    if api_server.is_some() && at.is_none() {
        options.problem("api_server", "is no `host:port`");
    } else if at.is_some() && (connection.host.is_some() || kubeconfig.is_some()) {
        let text = "is where pods find it; a host or a kubeconfig is given";
        options.problem("api_server", text);
    }
    if context.is_some() && kubeconfig.is_none() {
        options.problem("context", "is one of no file; add `kubeconfig`");
    }
    let given = [
        connection.host.is_some(),
        kubeconfig.is_some(),
        account.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() > 1 {
        let text = "says who is asked, as do `host` and `account`; give one of them";
        options.problem("kubeconfig", text);
    }
    if tls.is_some() && connection.host.is_none() {
        options.problem("tls", "has no effect without a host");
    }
    if let Some(host) = &connection.host {
        if host.contains(',') {
            options.problem_at("connection.host", "is one server, not several");
        }
        return Server::At {
            host: host.clone(),
            port: connection.port.unwrap_or(PORT),
            tls: connection.ssl_enabled || tls.unwrap_or(true),
        };
    }
    match kubeconfig {
        Some(path) => Server::Kubeconfig { path, context },
        None => Server::InCluster {
            account: account.unwrap_or_else(|| ACCOUNT.into()),
            at,
        },
    }
}

fn namespaces(connection: &Connection, options: &mut OptionReader) -> Vec<String> {
    let path = connection.path.as_deref().unwrap_or_default();
    let path = path.trim_matches('/');
    let named = options.texts("namespaces");
    if named.is_some() && !path.is_empty() {
        options.problem(
            "namespaces",
            "are given by the path as well; give one of them",
        );
    }
    let of_path = || path.split(',').map(|name| name.trim().to_owned()).collect();
    let mut names: Vec<String> = named.unwrap_or_else(of_path);
    names.retain(|name| !name.is_empty());
    for name in &names {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name != "*" && !(name.len() <= 63 && name.chars().all(allowed)) {
            options.problem("namespaces", format_args!("`{name}` is no namespace"));
        }
    }
    if names.len() > 1 && names.iter().any(|name| name == "*") {
        options.problem("namespaces", "`*` are all of them; give it alone");
    }
    names.sort();
    names.dedup();
    names
}

impl From<KubernetesConfig> for ServiceDiscoveryConfig {
    fn from(config: KubernetesConfig) -> Self {
        let usual = KubernetesConfig::in_cluster();
        let mut neutral = Self::new("kubernetes");
        neutral.connection.password = config.token;
        let mut paths = vec![
            ("token_file", config.token_file),
            ("ca_file", config.ca_file),
            ("client_certificate", config.client_certificate),
            ("client_key", config.client_key),
        ];
        let options = &mut neutral.options;
        match config.server {
            Server::At { host, port, tls } => {
                neutral.connection.host = Some(host);
                neutral.connection.port = Some(port);
                options.insert("tls".to_owned(), tls.into());
            }
            Server::Kubeconfig { path, context } => {
                paths.push(("kubeconfig", Some(path)));
                if let Some(context) = context {
                    options.insert("context".to_owned(), context.into());
                }
            }
            Server::InCluster { account, at } => {
                if let Some((host, port)) = at {
                    options.insert("api_server".to_owned(), written(&host, port).into());
                }
                let account = Some(account).filter(|path| path.as_os_str() != ACCOUNT);
                paths.push(("account", account));
            }
        }
        for (name, path) in paths {
            if let Some(path) = path {
                options.insert(name.to_owned(), path.to_string_lossy().into_owned().into());
            }
        }
        if !config.namespaces.is_empty() {
            options.insert("namespaces".to_owned(), config.namespaces.into());
        }
        for (name, text) in [("port", config.port), ("protocol", config.protocol)] {
            if let Some(text) = text {
                options.insert(name.to_owned(), text.into());
            }
        }
        if let Some((word, _)) = FAMILIES.iter().find(|(_, family)| *family == config.ip)
            && config.ip != usual.ip
        {
            options.insert("ip".to_owned(), (*word).into());
        }
        if config.annotations {
            options.insert("annotations".to_owned(), true.into());
        }
        if config.max_watches != usual.max_watches {
            options.insert("max_watches".to_owned(), config.max_watches.into());
        }
        for (name, span, usual) in [
            ("wait", config.wait, usual.wait),
            (
                "request_timeout",
                config.request_timeout,
                usual.request_timeout,
            ),
        ] {
            if span != usual {
                options.insert(
                    name.to_owned(),
                    trunkline_core::duration::format(span).into(),
                );
            }
        }
        neutral
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<KubernetesConfig> {
        KubernetesConfig::from_neutral(&ServiceDiscoveryConfig::from_url(url).unwrap())
    }

    #[test]
    fn who_is_asked_follows_from_what_is_given() {
        assert_eq!(
            read("kubernetes://").unwrap(),
            KubernetesConfig::in_cluster()
        );
        let config = read("kubernetes:///a,b?kubeconfig=/k&context=c").unwrap();
        let server = Server::Kubeconfig {
            path: "/k".into(),
            context: Some("c".to_owned()),
        };
        assert_eq!(
            (config.server, config.namespaces),
            (server, vec!["a".to_owned(), "b".to_owned()])
        );
        let config = read("kubernetes://:secret@10.0.0.1/shop").unwrap();
        let server = Server::At {
            host: "10.0.0.1".to_owned(),
            port: 6443,
            tls: true,
        };
        assert_eq!(config.server, server);
        assert_eq!(config.token.unwrap().expose(), "secret");
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let url = "kubernetes://user:x@a,b/Shop?token_file=t&client_key=k&wait=1ms&context=c&weit=1&protocol=ftp&account=x&ip=6&api_server=a&max_watches=0";
        let error = read(url).unwrap_err();
        for path in [
            "connection.host",
            "connection.username",
            "options.namespaces",
            "options.token_file",
            "options.client_key",
            "options.wait",
            "options.max_watches",
            "options.context",
            "options.weit",
            "options.protocol",
            "options.ip",
            "options.api_server",
            "options.kubeconfig",
        ] {
            let begin = format!("service_discovery.{path}:");
            let lines = error.message();
            assert!(
                lines.lines().any(|line| line.starts_with(&begin)),
                "{path}: {lines}"
            );
        }
    }

    #[test]
    fn pods_are_told_where_the_api_server_is() {
        let told = |url: &str, host, port| {
            let config = read(url).unwrap().with_service_variables(host, port);
            let Server::InCluster { at, .. } = &config.server else {
                return "elsewhere".to_owned();
            };
            let (host, port) = Server::in_cluster(at.as_ref());
            written(host, port)
        };
        let name = "kubernetes.default.svc:443";
        assert_eq!(told("kubernetes://", None, None), name);
        assert_eq!(told("kubernetes://", Some(""), Some("")), name);
        assert_eq!(
            told("kubernetes://", Some("10.0.0.1"), Some("")),
            "10.0.0.1:443"
        );
        // Nothing that is understood.
        assert_eq!(told("kubernetes://", Some("10.0.0.1"), Some("tcp")), name);
        let (v4, v6) = (Some("10.0.0.1"), Some("fd00::1"));
        assert_eq!(told("kubernetes://", v4, Some("6443")), "10.0.0.1:6443");
        assert_eq!(told("kubernetes://", v6, None), "[fd00::1]:443");
        assert_eq!(
            told("kubernetes://", Some("[fd00::1]"), None),
            "[fd00::1]:443"
        );
        let given = "kubernetes://?api_server=[fd00::2]:6443";
        assert_eq!(told(given, v4, None), "[fd00::2]:6443");
        assert_eq!(told("kubernetes://10.0.0.2", v4, None), "elsewhere");
    }

    #[test]
    fn typed_settings_and_neutral_ones_say_the_same() {
        let mut config = KubernetesConfig::at("10.0.0.1", 443);
        config.namespaces = vec!["a".to_owned(), "b".to_owned()];
        config.port = Some("http".to_owned());
        config.protocol = Some("https".to_owned());
        config.ip = IpFamily::V6;
        config.annotations = true;
        config.wait = Duration::from_secs(3);
        config.max_watches = 100;
        config.request_timeout = Duration::from_secs(2);
        config.token_file = Some("token".into());
        config.ca_file = Some("ca".into());
        config.client_certificate = Some("c".into());
        config.client_key = Some("k".into());
        let back = KubernetesConfig::from_neutral(&config.clone().into()).unwrap();
        assert_eq!(back, config);
        for config in [
            KubernetesConfig::in_cluster(),
            KubernetesConfig::in_cluster().with_service_variables(Some("fd00::1"), Some("443")),
            KubernetesConfig::kubeconfig("/k"),
        ] {
            let back = KubernetesConfig::from_neutral(&config.clone().into()).unwrap();
            assert_eq!(back, config);
        }
    }
}
