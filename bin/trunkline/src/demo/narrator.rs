//! What the terminal shows of the demo: the few log lines that tell the story.

use serde::Deserialize;

use super::members::Member;
use crate::output::Output;

/// The log target of lines that are meant for people.
pub(crate) const STORY: &str = "demo";

/// Prints the story.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Narrator {
    output: Output,
    /// Whether single events are shown; the scenario shows its own steps only.
    events: bool,
}

#[derive(Deserialize)]
struct Line {
    level: String,
    target: String,
    message: String,
}

impl Narrator {
    pub(crate) fn new(output: Output, events: bool) -> Self {
        Self { output, events }
    }

    /// Shows a line of a member's log if it belongs to the story or says that something is wrong.
    pub(crate) fn log_line(self, member: Member, line: &str) {
        let Ok(line) = serde_json::from_str::<Line>(line) else {
            return self.output.note(format!("{member:>13}  {line}"));
        };
        let wrong = line.level.eq_ignore_ascii_case("error");
        if self.events && (wrong || line.target == STORY) {
            let text = format!("{:>13}  {}", member.name(), line.message);
            self.output
                .note(if wrong { self.output.bad(&text) } else { text });
        }
    }

    /// Says something that the user should know.
    pub(crate) fn warn(self, text: &str) {
        self.output.warn(text);
    }
}
