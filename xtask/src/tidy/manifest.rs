//! Rules about `Cargo.toml`.

use std::path::Path;

/// What is wrong with the manifest of a package.
pub(super) fn violations(path: &Path, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut say = |message: String| wrong.push(format!("{}: {message}", path.display()));
    let mut section = "";
    let mut inherits_lints = false;
    // Inside a list that spans lines, a line is no new entry.
    let mut open_brackets = 0_usize;
    for line in text.lines().map(without_comment) {
        let continues = open_brackets > 0;
        let header = line.starts_with('[') && !continues;
        open_brackets = (open_brackets + line.matches(['[', '{']).count())
            .saturating_sub(line.matches([']', '}']).count());
        if header {
            section = line.trim_start_matches('[').trim_end_matches(']');
            if let Some(name) = single_dependency(section) {
                say(format!(
                    "write `{name}` as one line of its section, with `workspace = true`"
                ));
            }
            continue;
        }
        let entry = line
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()));
        let Some((key, value)) = entry.filter(|_| !continues) else {
            continue;
        };
        if section == "lints" && key == "workspace" && value == "true" {
            inherits_lints = true;
        }
        let inherited = key.ends_with(".workspace") || value.contains("workspace = true");
        if section.ends_with("dependencies") && !inherited {
            say(format!(
                "`{key}` must say `workspace = true`: versions live in the root only"
            ));
        }
    }
    if !inherits_lints {
        say("lacks `[lints]` with `workspace = true`".to_owned());
    }
    wrong
}

/// `name` of `[dependencies.name]`.
fn single_dependency(section: &str) -> Option<&str> {
    let (table, name) = section.rsplit_once('.')?;
    table.ends_with("dependencies").then_some(name)
}

fn without_comment(line: &str) -> &str {
    // A `#` inside a string would need a parser; manifests of this workspace have none.
    line.split('#').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[package]
name = "x"          # a comment
version.workspace = true

[lints]
workspace = true

[dependencies]
serde.workspace = true
tokio = { workspace = true, features = [
    "rt",
    "time",
] }

[target.'cfg(loom)'.dev-dependencies]
loom.workspace = true

[features]
default = ["a"]
"#;

    fn check(text: &str) -> Vec<String> {
        violations(Path::new("crates/x/Cargo.toml"), text)
    }

    #[test]
    fn good_manifest_passes() {
        assert_eq!(check(GOOD), [""; 0]);
    }

    #[test]
    fn lints_must_be_inherited() {
        for bad in ["", "# ", "[lints.rust]\nunsafe_code = \"allow\"\n"] {
            let text = GOOD.replace("[lints]\nworkspace = true\n", bad);
            let wrong = check(&text);
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            assert!(wrong[0].contains("[lints]"), "{wrong:?}");
        }
    }

    #[test]
    fn versions_live_in_the_root() {
        for (section, bad) in [
            ("[dependencies]", "serde = \"1\""),
            ("[dependencies]", "x = { path = \"../x\" }"),
            (
                "[target.'cfg(loom)'.dev-dependencies]",
                "loom = { version = \"0.7\" }",
            ),
        ] {
            let wrong = check(&GOOD.replace(section, &format!("{section}\n{bad}")));
            assert_eq!(wrong.len(), 1, "{bad}: {wrong:?}");
            assert!(wrong[0].contains("versions live in the root"), "{wrong:?}");
        }
    }

    #[test]
    fn dependency_as_a_section_is_refused() {
        let wrong = check(&format!("{GOOD}\n[dependencies.serde]\nversion = \"1\"\n"));
        assert!(wrong[0].contains("`serde`"), "{wrong:?}");
    }
}
