//! URLs and `listen` addresses, taken apart into the settings they stand for.

use trunkline_core::ConnectionUrl;
use trunkline_events::EventStoreConfig;
use trunkline_messaging::MessageBrokerConfig;

use super::says_the_same;
use crate::config::diagnostics::{Diagnostic, Diagnostics};
use crate::config::place::Place;
use crate::config::tree::{Entry, Node, ScalarKind, Table, Value};

/// Takes the address of a section apart and puts its parts into the section.
pub(super) fn split(section: &str, table: &mut Table, entry: &Entry, problems: &mut Diagnostics) {
    let Some(text) = entry.node.as_text() else {
        let problem = Diagnostic::error(&entry.node.place, format!("it is {}", entry.node.what()));
        problems.push(problem.allow("a text"));
        return;
    };
    let place = &entry.node.place;
    let outcome = match section {
        "ServiceConfig" => service(table, text, &entry.key, place),
        "ServerConfig" | "GatewayConfig" => listen(table, text, &entry.key, place),
        _ => connection(section, table, text, &entry.key, place),
    };
    if let Err(problem) = outcome {
        problems.push(problem);
    }
}

type Outcome = Result<(), Diagnostic>;

/// Refuses an address beside its own parts in one layer.
fn refuse_beside(table: &Table, parts: &[&str], key: &Place) -> Outcome {
    let beside = parts
        .iter()
        .filter_map(|part| table.entries.get(*part))
        .find(|entry| entry.node.value != Value::Null);
    beside.map_or(Ok(()), |entry| Err(says_the_same(key, &entry.key)))
}

fn put(table: &mut Table, key: &str, text: &str, place: &Place) {
    let node = Node::scalar(text, ScalarKind::Plain, place.clone());
    table.insert(key, place.clone(), node);
}

fn put_text(table: &mut Table, key: &str, text: &str, place: &Place) {
    let node = Node::scalar(text, ScalarKind::Text, place.clone());
    table.insert(key, place.clone(), node);
}

fn connection(section: &str, table: &mut Table, text: &str, key: &Place, place: &Place) -> Outcome {
    const PARTS: [&str; 7] = [
        "host",
        "port",
        "username",
        "password",
        "password_file",
        "ssl_enabled",
        "path",
    ];
    let url: ConnectionUrl = text
        .parse()
        .map_err(|error| Diagnostic::error(place, format!("{error}")))?;
    if let Some(inner) = table.get("connection").and_then(Node::as_table) {
        refuse_beside(inner, &PARTS, key)?;
    }
    let kind = match section {
        "MessageBrokerConfig" => MessageBrokerConfig::kind_of_scheme(&url.scheme),
        "EventStoreConfig" => EventStoreConfig::kind_of_scheme(&url.scheme),
        _ => &url.scheme,
    };
    match table.get("type").and_then(Node::as_text) {
        None => put(table, "type", kind, place),
        Some(written) if written.eq_ignore_ascii_case(kind) => {}
        Some(_) if matches!(url.scheme.as_str(), "http" | "https") => {}
        Some(written) => {
            let message = format!("the URL is one of `{kind}`, but the type is `{written}`");
            return Err(Diagnostic::error(place, message));
        }
    }
    let Some(inner) = table.table_at(&["connection"], place) else {
        return Ok(());
    };
    let parts = url.connection;
    for (name, part) in [
        ("host", &parts.host),
        ("username", &parts.username),
        ("path", &parts.path),
    ] {
        if let Some(part) = part {
            put_text(inner, name, part, place);
        }
    }
    if let Some(port) = parts.port {
        put(inner, "port", &port.to_string(), place);
    }
    if let Some(password) = &parts.password {
        put_text(inner, "password", password.expose(), place);
    }
    put(
        inner,
        "ssl_enabled",
        if parts.ssl_enabled { "true" } else { "false" },
        place,
    );
    if !url.options.is_empty()
        && let Some(options) = table.table_at(&["options"], place)
    {
        for (name, value) in &url.options {
            put(options, name, value, place);
        }
    }
    Ok(())
}

fn service(table: &mut Table, text: &str, key: &Place, place: &Place) -> Outcome {
    refuse_beside(table, &["host", "port", "protocol", "base_path"], key)?;
    let refused = |why: &str| {
        Diagnostic::error(place, why.to_owned()).allow("http://host:port/path or https://…")
    };
    let url: ConnectionUrl = text
        .parse()
        .map_err(|_| refused("it is not the URL of a service"))?;
    let parts = url.connection;
    let Some(host) = parts.host.filter(|host| !host.contains(',')) else {
        return Err(refused("it is not the URL of one host"));
    };
    if !matches!(url.scheme.as_str(), "http" | "https") || !url.options.is_empty() {
        return Err(refused("it is not the URL of a service"));
    }
    if parts.username.is_some() || parts.password.is_some() {
        return Err(refused(
            "credentials have no meaning in the URL of a service",
        ));
    }
    put(table, "protocol", &url.scheme, place);
    put_text(table, "host", &host, place);
    if let Some(port) = parts.port {
        put(table, "port", &port.to_string(), place);
    }
    if let Some(path) = parts.path {
        put_text(table, "base_path", &format!("/{path}"), place);
    }
    Ok(())
}

fn listen(table: &mut Table, text: &str, key: &Place, place: &Place) -> Outcome {
    refuse_beside(table, &["host", "port"], key)?;
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if port.parse::<u16>().is_err() {
        let problem = Diagnostic::error(place, "it is not an address to listen on");
        return Err(problem.allow("host:port, such as 0.0.0.0:8000"));
    }
    if !host.is_empty() {
        put_text(table, "host", host, place);
    }
    put(table, "port", port, place);
    Ok(())
}
