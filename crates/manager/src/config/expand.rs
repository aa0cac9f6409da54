//! `${VARIABLE:default}` in values.
//!
//! The first `:` splits. A variable that is not set, or empty, takes the default; without one that is an error. `$${`
//! is a literal `${`. What was put in is not expanded again, and is typed by the schema like plain text.

use super::diagnostics::{Diagnostic, Diagnostics};
use super::place::Place;
use super::source::env::{Environment, is_service_link};
use super::tree::{Node, Scalar, ScalarKind, Value};

/// Expands every value of a tree.
pub(crate) fn expand(node: &mut Node, environment: &Environment, problems: &mut Diagnostics) {
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(scalar) => {
            if scalar.text.contains("${")
                && let Some(expanded) = text(scalar, &node.place, environment, problems)
            {
                *scalar = expanded;
            }
        }
        Value::List(items) => {
            for item in items {
                expand(item, environment, problems);
            }
        }
        Value::Table(table) => {
            for entry in table.entries.values_mut() {
                expand(&mut entry.node, environment, problems);
            }
        }
    }
}

fn text(
    scalar: &Scalar,
    place: &Place,
    environment: &Environment,
    problems: &mut Diagnostics,
) -> Option<Scalar> {
    let mut out = String::new();
    let mut rest = scalar.text.as_str();
    let mut kind = scalar.kind;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            out.push_str(literal);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some((inside, tail)) = after.split_once('}') else {
            let problem = Diagnostic::error(place, "`}` is missing after `${`");
            problems.push(problem.allow("${VARIABLE}, ${VARIABLE:default}, $${ for a literal ${"));
            return None;
        };
        let (name, default) = match inside.split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        out.push_str(&variable(name, default, place, environment, problems)?);
        kind = ScalarKind::Plain;
        rest = tail;
    }
    out.push_str(rest);
    Some(Scalar::new(out, kind))
}

fn variable(
    name: &str,
    default: Option<&str>,
    place: &Place,
    environment: &Environment,
    problems: &mut Diagnostics,
) -> Option<String> {
    let mut letters = name.chars();
    let begins = letters
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !begins || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        let problem = Diagnostic::error(place, "`${` is not followed by the name of a variable");
        problems.push(problem.allow("${VARIABLE}, ${VARIABLE:default}, $${ for a literal ${"));
        return None;
    }
    if default.is_some_and(|default| default.contains("${")) {
        let problem = Diagnostic::error(
            place,
            format!("the default of `${{{name}:…}}` holds another `${{`"),
        );
        problems.push(problem.allow("a plain text as default"));
        return None;
    }
    let mut value = environment.get(name).filter(|value| !value.is_empty());
    if value.is_some_and(|value| is_service_link(name, value)) {
        let warning = format!("the variable {name} is a service link of Kubernetes and is ignored");
        problems.push(Diagnostic::warning(place, warning));
        value = None;
    }
    match value.or(default) {
        Some(value) => Some(value.to_owned()),
        None => {
            let problem = Diagnostic::error(
                place,
                format!("the variable {name} is not set and has no default"),
            );
            problems.push(problem.allow(format!("set {name}, or write ${{{name}:default}}")));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let mut node = Node::scalar(text, ScalarKind::Text, Place::code());
        let environment = Environment::from_pairs(variables.iter().copied());
        let mut problems = Diagnostics::default();
        expand(&mut node, &environment, &mut problems);
        if problems.has_errors() {
            return Err(problems.to_string());
        }
        Ok(node.as_text().unwrap().to_owned())
    }

    #[test]
    fn x_18_first_colon_splits_and_empty_takes_the_default() {
        assert_eq!(expanded("${A:b:c}", &[]).unwrap(), "b:c");
        assert_eq!(expanded("${A:b}", &[("A", "")]).unwrap(), "b");
        assert_eq!(expanded("${A:b}", &[("A", "x")]).unwrap(), "x");
        assert_eq!(expanded("${A:}", &[]).unwrap(), "");
        assert_eq!(
            expanded("a ${A} b ${B:2}", &[("A", "1")]).unwrap(),
            "a 1 b 2"
        );
    }

    #[test]
    fn x_18_unset_without_default_is_an_error() {
        let error = expanded("${A}", &[]).unwrap_err();
        assert!(error.contains("A is not set"), "{error}");
        for bad in ["${", "${A", "${}", "${1}", "${A B}", "${A:${B:c}}"] {
            assert!(expanded(bad, &[("A", "x")]).is_err(), "{bad}");
        }
    }

    #[test]
    fn x_18_a_doubled_dollar_is_literal_and_nothing_is_expanded_twice() {
        assert_eq!(expanded("$${A}", &[("A", "x")]).unwrap(), "${A}");
        assert_eq!(
            expanded("${A}", &[("A", "${B}"), ("B", "y")]).unwrap(),
            "${B}"
        );
        assert_eq!(expanded("cost: $5", &[]).unwrap(), "cost: $5");
    }

    #[test]
    fn a_kubernetes_service_link_counts_as_not_set() {
        let link = [("USER_SERVICE_PORT", "tcp://10.0.0.1:80")];
        assert_eq!(
            expanded("${USER_SERVICE_PORT:8001}", &link).unwrap(),
            "8001"
        );
    }
}
