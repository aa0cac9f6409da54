//! Kubeconfig files: who is asked, and as whom.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use trunkline_core::{Error, Result, Secret};

use crate::plugin::Plugin;
use crate::yaml;

/// The longest file that is one.
const LONGEST: u64 = 4 * 1024 * 1024;

/// What a context says.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) server: String,
    pub(crate) namespace: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) client_certificate: Option<PathBuf>,
    pub(crate) client_key: Option<PathBuf>,
    pub(crate) token: Option<Secret<String>>,
    pub(crate) token_file: Option<PathBuf>,
    /// What says by which token, where none is written.
    pub(crate) plugin: Option<Plugin>,
    /// Holds what stood in the file itself; gone with this.
    pub(crate) unpacked: Option<TempDir>,
}

/// Reads a context of a file; without a name the current one.
pub(crate) fn read(path: &Path, context: Option<&str>) -> Result<Found> {
    let wrong = |what: String| Error::config(format!("kubeconfig {}: {what}", path.display()));
    let unreadable = |error: std::io::Error| wrong("cannot be read".to_owned()).with_source(error);
    if fs::metadata(path).map_err(unreadable)?.len() > LONGEST {
        return Err(wrong("is too long".to_owned()));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let file = yaml::read(&text).map_err(|error| wrong(format!("is no YAML: {error}")))?;
    let beside = path.parent().unwrap_or(Path::new("."));
    Reader { file, beside }.context(context).map_err(wrong)
}

struct Reader<'a> {
    file: Value,
    /// Files are named from here.
    beside: &'a Path,
}

impl Reader<'_> {
    fn context(&self, name: Option<&str>) -> Result<Found, String> {
        let current = || text(&self.file, "current-context");
        let name = name
            .or_else(current)
            .ok_or("names no context; set `context`")?;
        let context = self.entry("contexts", "context", name)?;
        let cluster = text(context, "cluster").ok_or("the context names no cluster")?;
        let cluster = self.entry("clusters", "cluster", cluster)?;
        let server = text(cluster, "server").ok_or("the cluster has no `server`")?;
        if cluster.get("insecure-skip-tls-verify") == Some(&Value::Bool(true)) {
            return Err(
                "`insecure-skip-tls-verify` is not done; give `certificate-authority`".to_owned(),
            );
        }
        let mut found = Found {
            server: server.to_owned(),
            namespace: text(context, "namespace").map(str::to_owned),
            ..Found::default()
        };
        found.ca_file = self.file_or_data(cluster, "certificate-authority", &mut found.unpacked)?;
        if let Some(user) = text(context, "user") {
            let user = self.entry("users", "user", user)?;
            for unknown in ["auth-provider", "username", "password"] {
                if user.get(unknown).is_some_and(|value| !value.is_null()) {
                    return Err(format!(
                        "`{unknown}` is not understood; use a token, `tokenFile`, `exec` or a client certificate"
                    ));
                }
            }
            let unpacked = &mut found.unpacked;
            found.client_certificate = self.file_or_data(user, "client-certificate", unpacked)?;
            found.client_key = self.file_or_data(user, "client-key", unpacked)?;
            found.token_file = text(user, "tokenFile").map(|file| self.beside.join(file));
            let token = text(user, "token").filter(|_| found.token_file.is_none());
            found.token = token.map(|token| Secret::new(token.to_owned()));
            let exec = user.get("exec").filter(|exec| !exec.is_null());
            // As kubectl has it: what is written comes first.
            if let (Some(exec), None, None) = (exec, &found.token, &found.token_file) {
                let told = told_of(server, found.ca_file.as_deref())?;
                found.plugin = Some(Plugin::read(exec, self.beside, &told)?);
            }
        }
        Ok(found)
    }

    fn entry(&self, list: &str, what: &str, name: &str) -> Result<&Value, String> {
        let entries = self.file.get(list).and_then(Value::as_array);
        let mut entries = entries.into_iter().flatten();
        let entry = entries.find(|entry| text(entry, "name") == Some(name));
        let entry = entry.and_then(|entry| entry.get(what));
        entry.ok_or_else(|| format!("`{list}` has no `{name}`"))
    }

    /// A file that is named, or one made of what stands in the kubeconfig itself, which comes first.
    fn file_or_data(
        &self,
        value: &Value,
        key: &str,
        unpacked: &mut Option<TempDir>,
    ) -> Result<Option<PathBuf>, String> {
        let Some(data) = text(value, &format!("{key}-data")) else {
            return Ok(text(value, key).map(|file| self.beside.join(file)));
        };
        let joined: String = data.split_whitespace().collect();
        let data = STANDARD.decode(joined);
        let data = data.map_err(|_| format!("`{key}-data` is not base64"))?;
        let failed = |error: std::io::Error| format!("`{key}-data` cannot be unpacked: {error}");
        let directory = match unpacked {
            Some(directory) => directory,
            // Nobody else may look into it.
            None => unpacked.insert(TempDir::with_prefix("trunkline-kubernetes-").map_err(failed)?),
        };
        let path = directory.path().join(key);
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(&data))
            .map_err(failed)?;
        Ok(Some(path))
    }
}

/// What a credential plugin that asks for it is told of the cluster.
fn told_of(server: &str, ca_file: Option<&Path>) -> Result<Value, String> {
    let mut told = json!({"server": server});
    if let Some(file) = ca_file {
        let unreadable = |error| format!("{} cannot be read: {error}", file.display());
        let read = fs::read(file).map_err(unreadable)?;
        told["certificate-authority-data"] = STANDARD.encode(read).into();
    }
    Ok(told)
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    let text = value.get(key)?.as_str()?;
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
apiVersion: v1
current-context: one
clusters:
- name: c
  cluster: { server: 'https://10.0.0.1:6443', certificate-authority-data: Y2E= }
- name: d
  cluster: { server: 'https://10.0.0.2:6443', certificate-authority: ca.crt }
- name: unsafe
  cluster: { server: 'https://10.0.0.3:6443', insecure-skip-tls-verify: true }
contexts:
- name: one
  context: { cluster: c, user: u, namespace: shop }
- name: two
  context: { cluster: d, user: v }
- name: three
  context: { cluster: c, user: w }
- name: plugin
  context: { cluster: c, user: x }
- name: four
  context: { cluster: unsafe }
users:
- name: u
  user: { client-certificate-data: Y2VydA==, client-key-data: a2V5 }
- name: v
  user: { tokenFile: token, token: not-this }
- name: w
  user: { exec: { command: aws } }
- name: x
  user: { exec: { apiVersion: client.authentication.k8s.io/v1, command: ./x, provideClusterInfo: true } }
";

    #[test]
    fn contexts_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        fs::write(&path, FILE).unwrap();
        let one = read(&path, None).unwrap();
        assert_eq!(one.server, "https://10.0.0.1:6443");
        assert_eq!(one.namespace.as_deref(), Some("shop"));
        assert_eq!(
            fs::read_to_string(one.ca_file.as_ref().unwrap()).unwrap(),
            "ca"
        );
        assert_eq!(
            fs::read_to_string(one.client_key.as_ref().unwrap()).unwrap(),
            "key"
        );
        let unpacked = one.client_key.clone().unwrap();
        drop(one);
        assert!(!unpacked.exists(), "a key does not stay behind");
        let two = read(&path, Some("two")).unwrap();
        assert_eq!(two.token_file, Some(directory.path().join("token")));
        assert_eq!(two.ca_file, Some(directory.path().join("ca.crt")));
        assert!(two.token.is_none());
        assert!(read(&path, Some("plugin")).unwrap().plugin.is_some());
        for (context, part) in [
            ("three", "apiVersion"),
            ("four", "insecure"),
            ("five", "`five`"),
        ] {
            let error = read(&path, Some(context)).unwrap_err();
            assert!(error.message().contains(part), "{error}");
        }
        assert!(read(&directory.path().join("absent"), None).is_err());
    }
}
