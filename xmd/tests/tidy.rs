//! Rules of the house that read source text: length of files, who imports whom, what lies at the top level.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Lines a file may have.
const LINES_MAX: usize = 500;

/// Files that are longer, with the lines they have now. Entries may shrink or go; nothing joins them.
const LONGER: &[(&str, usize)] = &[];

/// The words of the flows, the same in every crate.
const FLOWS: &[&str] = &[
    "registration",
    "profile",
    "login",
    "status",
    "buddies",
    "groups",
    "chat",
    "rooms",
    "files",
    "search",
    "links",
    "manage",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// All Rust files of the project with their text, by path from the root.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in ["xmmep", "xm-store", "xm-core", "xmd", "examples", "fuzz"] {
        collect(&root().join(folder), &mut files);
    }
    assert!(files.len() > 50, "the sources are somewhere else: {} files found", files.len());
    files
}

fn collect(folder: &Path, files: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the project can be read") {
        let path = entry.expect("an entry of it can be read").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).expect("it is inside").to_string_lossy().replace('\\', "/");
            files.push((name, std::fs::read_to_string(&path).expect("a source is text")));
        }
    }
}

/// Fails with all breaches at once.
fn none(breaches: Vec<String>) {
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn files_stay_short() {
    let mut breaches = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        let max = LONGER.iter().find(|(long, _)| *long == name).map_or(LINES_MAX, |(_, lines)| *lines);
        if lines > max {
            breaches.push(format!("{name} has {lines} lines where {max} are allowed"));
        }
    }
    none(breaches);
}

#[test]
fn each_source_file_says_first_what_lives_in_it() {
    let silent = sources().into_iter().filter(|(_, text)| !text.starts_with("//!") && !text.starts_with("#!["));
    none(silent.map(|(name, _)| format!("{name} does not begin with a //! line")).collect());
}

#[test]
fn flow_files_do_not_import_each_other_nor_another_role() {
    let mut breaches = Vec::new();
    for (name, text) in sources() {
        let Some(rest) = name.strip_prefix("xm-core/src/") else { continue };
        let Some((role, file)) = rest.split_once('/') else { continue };
        let Some(flow) = file.strip_suffix(".rs").filter(|flow| FLOWS.contains(flow)) else { continue };
        for line in imports(&text) {
            for other in FLOWS.iter().filter(|other| **other != flow) {
                if line.contains(&format!("super::{other}::")) || line.contains(&format!("super::{other};")) {
                    breaches.push(format!("{name} imports the flow {other}: {line}"));
                }
            }
            for other in ["router", "presence", "register"].iter().filter(|other| **other != role) {
                if line.contains(&format!("crate::{other}::")) {
                    breaches.push(format!("{name} imports the role {other}: {line}"));
                }
            }
        }
    }
    none(breaches);
}

#[test]
fn stores_know_no_messages() {
    let stores = sources().into_iter().filter(|(name, _)| name.starts_with("xm-store/"));
    let knows = stores.filter(|(_, text)| text.contains("xmmep::messages"));
    none(knows.map(|(name, _)| format!("{name} names a message of the protocol")).collect());
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["todo!(", "unimplemented!(", "dbg!(", concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut breaches = Vec::new();
    for (name, text) in sources().into_iter().filter(|(name, _)| name != "xmd/tests/tidy.rs") {
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                breaches.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none(breaches);
}

#[test]
fn nothing_depends_on_the_daemon_the_examples_or_the_fuzzer() {
    for krate in ["xmmep", "xm-store", "xm-core"] {
        let manifest =
            std::fs::read_to_string(root().join(krate).join("Cargo.toml")).expect("each crate has a manifest");
        for leaf in ["xmd", "examples", "fuzz"] {
            assert!(!manifest.lines().any(|line| line.starts_with(leaf)), "{krate} depends on {leaf}");
        }
    }
}

#[test]
fn the_top_level_holds_what_the_architecture_says() {
    let expected = [
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "clippy.toml",
        "docs",
        "examples",
        "fuzz",
        "rustfmt.toml",
        "xm-core",
        "xm-store",
        "xmd",
        "xmmep",
    ];
    let found = std::fs::read_dir(root()).expect("the root can be read");
    let found = found.map(|entry| entry.expect("an entry can be read").file_name().to_string_lossy().into_owned());
    let found: BTreeSet<_> = found.filter(|name| !name.starts_with('.') && name != "target").collect();
    assert_eq!(found, expected.into_iter().map(str::to_owned).collect());
}

/// The `use` lines of a file.
fn imports(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| line.starts_with("use ") || line.starts_with("pub use "))
}
