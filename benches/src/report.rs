//! What a proof or a benchmark has to say: tables, checks, targets, figures, notes.

use serde::Serialize;

/// The outcome of one proof or benchmark.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub(crate) tables: Vec<Table>,
    pub(crate) checks: Vec<Check>,
    pub(crate) targets: Vec<Target>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) notes: Vec<String>,
    /// Pictures for the guide, by their path from the root.
    #[serde(skip)]
    pub(crate) pictures: Vec<(&'static str, String)>,
}

/// A statement that holds or does not.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) what: String,
    pub(crate) holds: bool,
    pub(crate) seen: String,
}

/// A ratio that should reach a value. `bench --check` fails where it does not.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) at_least: f64,
    pub(crate) seen: Spread,
    pub(crate) met: bool,
}

/// A measured value.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: String,
    #[serde(flatten)]
    pub(crate) spread: Spread,
}

impl Report {
    /// An empty report. It proves nothing until it has a check.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a picture that `--write` puts there, seen from the root.
    pub fn picture(&mut self, path: &'static str, svg: String) {
        self.pictures.push((path, svg));
    }

    /// Adds a table.
    pub fn table(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// Adds a statement, whether it holds, and what was seen. One that does not hold fails the run.
    pub fn check(&mut self, what: impl Into<String>, holds: bool, seen: impl Into<String>) {
        self.checks.push(Check {
            what: what.into(),
            holds,
            seen: seen.into(),
        });
    }

    /// Adds a ratio whose median should be at least `at_least`.
    pub fn target(&mut self, what: impl Into<String>, seen: Spread, at_least: f64) {
        let met = seen.median >= at_least;
        self.targets.push(Target {
            what: what.into(),
            at_least,
            seen,
            met,
        });
    }

    /// Adds a figure for programs that read the JSON document.
    pub fn figure(&mut self, name: impl Into<String>, unit: impl Into<String>, spread: Spread) {
        self.figures.push(Figure {
            name: name.into(),
            unit: unit.into(),
            spread,
        });
    }

    /// Adds a remark.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Whether every check holds. A report without any check has shown nothing.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.checks.is_empty() && self.no_check_fails()
    }

    pub(crate) fn no_check_fails(&self) -> bool {
        self.checks.iter().all(|check| check.holds)
    }

    /// Whether every target is met.
    #[must_use]
    pub fn targets_met(&self) -> bool {
        self.targets.iter().all(|target| target.met)
    }
}

/// Rows under named columns.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    pub(crate) title: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new<C: Into<String>>(
        title: impl Into<String>,
        columns: impl IntoIterator<Item = C>,
    ) -> Self {
        let columns = columns.into_iter().map(Into::into).collect();
        Self {
            title: title.into(),
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row. Missing cells are empty; cells beyond the columns are dropped.
    pub fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let mut row: Vec<String> = cells.into_iter().map(Into::into).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }
}

/// Smallest, middle and largest of several measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The middle one; the mean of the two middle ones of an even number.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these measurements; `None` if there are none or one is no number.
    #[must_use]
    pub fn of(measurements: &[f64]) -> Option<Self> {
        let mut sorted = measurements.to_vec();
        if sorted.iter().any(|value| value.is_nan()) {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self {
            min: *sorted.first()?,
            median: f64::midpoint(lower, upper),
            max: *sorted.last()?,
        })
    }
}

/// `min / median / max`.
impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} / {} / {}",
            short(self.min),
            short(self.median),
            short(self.max)
        )
    }
}

/// A number in about three significant digits, large ones in full with groups of three.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        value.to_string()
    } else if size >= 1000.0 {
        grouped(&format!("{value:.0}"))
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 0.01 || size == 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.1e}")
    }
}

/// `1234567` as `1 234 567`.
fn grouped(digits: &str) -> String {
    let (sign, digits) = digits
        .strip_prefix('-')
        .map_or(("", digits), |rest| ("-", rest));
    let mut text = sign.to_owned();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_without_a_check_proves_nothing() {
        let mut report = Report::new();
        assert!(!report.holds());
        report.check("a", true, "seen");
        assert!(report.holds());
        report.check("b", false, "not seen");
        assert!(!report.holds());
    }

    #[test]
    fn target_is_judged_by_its_median() {
        let mut report = Report::new();
        let spread = Spread {
            min: 0.5,
            median: 1.0,
            max: 1.5,
        };
        report.target("a", spread, 1.0);
        assert!(report.targets_met());
        report.target("b", spread, 1.01);
        assert!(!report.targets_met());
    }

    #[test]
    fn spread_of_odd_even_and_nothing() {
        assert_eq!(
            Spread::of(&[3.0, 1.0, 2.0]),
            Some(Spread {
                min: 1.0,
                median: 2.0,
                max: 3.0
            })
        );
        assert_eq!(
            Spread::of(&[4.0, 1.0]),
            Some(Spread {
                min: 1.0,
                median: 2.5,
                max: 4.0
            })
        );
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0.00"),
            (0.001, "1.0e-3"),
            (0.5, "0.50"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1234.5, "1 234"),
            (-1_234_567.0, "-1 234 567"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn rows_fit_their_columns() {
        let mut table = Table::new("t", ["a", "b"]);
        table.row(["1"]);
        table.row(["1", "2", "3"]);
        assert_eq!(table.rows, [["1", ""], ["1", "2"]]);
    }
}
