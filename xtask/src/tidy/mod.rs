//! What no compiler checks: the direction of dependencies, manifests, sizes, forbidden words.

mod aliases;
mod graph;
mod layer;
mod lexer;
mod manifest;
mod purity;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::arguments::Arguments;
use crate::workspace::Workspace;

/// `cargo xtask tidy`.
pub(crate) fn run(workspace: &Workspace, arguments: Arguments) -> Result<()> {
    arguments.finish()?;
    check(workspace)
}

/// Applies every rule and reports all that is wrong.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut wrong = graph::violations(workspace);
    wrong.extend(purity::violations(workspace));
    for package in &workspace.packages {
        let relative = package.directory.join("Cargo.toml");
        let text = read(&workspace.root.join(&relative))?;
        wrong.extend(manifest::violations(&relative, &text));
    }
    let files = rust_files(workspace)?;
    let backends = layer::backend_idents(workspace);
    let mut sources = Vec::new();
    for relative in &files {
        let text = read(&workspace.root.join(relative))?;
        wrong.extend(source::violations(relative, &text, &backends));
        sources.push(text);
    }
    let guide = workspace.root.join(aliases::GUIDE);
    if guide.exists() {
        let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
        wrong.extend(aliases::violations(&read(&guide)?, &sources));
    }
    if !wrong.is_empty() {
        bail!("{} problems\n  {}", wrong.len(), wrong.join("\n  "));
    }
    println!(
        "tidy: {} packages, {} files",
        workspace.packages.len(),
        files.len()
    );
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Rust files of all packages, relative to the root.
fn rust_files(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> = workspace
        .packages
        .iter()
        .map(|package| workspace.root.join(&package.directory))
        .collect();
    while let Some(directory) = open.pop() {
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("cannot list {}", directory.display()))?;
        for entry in entries {
            let path = entry.context("cannot list a directory")?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(
                    path.strip_prefix(&workspace.root)
                        .unwrap_or(&path)
                        .to_owned(),
                );
            }
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}
