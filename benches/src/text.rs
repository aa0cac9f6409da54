//! Reports as text: for the terminal, and as Markdown.

use std::fmt::Write as _;

use crate::entry::Entry;
use crate::machine::Machine;
use crate::report::{Report, Table, short};

/// What a terminal shows.
pub(crate) fn terminal(report: &Report) -> String {
    let mut text = String::new();
    for table in &report.tables {
        text.push_str(&aligned(table));
        text.push('\n');
    }
    for check in &report.checks {
        let mark = if check.holds { "ok    " } else { "FAILED" };
        put(
            &mut text,
            format_args!("  {mark}  {}: {}\n", check.what, check.seen),
        );
    }
    for target in &report.targets {
        let mark = if target.met { "met   " } else { "MISSED" };
        put(
            &mut text,
            format_args!(
                "  {mark}  {}: {}, target {}\n",
                target.what,
                target.seen,
                short(target.at_least)
            ),
        );
    }
    for note in &report.notes {
        put(&mut text, format_args!("  note    {note}\n"));
    }
    text
}

/// The section of a document.
pub(crate) fn markdown(entry: &Entry, report: &Report, machine: &Machine) -> String {
    let mut text = String::new();
    put(
        &mut text,
        format_args!(
            "## {}\n\n{}\n\nMeasured on {machine}.\n",
            entry.name, entry.about
        ),
    );
    for table in &report.tables {
        put(
            &mut text,
            format_args!("\n**{}**\n\n", escaped(&table.title)),
        );
        let row = |cells: &[String]| {
            let cells: Vec<_> = cells.iter().map(|cell| escaped(cell)).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        text.push_str(&row(&table.columns));
        let rule = |i| if is_numeric(table, i) { "---:" } else { "---" };
        let rules: Vec<_> = (0..table.columns.len()).map(rule).collect();
        put(&mut text, format_args!("| {} |\n", rules.join(" | ")));
        for cells in &table.rows {
            text.push_str(&row(cells));
        }
    }
    if !(report.checks.is_empty() && report.targets.is_empty() && report.notes.is_empty()) {
        text.push('\n');
    }
    for check in &report.checks {
        let mark = if check.holds {
            "holds"
        } else {
            "**does not hold**"
        };
        put(
            &mut text,
            format_args!("- {}: {mark} ({})\n", check.what, check.seen),
        );
    }
    for target in &report.targets {
        let mark = if target.met { "met" } else { "**missed**" };
        put(
            &mut text,
            format_args!(
                "- {}: × {}, target {}: {mark}\n",
                target.what,
                target.seen,
                short(target.at_least)
            ),
        );
    }
    for note in &report.notes {
        put(&mut text, format_args!("- {note}\n"));
    }
    text
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what)
        .expect("writing to a string does not fail");
}

fn escaped(cell: &str) -> String {
    cell.replace('|', "\\|").replace('\n', " ")
}

fn aligned(table: &Table) -> String {
    let width = |i: usize| {
        let cells = table
            .rows
            .iter()
            .chain([&table.columns])
            .filter_map(|row| row.get(i));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..table.columns.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(i, (cell, &width))| match is_numeric(table, i) {
                true => format!("{cell:>width$}"),
                false => format!("{cell:width$}"),
            })
            .collect();
        format!("  {}\n", padded.join("  ").trim_end())
    };
    let mut text = format!("{}\n{}", table.title, line(&table.columns));
    let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
    put(&mut text, format_args!("  {}\n", rule.join("  ")));
    for row in &table.rows {
        text.push_str(&line(row));
    }
    text
}

/// Whether all cells of a column begin like numbers, and one does.
fn is_numeric(table: &Table, column: usize) -> bool {
    let mut cells = table
        .rows
        .iter()
        .filter_map(|row| row.get(column))
        .filter(|c| !c.is_empty());
    let numeric = |cell: &String| {
        cell.trim_start_matches(['-', '×', ' '])
            .starts_with(|c: char| c.is_ascii_digit())
    };
    cells.clone().next().is_some() && cells.all(numeric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Spread;

    fn report() -> Report {
        let mut table = Table::new("Steps", ["step", "took ms"]);
        table.row(["start | go", "7"]);
        table.row(["é", "123"]);
        let mut report = Report::new();
        report.table(table);
        report.check("data kept", true, "100 of 100");
        report.check("nothing lost", false, "1 lost");
        report.target(
            "against x",
            Spread {
                min: 1.0,
                median: 1.5,
                max: 2.0,
            },
            2.0,
        );
        report.note("a remark");
        report
    }

    #[test]
    fn terminal_table_is_aligned() {
        let expected = "\
Steps
  step        took ms
  ----------  -------
  start | go        7
  é               123

  ok      data kept: 100 of 100
  FAILED  nothing lost: 1 lost
  MISSED  against x: 1.00 / 1.50 / 2.00, target 2.00
  note    a remark
";
        assert_eq!(terminal(&report()), expected);
    }

    #[test]
    fn markdown_is_a_section() {
        let entry = Entry {
            name: "demo",
            about: "It works.",
            run: |_| Ok(Report::new()),
        };
        let machine = Machine {
            cores: 2,
            processor: "CPU".to_owned(),
            system: "linux 6.1".to_owned(),
        };
        let expected = "\
## demo

It works.

Measured on 2 cores, CPU, linux 6.1.

**Steps**

| step | took ms |
| --- | ---: |
| start \\| go | 7 |
| é | 123 |

- data kept: holds (100 of 100)
- nothing lost: **does not hold** (1 lost)
- against x: × 1.00 / 1.50 / 2.00, target 2.00: **missed**
- a remark
";
        assert_eq!(markdown(&entry, &report(), &machine), expected);
    }
}
