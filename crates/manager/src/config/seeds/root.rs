//! The two roots of a file: the key `communication`, and the file itself.

use super::{ROOT, Schemas, says_the_same, words};
use crate::config::diagnostics::{Diagnostic, Diagnostics, closest};
use crate::config::tree::{Node, Value};

const COMMUNICATION: &str = "communication";

/// Lifts what is under `communication` to the root. What else is at the root of the file may belong to the
/// application; only what looks like one of our sections is an error.
pub(super) fn unwrap(mut tree: Node, problems: &mut Diagnostics) -> Node {
    let Value::Table(table) = &mut tree.value else {
        return tree;
    };
    let communication = table.take(COMMUNICATION);
    let section = Schemas::of_build().root();
    let known: Vec<&str> = section.keys().chain(words::of_section(ROOT)).collect();
    table.entries.retain(|key, entry| {
        let is_known = known.contains(&key.as_str())
            || words::unserved(ROOT, key).is_some()
            || words::left_out(key).is_some()
            || (key == "telemetry"
                && entry
                    .node
                    .as_table()
                    .is_some_and(|t| t.get("install").is_some()));
        if is_known || key == "$schema" || problems.is_full() {
            return is_known;
        }
        let meant = closest(key, known.iter().copied().chain([COMMUNICATION]));
        problems.push(match meant {
            Some(_) => Diagnostic::error(&entry.key, "unknown section").suggest(meant),
            None => Diagnostic::warning(&entry.key, "the section is not known here and is ignored"),
        });
        false
    });
    let Some(communication) = communication else {
        return tree;
    };
    match communication.node.value {
        Value::Null => {}
        Value::Table(inner) => {
            for (key, mut entry) in inner.entries {
                entry.key.set_key(&key);
                entry.node.set_keys(&key);
                match table.entries.get(&key) {
                    Some(first) => problems.push(says_the_same(&entry.key, &first.key)),
                    None => {
                        table.entries.insert(key, entry);
                    }
                }
            }
        }
        Value::Scalar(_) | Value::List(_) => {
            let what = communication.node.what();
            let problem = Diagnostic::error(&communication.node.place, format!("it is {what}"));
            problems.push(problem.allow("sections with keys"));
        }
    }
    tree
}
