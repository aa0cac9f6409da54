//! The two programs: what they accept, how they run entries, what they exit with.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow};
use serde::Serialize;

use crate::entry::{Entry, Options};
use crate::machine::Machine;
use crate::report::Report;
use crate::{Stopwatch, document, proofs, questions, text};

/// What a program runs and how it judges.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    entries: &'static [&'static Entry],
    document: &'static str,
    heading: &'static str,
    /// A proof must show something; a benchmark may have targets only.
    must_prove: bool,
}

/// `prove`: succeeds if every proof that was run holds.
pub static PROVE: Program = Program {
    name: "prove",
    entries: proofs::ALL,
    document: "docs/proof.md",
    heading: "Proofs",
    must_prove: true,
};

/// `bench`: succeeds if every benchmark ran and, with `--check`, met its targets.
pub static BENCH: Program = Program {
    name: "bench",
    entries: questions::ALL,
    document: "docs/benchmarks.md",
    heading: "Benchmarks",
    must_prove: false,
};

/// Runs a program with the arguments of this process.
///
/// Exits with 0 if everything holds, 1 if something does not or could not be done, 2 if it was called
/// wrongly.
#[must_use]
pub fn main(program: &Program) -> ExitCode {
    let call = match Call::parse(program, std::env::args().skip(1)) {
        Ok(call) => call,
        Err(mistake) => {
            eprintln!("error: {mistake}\n{}", usage(program));
            return ExitCode::from(2);
        }
    };
    match call.run(program) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage(program: &Program) -> String {
    let own = match program.must_prove {
        true => " [--seed N]",
        false => " [--check]",
    };
    format!(
        "Usage: cargo xtask {} [NAME…] [--quick]{own} [--list] [--output text|json] [--write]",
        program.name
    )
}

/// What was asked for.
#[derive(Debug)]
struct Call {
    entries: Vec<&'static Entry>,
    options: Options,
    list: bool,
    json: bool,
    write: bool,
    check: bool,
}

/// One entry after its run.
#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    about: &'static str,
    succeeded: bool,
    seconds: f64,
    error: Option<String>,
    #[serde(flatten)]
    report: Report,
}

/// The JSON document.
#[derive(Debug, Serialize)]
struct Document<'a> {
    program: &'static str,
    quick: bool,
    succeeded: bool,
    machine: &'a Machine,
    entries: &'a [Outcome],
}

impl Call {
    fn parse(program: &Program, words: impl Iterator<Item = String>) -> Result<Self, String> {
        let options = Options {
            quick: false,
            seed: None,
        };
        let (list, json, write, check) = (false, false, false, false);
        let mut call = Self {
            entries: Vec::new(),
            options,
            list,
            json,
            write,
            check,
        };
        let mut words = words;
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => call.options.quick = true,
                "--list" => call.list = true,
                "--write" => call.write = true,
                "--check" if !program.must_prove => call.check = true,
                "--seed" if program.must_prove => {
                    call.options.seed = Some(seed(&words.next().unwrap_or_default())?);
                }
                "--output" => call.json = is_json(&words.next().unwrap_or_default())?,
                _ if word.starts_with("--output=") => {
                    call.json = is_json(word.strip_prefix("--output=").unwrap_or_default())?;
                }
                _ if program.must_prove && word.starts_with("--seed=") => {
                    let number = word.strip_prefix("--seed=").unwrap_or_default();
                    call.options.seed = Some(seed(number)?);
                }
                _ if word.starts_with('-') => return Err(format!("unknown option `{word}`")),
                _ => call.entries.extend(named(program, &word)?),
            }
        }
        if call.write && call.options.quick {
            return Err("a quick run does not go into the documents".to_owned());
        }
        if call.entries.is_empty() {
            call.entries = program.entries.to_vec();
        }
        Ok(call)
    }

    fn run(&self, program: &Program) -> Result<bool> {
        if self.list {
            return self.print_list().map(|()| true);
        }
        if self.entries.is_empty() {
            return Err(anyhow!("{} has no entries", program.name));
        }
        if cfg!(debug_assertions) {
            eprintln!("warning: built without --release; figures mean nothing");
        }
        let machine = Machine::this();
        let mut outcomes = Vec::new();
        for entry in &self.entries {
            eprintln!("{} {}: {}", program.name, entry.name, entry.about);
            let outcome = self.judge(program, entry);
            if !self.json {
                print!("\n{}", shown(&outcome));
            }
            if self.write && outcome.error.is_none() && (outcome.succeeded || !program.must_prove) {
                let section = text::markdown(entry, &outcome.report, &machine);
                let path = Path::new(program.document);
                document::write_section(path, program.heading, entry.name, &section)?;
                for (path, svg) in &outcome.report.pictures {
                    let written = std::fs::write(path, svg);
                    written
                        .with_context(|| format!("cannot write {path} (run it from the root)"))?;
                }
            }
            outcomes.push(outcome);
        }
        let succeeded = outcomes.iter().all(|outcome| outcome.succeeded);
        if self.json {
            let quick = self.options.quick;
            let (machine, entries) = (&machine, outcomes.as_slice());
            let document = Document {
                program: program.name,
                quick,
                succeeded,
                machine,
                entries,
            };
            println!(
                "{}",
                serde_json::to_string_pretty(&document).context("cannot write JSON")?
            );
        } else {
            print!("{}", summary(&outcomes));
        }
        Ok(succeeded)
    }

    fn print_list(&self) -> Result<()> {
        if self.json {
            #[derive(Serialize)]
            struct Line {
                name: &'static str,
                about: &'static str,
            }
            let lines: Vec<Line> = self
                .entries
                .iter()
                .map(|e| Line {
                    name: e.name,
                    about: e.about,
                })
                .collect();
            println!(
                "{}",
                serde_json::to_string_pretty(&lines).context("cannot write JSON")?
            );
            return Ok(());
        }
        let width = self
            .entries
            .iter()
            .map(|entry| entry.name.len())
            .max()
            .unwrap_or(0);
        for entry in &self.entries {
            println!("{:width$}  {}", entry.name, entry.about);
        }
        Ok(())
    }

    fn judge(&self, program: &Program, entry: &'static Entry) -> Outcome {
        let watch = Stopwatch::start();
        // A panic is a failure of this entry, not the end of the run.
        let result = catch_unwind(AssertUnwindSafe(|| (entry.run)(&self.options)))
            .unwrap_or_else(|panic| Err(anyhow!("it panicked: {}", message(panic.as_ref()))));
        let (report, error) = match result {
            Ok(report) => (report, None),
            Err(error) => (Report::new(), Some(format!("{error:#}"))),
        };
        let holds = if program.must_prove {
            report.holds()
        } else {
            report.no_check_fails()
        };
        let succeeded = error.is_none() && holds && (!self.check || report.targets_met());
        let seconds = watch.seconds();
        Outcome {
            name: entry.name,
            about: entry.about,
            succeeded,
            seconds,
            error,
            report,
        }
    }
}

fn seed(number: &str) -> Result<u64, String> {
    let wrong = |_| format!("`--seed` is a number up to {}, not `{number}`", u64::MAX);
    number.parse().map_err(wrong)
}

fn is_json(format: &str) -> Result<bool, String> {
    match format {
        "json" => Ok(true),
        "text" => Ok(false),
        other => Err(format!("`--output` is `text` or `json`, not `{other}`")),
    }
}

/// The entry of this name, or all those of which it is the first part: `messaging-chaos` of `messaging-chaos-rabbitmq`.
fn named(program: &Program, name: &str) -> Result<Vec<&'static Entry>, String> {
    let all = || program.entries.iter().copied();
    if let Some(entry) = all().find(|entry| entry.name == name) {
        return Ok(vec![entry]);
    }
    let is_part = |entry: &&Entry| {
        let rest = entry.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with('-'))
    };
    let parts: Vec<_> = all().filter(is_part).collect();
    if parts.is_empty() {
        let names: Vec<_> = all().map(|entry| entry.name).collect();
        return Err(format!("no `{name}`; there are: {}", names.join(", ")));
    }
    Ok(parts)
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

fn shown(outcome: &Outcome) -> String {
    let mut text = text::terminal(&outcome.report);
    if let Some(error) = &outcome.error {
        text.push_str(&format!("  ERROR   {error}\n"));
    }
    text.push('\n');
    text
}

fn summary(outcomes: &[Outcome]) -> String {
    let width = outcomes
        .iter()
        .map(|outcome| outcome.name.len())
        .max()
        .unwrap_or(0);
    outcomes
        .iter()
        .map(|outcome| {
            let mark = if outcome.succeeded { "ok" } else { "FAILED" };
            format!(
                "{:width$}  {mark:6}  {:.1} s\n",
                outcome.name, outcome.seconds
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    static GOOD: Entry = Entry {
        name: "good",
        about: "Holds.",
        run: |_| {
            let mut report = Report::new();
            report.check("one is one", true, "1");
            Ok(report)
        },
    };
    static EMPTY: Entry = Entry {
        name: "empty",
        about: "Shows nothing.",
        run: |_| Ok(Report::new()),
    };
    static BROKEN: Entry = Entry {
        name: "broken",
        about: "Cannot be done.",
        run: |_| Err(anyhow!("no server")),
    };
    static PANICS: Entry = Entry {
        name: "panics",
        about: "Panics.",
        run: |_| panic!("ouch"),
    };
    static FAILS: Entry = Entry {
        name: "fails",
        about: "Does not hold.",
        run: |_| {
            let mut report = Report::new();
            report.check("one is two", false, "1");
            Ok(report)
        },
    };
    static SLOW: Entry = Entry {
        name: "slow",
        about: "Misses its target.",
        run: |_| {
            let mut report = Report::new();
            let seen = crate::Spread {
                min: 0.1,
                median: 0.2,
                max: 0.3,
            };
            report.target("against nothing", seen, 1.0);
            Ok(report)
        },
    };

    static ENTRIES: &[&Entry] = &[&GOOD, &EMPTY, &BROKEN, &PANICS, &FAILS, &SLOW];
    const fn program(must_prove: bool) -> Program {
        let name = if must_prove { "prove" } else { "bench" };
        Program {
            name,
            entries: ENTRIES,
            document: "nowhere.md",
            heading: "None",
            must_prove,
        }
    }
    static PROOFS: Program = program(true);
    static BENCHES: Program = program(false);

    fn call(program: &Program, words: &[&str]) -> Result<Call, String> {
        Call::parse(program, words.iter().map(|&word| word.to_owned()))
    }

    fn succeeds(program: &Program, words: &[&str]) -> bool {
        let call = call(program, words).unwrap();
        call.entries
            .iter()
            .all(|entry| call.judge(program, entry).succeeded)
    }

    #[test]
    fn proof_holds_only_if_it_shows_something() {
        assert!(succeeds(&PROOFS, &["good"]));
        for name in ["empty", "broken", "panics", "fails", "slow"] {
            assert!(!succeeds(&PROOFS, &[name]), "{name}");
        }
    }

    #[test]
    fn benchmark_fails_on_a_missed_target_only_if_asked() {
        assert!(succeeds(&BENCHES, &["slow"]));
        assert!(!succeeds(&BENCHES, &["slow", "--check"]));
        assert!(
            !succeeds(&BENCHES, &["fails"]),
            "a failed check counts always"
        );
        assert!(!succeeds(&BENCHES, &["broken"]));
    }

    #[test]
    fn panic_and_error_are_told() {
        let call = call(&PROOFS, &[]).unwrap();
        assert_eq!(call.entries.len(), ENTRIES.len());
        let error = |entry| call.judge(&PROOFS, entry).error.unwrap();
        assert_eq!(error(&PANICS), "it panicked: ouch");
        assert_eq!(error(&BROKEN), "no server");
    }

    #[test]
    fn wrong_calls_are_refused() {
        for (words, expected) in [
            (&["nobody"][..], "there are: good, empty"),
            (&["--qiuck"], "unknown option `--qiuck`"),
            (&["--check"], "unknown option"),
            (&["--output", "xml"], "not `xml`"),
            (&["--output"], "not ``"),
            (&["--quick", "--write"], "quick run"),
            (&["--seed", "-1"], "not `-1`"),
            (&["--seed"], "not ``"),
        ] {
            let error = call(&PROOFS, words).unwrap_err();
            assert!(error.contains(expected), "{words:?}: {error}");
        }
        assert!(call(&PROOFS, &["--output=json"]).unwrap().json);
        let error = call(&BENCHES, &["--seed", "7"]).unwrap_err();
        assert!(error.contains("unknown option"), "{error}");
    }

    #[test]
    fn chance_is_repeated_by_its_seed() {
        for words in [&["--seed", "7"][..], &["--seed=7"]] {
            assert_eq!(call(&PROOFS, words).unwrap().options.seed(), 7);
        }
        let seeds = [0; 2].map(|_| call(&PROOFS, &[]).unwrap().options.seed());
        assert_ne!(seeds[0], seeds[1], "without one it is chosen anew");
    }

    #[test]
    fn names_are_unique_and_fit_the_command_line() {
        for program in [&PROVE, &BENCH] {
            let mut names: Vec<_> = program.entries.iter().map(|entry| entry.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), program.entries.len());
            for name in names {
                assert!(
                    !name.is_empty()
                        && name
                            .chars()
                            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
                    "{name}"
                );
            }
        }
    }
}
