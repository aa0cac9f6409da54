//! Spans of time as configuration writes them: `"30s"`, `"250ms"`, `"1m30s"`, or a number of seconds.

/// Longest first where one is the beginning of another.
const UNITS: [(&str, u64); 8] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// A year: longer spans are mistakes.
pub(super) const LONGEST: u64 = 365 * 86_400_000_000_000;

/// Nanoseconds, or `None` for what is no span.
pub(super) fn parse(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse::<f64>() {
        return seconds_to_nanos(seconds);
    }
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let (unit, nanos) = UNITS.into_iter().find(|(unit, _)| tail.starts_with(unit))?;
        let part = match number.parse::<u64>() {
            Ok(whole) => whole.checked_mul(nanos)?,
            Err(_) => {
                let scaled = number.parse::<f64>().ok()? * nanos as f64;
                (scaled.is_finite() && scaled < u64::MAX as f64).then_some(scaled.round() as u64)?
            }
        };
        total = total.checked_add(part)?;
        rest = tail.strip_prefix(unit)?.trim_start();
    }
    Some(total)
}

/// Nanoseconds of a number of seconds.
pub(super) fn seconds_to_nanos(seconds: f64) -> Option<u64> {
    let nanos = (seconds * 1e9).round();
    (nanos >= 0.0 && nanos < u64::MAX as f64).then_some(nanos as u64)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn spans_are_read_as_configuration_reads_them() {
        for (text, nanos) in [
            ("30s", Some(30_000_000_000)),
            ("250ms", Some(250_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("0.5", Some(500_000_000)),
            ("5", Some(5_000_000_000)),
            ("soon", None),
            ("-1", None),
            ("5 apples", None),
            ("", None),
        ] {
            assert_eq!(parse(text), nanos, "{text}");
        }
    }
}
