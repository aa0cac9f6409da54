//! Whoever knows an old name finds the new one: each name that the guide to migrating lists is an item's own name or a
//! documentation alias.

/// The guide, relative to the root.
pub(super) const GUIDE: &str = "docs/guide/migrating.md";

/// How the table begins that lists the names.
const HEADER: &str = "| theirs | ours |";

/// What begins the rows that are about no item.
const NO_ITEMS: &[&str] = &["logger ", "metric ", "`{"];

/// Names of the guide that no source knows, given the sources of all packages.
pub(super) fn violations(guide: &str, sources: &[&str]) -> Vec<String> {
    let names = names(guide);
    if names.is_empty() {
        return vec![format!("{GUIDE}: there is no table `{HEADER}`")];
    }
    names
        .into_iter()
        .filter(|name| !sources.iter().any(|source| knows(source, name)))
        .map(|name| format!("{GUIDE}: `{name}` is neither an item nor a #[doc(alias)]"))
        .collect()
}

/// The code spans in the left column, without arguments and what stands before a name.
fn names(guide: &str) -> Vec<&str> {
    let table = guide.split_once(HEADER).map_or("", |(_, table)| table);
    let rows = table.lines().skip(2).take_while(|row| row.starts_with('|'));
    let theirs = rows.filter_map(|row| row.split('|').nth(1).map(str::trim));
    theirs
        .filter(|cell| !NO_ITEMS.iter().any(|begin| cell.starts_with(begin)))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(|code| {
            let called = code.split('(').next().unwrap_or(code);
            let name = called.rsplit([' ', '.']).next().unwrap_or(called);
            // As Python writes decorators.
            name.trim_start_matches('@')
        })
        .collect()
}

fn knows(source: &str, name: &str) -> bool {
    let begins = ["fn ", "struct ", "enum ", "trait ", "pub "];
    source.contains(&format!("doc(alias = \"{name}\")"))
        || begins.iter().any(|begin| {
            let item = format!("{begin}{name}");
            let ends = |(at, _): (usize, &str)| {
                let next = source
                    .get(at + item.len()..)
                    .and_then(|rest| rest.chars().next());
                !next.is_some_and(|next| next.is_alphanumeric() || next == '_')
            };
            source.match_indices(&item).any(ends)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
text
| theirs | ours |
|---|---|
| `get_it(name)`, `async with a.lifespan()` | `it(name)` |
| `timeout` of a breaker | `recovery_timeout` |
| `@cached` | `cached` |
| logger `old` | target `new` |

`after`
";

    #[test]
    fn names_stand_in_the_left_column() {
        assert_eq!(names(TABLE), ["get_it", "lifespan", "timeout", "cached"]);
    }

    #[test]
    fn a_name_is_an_alias_or_an_item() {
        let source = "#[doc(alias = \"get_it\")] pub fn it() {} pub async fn lifespan() {} fn cached() {} pub timeout_of: u8";
        let wrong = violations(TABLE, &[source]);
        assert_eq!(
            wrong,
            ["docs/guide/migrating.md: `timeout` is neither an item nor a #[doc(alias)]"]
        );
        assert_eq!(violations("no table", &[source]).len(), 1);
    }
}
