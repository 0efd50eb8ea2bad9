//! What a test needs of the machine. Where it is missing the test says so, past the harness, which would hide it; a machine
//! that must have it says so in `XM_REQUIRE`, and the test fails.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether `word`, something `test` needs, is there; `missing` says what is not.
pub(crate) fn need(test: &str, word: &str, missing: Option<String>) -> bool {
    let Some(missing) = missing else { return true };
    let required = std::env::var("XM_REQUIRE").unwrap_or_default();
    assert!(!required.split([',', ' ']).any(|one| one == word), "{test} needs {word} (XM_REQUIRE): {missing}");
    let line = format!("\nNOT RUN: {test} needs {word}: {missing}\n");
    std::io::stderr().lock().write_all(line.as_bytes()).expect("the harness reads");
    false
}

/// The first of these programs that is not there.
pub(crate) fn missing_program(programs: &[&str]) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| {
        let mut folders: Vec<_> = std::env::split_paths(&path).collect();
        folders.extend(["/sbin", "/usr/sbin"].map(|folder| Path::new(folder).to_owned()));
        folders.iter().any(|folder| folder.join(program).is_file())
    };
    programs.iter().find(|program| !is_there(program)).map(|program| format!("no program {program}"))
}

/// Why this process may not mount file systems.
pub(crate) fn not_root() -> Option<String> {
    let id = Command::new("id").arg("-u").stderr(Stdio::null()).output();
    let is_root = id.is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    (!is_root).then(|| "not root".to_owned())
}

/// A number from the environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}
