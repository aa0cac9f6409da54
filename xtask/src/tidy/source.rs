//! Rules about Rust files.

use std::path::Path;

use super::lexer::code_only;

/// Lines a file may have, inline tests not counted.
const LONGEST: usize = 800;

/// What is wrong with a file. `backends` are the crate names of backends in code.
pub(super) fn violations(path: &Path, text: &str, backends: &[String]) -> Vec<String> {
    let code = code_only(text);
    let mut found = unfinished(&code);
    if !path.iter().any(|part| part == "tests") {
        found.extend(features_in_bodies(&code));
    }
    if reads_environment_unasked(path) {
        found.extend(environment(&code));
    }
    if is_manager_file_without_backends(path) {
        found.extend(backend_names(&code, backends));
    }
    let mut wrong: Vec<String> = found
        .into_iter()
        .map(|(line, message)| format!("{}:{line}: {message}", path.display()))
        .collect();
    let length = length(text);
    if length > LONGEST {
        let path = path.display();
        wrong.push(format!(
            "{path}: {length} lines without inline tests, {LONGEST} allowed: split it"
        ));
    }
    wrong
}

type Found = Vec<(usize, String)>;

/// `todo!` and `unimplemented!`.
fn unfinished(code: &str) -> Found {
    let mut found = Found::new();
    for (number, line) in code.lines().enumerate() {
        for word in ["todo!", "unimplemented!"] {
            if contains_word(line, word) {
                found.push((number + 1, format!("`{word}`: what is not built is absent")));
            }
        }
    }
    found
}

/// Reading of the environment in a library that must not.
fn environment(code: &str) -> Found {
    let mut found = Found::new();
    for (number, line) in code.lines().enumerate() {
        for word in ["env::var", "env::var_os", "env::vars", "env::vars_os"] {
            if contains_word(line, word) {
                let message =
                    format!("`{word}`: of the libraries only the manager reads the environment");
                found.push((number + 1, message));
            }
        }
    }
    found
}

fn reads_environment_unasked(path: &Path) -> bool {
    let mut parts = path.iter().filter_map(|part| part.to_str());
    let (top, name, kind) = (parts.next(), parts.next(), parts.next());
    matches!(top, Some("crates" | "backends"))
        && !matches!(name, Some("manager" | "testing"))
        && kind == Some("src")
}

fn is_manager_file_without_backends(path: &Path) -> bool {
    path.starts_with("crates/manager/src")
        && path != Path::new("crates/manager/src/backends.rs")
        && !path.starts_with("crates/manager/src/backends")
}

fn backend_names(code: &str, backends: &[String]) -> Found {
    let mut found = Found::new();
    for (number, line) in code.lines().enumerate() {
        for backend in backends {
            if contains_word(line, backend) {
                let message = format!("`{backend}`: only backends.rs names the crates of backends");
                found.push((number + 1, message));
            }
        }
    }
    found
}

/// Whether `word` stands in the line and is not part of a longer name.
fn contains_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line
            .get(at + word.len()..)
            .and_then(|text| text.chars().next());
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

/// `#[cfg(feature …)]` inside functions: gate modules instead. Fields of a struct literal and arms of a
/// `match` may be gated, since the field or the variant may be; `cfg!(…)` is a value, and what it
/// chooses from is compiled in any case.
fn features_in_bodies(code: &str) -> Found {
    let letters: Vec<char> = code.chars().collect();
    let mut bodies = Bodies::default();
    let mut found = Found::new();
    let mut line = 1;
    for (at, letter) in letters.iter().enumerate() {
        let rest = letters.get(at..).unwrap_or_default();
        if bodies.inside() && is_feature_gate(rest) {
            found.push((
                line,
                "feature gate inside a function: gate a module".to_owned(),
            ));
        }
        let before = at.checked_sub(1).and_then(|i| letters.get(i)).copied();
        bodies.see(before, rest);
        line += usize::from(*letter == '\n');
    }
    found
}

fn is_feature_gate(rest: &[char]) -> bool {
    let starts = |text: &str| text.chars().eq(rest.iter().copied().take(text.len()));
    if !starts("#[cfg(") && !starts("#[cfg_attr(") {
        return false;
    }
    let Some(open) = rest.iter().position(|c| *c == '(') else {
        return false;
    };
    let condition = rest.get(open..).map(until_closed).unwrap_or_default();
    let gate: String = condition.iter().collect();
    let behind = rest.get(open + condition.len()..).unwrap_or_default();
    contains_word(&gate, "feature") && !is_field_or_arm(behind)
}

/// From an opening bracket to the one that closes it.
fn until_closed(rest: &[char]) -> &[char] {
    let mut depth = 0_usize;
    for (at, c) in rest.iter().enumerate() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return rest.get(..=at).unwrap_or_default();
        }
    }
    rest
}

/// Whether the code behind `#[cfg(…)` is a field of a struct literal or an arm of a `match`.
fn is_field_or_arm(behind: &[char]) -> bool {
    let text: String = behind.iter().collect();
    let Some(text) = text.strip_prefix(']').map(str::trim_start) else {
        return false;
    };
    let after_name = text
        .trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
        .trim_start();
    let named = after_name.len() < text.trim_start().len();
    let is_field = named
        && (after_name.starts_with(',')
            || (after_name.starts_with(':') && !after_name.starts_with("::")));
    is_field || is_arm(text)
}

/// Whether `=>` comes before the code's statement or block ends.
fn is_arm(text: &str) -> bool {
    let mut depth = 0_usize;
    let mut previous = ' ';
    for c in text.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return false,
            ')' | ']' | '}' => depth -= 1,
            ';' if depth == 0 => return false,
            '>' if depth == 0 && previous == '=' => return true,
            _ => {}
        }
        previous = c;
    }
    false
}

/// Follows braces to know when a position lies in the body of a function.
#[derive(Default)]
struct Bodies {
    braces: usize,
    brackets: usize,
    /// Depth of brackets at a `fn name` whose body has not begun.
    signature: Option<usize>,
    /// Depths of braces at which bodies began.
    open: Vec<usize>,
}

impl Bodies {
    fn inside(&self) -> bool {
        !self.open.is_empty()
    }

    fn see(&mut self, before: Option<char>, rest: &[char]) {
        match rest.first() {
            Some('(' | '[') => self.brackets += 1,
            Some(')' | ']') => self.brackets = self.brackets.saturating_sub(1),
            Some('{') => {
                if self.signature == Some(self.brackets) {
                    self.signature = None;
                    self.open.push(self.braces);
                }
                self.braces += 1;
            }
            Some('}') => {
                self.braces = self.braces.saturating_sub(1);
                if self.open.last() == Some(&self.braces) {
                    self.open.pop();
                }
            }
            Some(';') if self.signature == Some(self.brackets) => self.signature = None,
            Some('f') if is_function(before, rest) => self.signature = Some(self.brackets),
            _ => {}
        }
    }
}

/// `fn name`; a function pointer `fn(` has no name and no body.
fn is_function(before: Option<char>, rest: &[char]) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    !before.is_some_and(part)
        && rest.get(1) == Some(&'n')
        && rest.get(2).is_some_and(|c| c.is_whitespace())
        && rest
            .iter()
            .skip(2)
            .find(|c| !c.is_whitespace())
            .is_some_and(|c| part(*c))
}

/// Lines of a file up to its inline test module.
fn length(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .windows(2)
        .position(|pair| match pair {
            [attribute, module] => {
                attribute.trim() == "#[cfg(test)]"
                    && module.starts_with("mod ")
                    && module.ends_with('{')
            }
            _ => false,
        })
        .unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str) -> Vec<String> {
        violations(Path::new(path), text, &["trunkline_sqlite".to_owned()])
    }

    #[track_caller]
    fn refused(path: &str, text: &str, expected: &str) {
        let wrong = check(path, text);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].contains(expected), "{wrong:?}");
    }

    #[track_caller]
    fn fine(path: &str, text: &str) {
        assert_eq!(check(path, text), [""; 0]);
    }

    #[test]
    fn unfinished_code_is_refused() {
        refused(
            "crates/x/src/lib.rs",
            "fn f() {\n    todo!()\n}",
            "lib.rs:2: `todo!`",
        );
        refused(
            "xtask/src/main.rs",
            "fn f() { unimplemented!(\"later\") }",
            "`unimplemented!`",
        );
        fine(
            "crates/x/src/lib.rs",
            "/// Never write todo!() here.\nconst A: &str = \"todo!\";",
        );
        fine("crates/x/src/lib.rs", "fn f() { my_todo!() }");
    }

    #[test]
    fn feature_gates_in_functions_are_refused() {
        for gate in [
            "#[cfg(feature = \"a\")]",
            "#[cfg(all(unix, feature = \"a\"))]",
        ] {
            let text = format!(
                "impl X {{\n    fn f(&self) -> [u8; 2] {{\n        {gate}\n        g();\n    }}\n}}"
            );
            refused("crates/x/src/lib.rs", &text, "lib.rs:3: feature gate");
        }
        fine(
            "crates/x/tests/it/main.rs",
            "fn f() {\n    #[cfg(feature = \"a\")]\n    g();\n}",
        );
    }

    #[test]
    fn feature_gates_on_items_are_fine() {
        for text in [
            "#[cfg(feature = \"a\")]\nmod a;\n",
            "fn f() {}\n#[cfg(feature = \"a\")]\nfn g() {}\n",
            "trait T {\n    fn f(&self);\n    #[cfg(feature = \"a\")]\n    fn g(&self);\n}\n",
            "struct S { call: fn(u8) -> u8,\n #[cfg(feature = \"a\")]\n more: u8 }",
            "fn f(x: [u8; 3]) { g(); }\nimpl S {\n    #[cfg(feature = \"a\")]\n    fn h() {}\n}",
            "fn f() -> S {\n    S {\n        #[cfg(feature = \"a\")]\n        more: 8,\n    }\n}",
            "fn f(more: u8) -> S {\n    S { #[cfg(feature = \"a\")] more, less: 1 }\n}",
            "fn f(x: X) {\n    match x {\n        #[cfg(feature = \"a\")]\n        X::A { b, .. } => g(b),\n        _ => h(),\n    }\n}",
            "fn f() -> bool { cfg!(feature = \"a\") }",
            "fn f() { #[cfg(test)] g(); #[cfg(target_os = \"linux\")] h(); }",
        ] {
            fine("crates/x/src/lib.rs", text);
        }
    }

    #[test]
    fn only_the_manager_reads_the_environment() {
        let text = "fn f() { std::env::var_os(\"X\"); }";
        refused("crates/http/src/lib.rs", text, "`env::var_os`");
        refused("backends/sqlite/src/lib.rs", text, "`env::var_os`");
        for path in [
            "crates/manager/src/a.rs",
            "crates/testing/src/a.rs",
            "bin/trunkline/src/main.rs",
            "crates/http/tests/it/main.rs",
        ] {
            fine(path, text);
        }
    }

    #[test]
    fn only_backends_rs_names_backends() {
        let text = "use trunkline_sqlite::Directory;";
        refused("crates/manager/src/manager.rs", text, "only backends.rs");
        fine("crates/manager/src/backends.rs", text);
        fine("crates/manager/src/backends/sqlite.rs", text);
        fine("crates/trunkline/src/lib.rs", text);
        fine(
            "crates/manager/src/manager.rs",
            "// trunkline_sqlite\nmod trunkline_sqlite_like;",
        );
    }

    #[test]
    fn long_file_is_refused_but_inline_tests_do_not_count() {
        let lines = "// line\n".repeat(LONGEST);
        fine("crates/x/src/lib.rs", &lines);
        refused(
            "crates/x/src/lib.rs",
            &format!("{lines}// one more\n"),
            "split it",
        );
        let tests = format!("#[cfg(test)]\nmod tests {{\n{lines}}}\n");
        fine("crates/x/src/lib.rs", &format!("{lines}{tests}"));
    }
}
