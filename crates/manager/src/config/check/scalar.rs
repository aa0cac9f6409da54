//! Turns the text of a scalar into what its schema asks for.

use serde_json::{Number, Value};
use trunkline_core::duration;
use trunkline_core::size::ByteSize;
use trunkline_discovery::ServiceName;
use trunkline_messaging::{TopicName, TopicPattern};

use crate::config::diagnostics::closest;
use crate::config::schema;
use crate::config::seeds::words;
use crate::config::tree::{Scalar, ScalarKind};

/// A bare number of seconds above this was probably meant as milliseconds.
const LONG: f64 = 3600.0;

const DURATIONS: &str = "\"30s\", \"250ms\", \"1m30s\" or a number of seconds";

/// Why a scalar cannot be what it should be.
pub(crate) struct Refused {
    pub(crate) message: String,
    pub(crate) allowed: Option<String>,
    pub(crate) suggestion: Option<String>,
}

impl Refused {
    fn new(message: String, allowed: impl Into<String>) -> Self {
        Self {
            message,
            allowed: Some(allowed.into()),
            suggestion: None,
        }
    }
}

/// The value, or why it is none.
pub(super) fn convert(scalar: &Scalar, wanted: schema::Scalar<'_>) -> Result<Value, Refused> {
    let text = scalar.text.trim();
    match wanted {
        schema::Scalar::Duration => span(text),
        schema::Scalar::Size => size(scalar, text),
        schema::Scalar::Bool => truth(text),
        schema::Scalar::Integer(bounds) => integer(text, bounds),
        schema::Scalar::Number(bounds) => number(text, bounds),
        schema::Scalar::Word(name, schema) => word(text, name, schema),
        schema::Scalar::Text {
            format,
            secret,
            longest,
            shortest,
        } => self::text(&scalar.text, format, secret, shortest, longest),
    }
}

/// Whether a duration is a bare number so large that it was probably meant in milliseconds.
pub(super) fn is_long_bare_number(text: &str) -> bool {
    text.trim()
        .parse::<f64>()
        .is_ok_and(|seconds| seconds > LONG)
}

/// What a scalar is where anything may stand: YAML's core schema for plain ones.
pub(super) fn free(scalar: &Scalar) -> Value {
    let text = scalar.text.as_str();
    match scalar.kind {
        ScalarKind::Text => Value::from(text),
        ScalarKind::Bool => Value::from(text == "true"),
        ScalarKind::Plain | ScalarKind::Number => match text {
            "true" | "True" | "TRUE" => Value::from(true),
            "false" | "False" | "FALSE" => Value::from(false),
            _ => parse_number(text).map_or_else(|| Value::from(text), Value::Number),
        },
    }
}

fn parse_number(text: &str) -> Option<Number> {
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    if !numeric {
        return None;
    }
    // `-0` is a number that no integer tells from 0.
    let whole = parse_whole(text).filter(|whole| *whole != 0 || !text.starts_with('-'));
    let fits = whole.and_then(|whole| {
        let signed = i64::try_from(whole).map(Number::from);
        signed
            .or_else(|_| u64::try_from(whole).map(Number::from))
            .ok()
    });
    fits.or_else(|| Number::from_f64(text.parse().ok()?))
}

/// A whole number: decimal, or hexadecimal and octal as YAML and TOML write them.
fn parse_whole(text: &str) -> Option<i128> {
    let bare = text.strip_prefix('+').unwrap_or(text);
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = bare.strip_prefix(prefix) {
            return i128::from_str_radix(digits, radix).ok();
        }
    }
    bare.parse().ok()
}

fn span(text: &str) -> Result<Value, Refused> {
    let refused = || Refused::new(format!("{} is not a duration", shown(text)), DURATIONS);
    duration::parse(text)
        .map(|span| Value::from(duration::format(span)))
        .map_err(|_| refused())
}

fn size(scalar: &Scalar, text: &str) -> Result<Value, Refused> {
    let refused = || {
        let message = format!("{} is not a size", shown(text));
        Refused::new(message, "\"4MiB\", \"64KB\" or a number of bytes")
    };
    if scalar.kind != ScalarKind::Text && text.is_empty() {
        return Err(refused());
    }
    text.parse::<ByteSize>()
        .map(|size| Value::from(size.to_string()))
        .map_err(|_| refused())
}

fn truth(text: &str) -> Result<Value, Refused> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(Value::from(true)),
        "false" | "no" | "off" | "0" => Ok(Value::from(false)),
        _ => Err(Refused::new(
            format!("{} is neither true nor false", shown(text)),
            "true, false",
        )),
    }
}

fn integer(text: &str, bounds: schema::Bounds) -> Result<Value, Refused> {
    let number = whole(text, bounds)?;
    i64::try_from(number)
        .map(Value::from)
        .or_else(|_| u64::try_from(number).map(Value::from))
        .map_err(|_| {
            Refused::new(
                format!("{} is out of range", shown(text)),
                range(bounds, "a whole number"),
            )
        })
}

/// A whole number within bounds, however it is written.
pub(crate) fn whole(text: &str, bounds: schema::Bounds) -> Result<i128, Refused> {
    let text = text.trim();
    let refused = |why: &str| {
        Refused::new(
            format!("{} {why}", shown(text)),
            range(bounds, "a whole number"),
        )
    };
    let whole = parse_whole(text).or_else(|| {
        // `8001.0` is whole, too: templates often write numbers so.
        let number: f64 = text.parse().ok()?;
        (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i128)
    });
    let Some(whole) = whole else {
        return Err(refused("is not a whole number"));
    };
    if !bounds.contain(whole as f64) {
        return Err(refused("is out of range"));
    }
    Ok(whole)
}

fn number(text: &str, bounds: schema::Bounds) -> Result<Value, Refused> {
    let refused =
        |why: &str| Refused::new(format!("{} {why}", shown(text)), range(bounds, "a number"));
    let number: f64 = text.parse().map_err(|_| refused("is not a number"))?;
    let value = Number::from_f64(number).ok_or_else(|| refused("is not a finite number"))?;
    if !bounds.contain(number) {
        return Err(refused("is out of range"));
    }
    Ok(Value::Number(value))
}

impl schema::Bounds {
    fn contain(self, number: f64) -> bool {
        self.least.is_none_or(|least| number >= least)
            && self.most.is_none_or(|most| number <= most)
    }
}

fn range(bounds: schema::Bounds, otherwise: &str) -> String {
    match (bounds.least, bounds.most) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("{least} or more"),
        (None, Some(most)) => format!("at most {most}"),
        (None, None) => otherwise.to_owned(),
    }
}

/// A word as it is compared: case does not matter, nor whether parts are joined by `-` or `_`.
fn spelled(word: &str) -> String {
    word.to_ascii_lowercase().replace('-', "_")
}

fn word(text: &str, name: &str, schema: &Value) -> Result<Value, Refused> {
    let folded = spelled(text);
    let known = schema::Scalar::words(schema);
    let meant = words::value(name, &folded).unwrap_or(&folded);
    if let Some(word) = known.iter().find(|word| spelled(word) == meant) {
        return Ok(Value::from(*word));
    }
    Err(Refused {
        message: format!("{} is not known", shown(text)),
        suggestion: closest(text, known.iter().copied()).map(str::to_owned),
        allowed: Some(known.join(", ")),
    })
}

fn text(
    text: &str,
    format: Option<&str>,
    secret: bool,
    shortest: Option<u64>,
    longest: Option<u64>,
) -> Result<Value, Refused> {
    let shown = || {
        if secret {
            "the value".to_owned()
        } else {
            shown(text)
        }
    };
    let length = text.chars().count() as u64;
    if shortest.is_some_and(|shortest| length < shortest) {
        return Err(Refused::new("it is empty".to_owned(), "a text"));
    }
    if let Some(longest) = longest.filter(|longest| length > *longest) {
        let message = format!("{} is too long", shown());
        return Err(Refused::new(
            message,
            format!("at most {longest} characters"),
        ));
    }
    let text = match format {
        Some(format) => check_format(text, format)?,
        None => text.to_owned(),
    };
    Ok(Value::from(text))
}

fn check_format(text: &str, format: &str) -> Result<String, Refused> {
    let refuse = |what: &str, allowed: &str| {
        Err(Refused::new(
            format!("{} is not {what}", shown(text)),
            allowed,
        ))
    };
    match format {
        "broker-kind" | "registry-kind" | "event-store-kind" => {
            let folded = text.trim().to_ascii_lowercase();
            return Ok(words::value(format, &folded).map_or(folded.clone(), str::to_owned));
        }
        "http-url" => check_base_url(text)?,
        "url-path" if !is_path(text) => return refuse("a path", "a path such as /api/v1"),
        "route-path" if !is_route_path(text) => {
            return refuse(
                "a path of the service's own",
                "a path without parameters, such as /health",
            );
        }
        "header-name" if !is_header_name(text) => {
            return refuse(
                "a header name",
                "letters, digits and `-`, such as X-Correlation-ID",
            );
        }
        "service-name" if ServiceName::new(text).is_err() => {
            return refuse(
                "a service name",
                "1 to 128 letters, digits, `-`, `_` and dots",
            );
        }
        "topic" if TopicName::new(text).is_err() => {
            return refuse(
                "a topic",
                "names of letters, digits, `_` and `-`, joined by dots",
            );
        }
        "prefix" if !is_prefix(text) => {
            return refuse(
                "a prefix",
                "up to 64 letters, digits, `-`, `_` and dots, such as staging.",
            );
        }
        _ => {}
    }
    Ok(text.to_owned())
}

/// What a client takes as its base: nothing but the place, as the rest of it is never sent.
fn check_base_url(text: &str) -> Result<(), Refused> {
    const ALLOWED: &str = "https://host:port/path or unix:/path/to.sock";
    let refused = |why: &str, allowed: &str| {
        let message = format!("{} {why}", shown(text));
        Err(Refused::new(message, allowed))
    };
    if let Some(rest) = text.strip_prefix("unix:") {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        let (socket, base) = path.split_once(":/").unwrap_or((path, ""));
        if !socket.starts_with('/') || socket.ends_with('/') {
            return refused("is not an HTTP URL", ALLOWED);
        }
        if base.contains(['?', '#']) {
            return refused("has a query or a fragment", ALLOWED);
        }
        return Ok(());
    }
    let url = url::Url::parse(text).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let Some(url) = url else {
        return refused("is not an HTTP URL", ALLOWED);
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refused("holds credentials", "a URL without them, and a header");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refused("has a query or a fragment", ALLOWED);
    }
    Ok(())
}

fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && !text
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || "?#".contains(c))
}

/// A path that a router takes as it stands, with nothing in it that means a parameter.
fn is_route_path(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !"{}*?#".contains(c);
    text.starts_with('/') && text.chars().all(plain) && !text.contains("/:")
}

fn is_header_name(text: &str) -> bool {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.len() <= 128 && text.chars().all(token)
}

/// What a prefix is put before must stay a topic and a service name.
fn is_prefix(text: &str) -> bool {
    text.len() <= 64
        && ServiceName::new(format!("{text}x")).is_ok()
        && TopicName::new(format!("{text}x")).is_ok()
}

/// The names in a mapping whose names mean something.
pub(super) fn check_name(name: &str, format: Option<&str>) -> Result<(), Refused> {
    let refuse = |what: &str, allowed: &str| {
        Err(Refused::new(
            format!("{} is not {what}", shown(name)),
            allowed,
        ))
    };
    match format {
        Some("services") if ServiceName::new(name).is_err() => refuse(
            "a service name",
            "1 to 128 letters, digits, `-`, `_` and dots",
        ),
        Some("topics") => match TopicPattern::new(name) {
            Ok(_) => Ok(()),
            Err(error) => Err(Refused {
                message: error.message().to_owned(),
                allowed: None,
                suggestion: None,
            }),
        },
        Some("endpoints") if !is_endpoint(name) => refuse(
            "an endpoint",
            "a method and a path, such as \"GET /users/{id}\", or the name of a method",
        ),
        _ if name.trim().is_empty() || name.len() > 200 => refuse("a name", "1 to 200 characters"),
        _ => Ok(()),
    }
}

fn is_endpoint(name: &str) -> bool {
    let is_word = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match name.split_once(' ') {
        Some((method, path)) => method.bytes().all(|c| c.is_ascii_uppercase()) && is_path(path),
        None => is_word(name),
    }
}

/// A value as messages show it: short, on one line, without credentials.
pub(super) fn shown(text: &str) -> String {
    let masked = mask_credentials(text);
    let short: String = masked
        .chars()
        .take(64)
        .flat_map(char::escape_debug)
        .collect();
    let more = if masked.chars().count() > 64 {
        "…"
    } else {
        ""
    };
    format!("`{short}{more}`")
}

/// Hides what stands between `://` and `@`.
pub(crate) fn mask_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    // A password may itself hold `/`, written as it should not be: then nothing of it is shown.
    match (authority.rsplit_once('@'), tail.rsplit_once('@')) {
        (_, Some((_, tail))) => format!("{scheme}://***@{tail}"),
        (Some((_, host)), None) => format!("{scheme}://***@{host}{tail}"),
        (None, None) => text.to_owned(),
    }
}
