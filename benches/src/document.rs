//! Documents with one section for each proof or benchmark, between markers.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// Replaces the section of `name` in the document, or adds it at the end.
pub(crate) fn write_section(path: &Path, heading: &str, name: &str, section: &str) -> Result<()> {
    let old = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("# {heading}\n"),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let new = replaced(&old, name, section).with_context(|| path.display().to_string())?;
    // Beside it first: a document is never half written.
    let beside = path.with_extension("md.new");
    let write = || -> io::Result<()> {
        let mut file = fs::File::create(&beside)?;
        file.write_all(new.as_bytes())?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("cannot write {} (run it from the root)", path.display()))
}

fn replaced(document: &str, name: &str, section: &str) -> Result<String> {
    let (begin, end) = (
        format!("<!-- begin {name} -->"),
        format!("<!-- end {name} -->"),
    );
    let body = format!("{begin}\n{}\n{end}", section.trim_end());
    match (document.split_once(&begin), document.split_once(&end)) {
        (None, None) => Ok(format!("{}\n\n{body}\n", document.trim_end())),
        (Some((before, rest)), Some(_)) => {
            let Some((_, after)) = rest.split_once(&end) else {
                bail!("`{end}` stands before `{begin}`");
            };
            if after.contains(&begin) {
                bail!("`{begin}` stands there twice");
            }
            Ok(format!("{before}{body}{after}"))
        }
        (Some(_), None) => bail!("`{begin}` has no `{end}`"),
        (None, Some(_)) => bail!("`{end}` has no `{begin}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_is_replaced_and_the_rest_stays() {
        let old = "# Proofs\n\nby hand\n\n<!-- begin a -->\nold\n<!-- end a -->\n\n<!-- begin ab -->\nb\n<!-- end ab -->\n";
        let new = replaced(old, "a", "new\n").unwrap();
        assert_eq!(new, old.replace("old", "new"));
        assert_eq!(
            replaced(&new, "a", "new\n").unwrap(),
            new,
            "writing twice changes nothing"
        );
    }

    #[test]
    fn new_section_goes_to_the_end() {
        assert_eq!(
            replaced("# Proofs\n", "a", "text").unwrap(),
            "# Proofs\n\n<!-- begin a -->\ntext\n<!-- end a -->\n"
        );
    }

    #[test]
    fn broken_markers_are_refused() {
        for bad in [
            "<!-- begin a -->",
            "<!-- end a -->",
            "<!-- end a --> <!-- begin a -->",
            "<!-- begin a --><!-- end a --><!-- begin a --><!-- end a -->",
        ] {
            assert!(replaced(bad, "a", "text").is_err(), "{bad}");
        }
    }

    #[test]
    fn document_is_created_with_its_heading() {
        let directory =
            std::env::temp_dir().join(format!("trunkline-document-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("proof.md");
        write_section(&path, "Proofs", "a", "one").unwrap();
        write_section(&path, "Proofs", "a", "two").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let left = fs::read_dir(&directory).unwrap().count();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(text, "# Proofs\n\n<!-- begin a -->\ntwo\n<!-- end a -->\n");
        assert_eq!(left, 1, "only the document");
    }
}
