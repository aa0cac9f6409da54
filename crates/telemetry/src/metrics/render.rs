//! The metrics as text.

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use trunkline_core::{Error, Result};

/// A text format that scrapers read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4: what every scraper and every human reads.
    #[default]
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Chooses by the `Accept` header of a request: OpenMetrics where it is named and preferred, else Prometheus text.
    ///
    /// ```
    /// use trunkline_telemetry::Format;
    ///
    /// let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
    /// assert_eq!(Format::negotiate(Some(prometheus)), Format::OpenMetrics);
    /// assert_eq!(Format::negotiate(Some("*/*")), Format::Prometheus);
    /// assert_eq!(Format::negotiate(None), Format::Prometheus);
    /// ```
    #[must_use]
    pub fn negotiate(accept: Option<&str>) -> Self {
        let (mut open, mut plain) = (0.0_f32, 0.0_f32);
        for range in accept.unwrap_or_default().split(',') {
            let (media, quality) = quality(range);
            match media.to_ascii_lowercase().as_str() {
                "application/openmetrics-text" => open = open.max(quality),
                "text/plain" | "text/*" => plain = plain.max(quality),
                // A wildcard takes anything, so the plain text serves it; it says nothing against what is named.
                _ => {}
            }
        }
        if open > 0.0 && open >= plain {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The `Content-Type` of this format.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    pub(super) fn empty(self) -> String {
        match self {
            Self::Prometheus => String::new(),
            Self::OpenMetrics => "# EOF\n".to_owned(),
        }
    }

    pub(super) fn render(self, registry: &Registry) -> Result<String> {
        let mut text = String::new();
        text::encode(&mut text, registry).map_err(|cause| {
            Error::internal("a registered metric cannot be written").with_source(cause)
        })?;
        Ok(match self {
            Self::OpenMetrics => text,
            Self::Prometheus => prometheus(&text),
        })
    }
}

fn quality(range: &str) -> (&str, f32) {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let named = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let quality = named.map_or(Ok(1.0), str::parse).unwrap_or(0.0);
    (media, quality)
}

/// Rewrites OpenMetrics as version 0.0.4: there the head of a counter carries the full name, and units, exemplars and
/// the end mark do not exist.
fn prometheus(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // The name is known only with the type, on the next line.
            help = rest.split_once(' ');
        } else if let Some((name, kind)) =
            (line.strip_prefix("# TYPE ")).and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, text)) = help.take() {
                push(&mut out, &["# HELP ", name, suffix, " ", text]);
            }
            push(&mut out, &["# TYPE ", name, suffix, " ", kind]);
        } else if !line.starts_with('#') {
            push(&mut out, &[without_exemplar(line)]);
        }
    }
    out
}

fn push(out: &mut String, parts: &[&str]) {
    out.extend(parts.iter().copied());
    out.push('\n');
}

/// An exemplar follows ` # ` outside the quotes of the labels.
fn without_exemplar(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return line.get(..at).unwrap_or(line).trim_end(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_text_has_its_own_heads() {
        let open = "# HELP calls Calls.\n# TYPE calls counter\n\
                    calls_total{path=\"a # \\\"b\"} 3 # {trace_id=\"1\"} 1.0\n\
                    # HELP wait_seconds Waiting.\n# TYPE wait_seconds gauge\n# UNIT wait_seconds seconds\n\
                    wait_seconds 1.5\n# HELP build Build.\n# TYPE build info\nbuild_info{v=\"1\"} 1\n# EOF\n";
        let expected = "# HELP calls_total Calls.\n# TYPE calls_total counter\n\
                        calls_total{path=\"a # \\\"b\"} 3\n\
                        # HELP wait_seconds Waiting.\n# TYPE wait_seconds gauge\nwait_seconds 1.5\n\
                        # HELP build_info Build.\n# TYPE build_info gauge\nbuild_info{v=\"1\"} 1\n";
        assert_eq!(prometheus(open), expected);
    }

    #[test]
    fn the_accept_header_is_weighed() {
        for (accept, expected) in [
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "application/openmetrics-text;q=0.2, text/plain;q=0.9",
                Format::Prometheus,
            ),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=x", Format::Prometheus),
            (
                "text/html, application/xml;q=0.9, */*;q=0.8",
                Format::Prometheus,
            ),
            ("", Format::Prometheus),
        ] {
            assert_eq!(Format::negotiate(Some(accept)), expected, "{accept}");
        }
    }
}
