//! The table that is kept, and what differs from it.

use crate::report::Report;

const KEPT: &str = include_str!("golden.txt");

/// Differences that are shown one by one.
const SHOWN: usize = 20;

/// Compares what came of the calls with the table that is kept: one line a cell, columns set apart by ` | `.
pub(super) fn compare(report: &mut Report, actual: &[[String; 4]]) {
    let kept: Vec<&str> = KEPT.lines().filter(|line| !line.starts_with('#')).collect();
    let actual: Vec<String> = actual.iter().map(|cells| cells.join(" | ")).collect();
    let gone = kept
        .iter()
        .filter(|line| !actual.iter().any(|row| row == *line))
        .map(|line| format!("- {line}"));
    let new = actual
        .iter()
        .filter(|row| !kept.contains(&row.as_str()))
        .map(|row| format!("+ {row}"));
    let differences: Vec<String> = gone.chain(new).collect();
    for difference in differences.iter().take(SHOWN) {
        report.note(difference.clone());
    }
    report.check(
        "every cell is as in the table that is kept",
        differences.is_empty() && kept.len() == actual.len(),
        format!("{} cells, {} differences", actual.len(), differences.len()),
    );
}
