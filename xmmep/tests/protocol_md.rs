//! `docs/PROTOCOL.md` and the code say the same: tables, limits and worked examples stand between markers and are
//! generated here. `XM_BLESS=1` writes them. The rest of the page is prose; its numbered statements are checked for form.

mod common;
#[path = "protocol_md/tables.rs"]
mod tables;
#[path = "protocol_md/traced.rs"]
mod traced;
#[path = "protocol_md/worked.rs"]
mod worked;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use common::{Bless, bless};

/// Sections are written by parallel tests.
static WRITING: Mutex<()> = Mutex::new(());

fn page_file() -> PathBuf {
    common::path("../docs/PROTOCOL.md")
}

/// The page, while nobody writes it.
fn page() -> String {
    let _guard = WRITING.lock().expect("no test panics while it writes");
    read()
}

fn read() -> String {
    fs::read_to_string(page_file()).expect("docs/PROTOCOL.md")
}

/// Compares the section between the markers of `name` with `text`, or writes it.
fn section(name: &str, text: &str) {
    let guard = WRITING.lock().expect("no test panics while it writes");
    let page = read();
    let begin = format!("<!-- generated: {name} -->\n");
    let (head, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("docs/PROTOCOL.md has no marker {begin:?}"));
    let end = "<!-- end -->";
    let at = rest.find(end).unwrap_or_else(|| panic!("docs/PROTOCOL.md: section {name} has no {end}"));
    let (found, tail) = rest.split_at(at);
    let wanted = format!("\n{}\n\n", text.trim());
    let differs = found != wanted;
    if differs && bless() != Bless::No {
        fs::write(page_file(), format!("{head}{begin}{wanted}{tail}")).expect("docs/PROTOCOL.md can be written");
        return;
    }
    drop(guard);
    let line = found.lines().zip(wanted.lines()).position(|(a, b)| a != b).unwrap_or(0);
    let (was, is) = (found.lines().nth(line).unwrap_or_default(), wanted.lines().nth(line).unwrap_or_default());
    assert!(
        !differs,
        "docs/PROTOCOL.md, section {name}, line {line}: {was:?}, but the code says {is:?}; XM_BLESS=1 renews it"
    );
}

#[test]
fn the_page_lists_every_type() {
    section("types", &tables::types());
}

#[test]
fn the_page_states_every_limit() {
    section("limits", &tables::limits());
}

#[test]
fn the_page_describes_every_message_with_every_field() {
    section("messages", &tables::messages());
}

#[test]
fn the_page_describes_every_record() {
    section("records", &tables::records());
}

#[test]
fn the_page_names_every_value_of_every_open_integer() {
    section("enums", &tables::enums());
}

#[test]
fn the_page_names_every_reason_to_close_a_session() {
    section("close-reasons", &tables::close_reasons());
}

#[test]
fn the_page_lists_every_code_with_its_vector() {
    section("index", &tables::index());
}

#[test]
fn a_client_written_from_the_page_opens_a_session_and_is_understood() {
    section("example-open", &worked::open());
}

#[test]
fn a_client_written_from_the_page_looks_a_user_up() {
    section("example-lookup", &worked::lookup());
}

#[test]
fn the_login_key_of_the_page_is_the_one_we_derive() {
    section("example-login-key", &worked::login_key());
}

#[test]
fn the_server_address_of_the_page_is_right() {
    section("example-address", &worked::address());
}

#[test]
fn the_frame_of_the_page_is_what_we_send() {
    section("example-frame", &worked::frame());
}

#[test]
fn every_must_has_a_number_and_numbers_run_from_one_without_a_gap() {
    let page = page();
    let (_, statements) = page.split_once("\n## 1 ").expect("section 1");
    let mut expected = 1;
    for paragraph in statements.split("\n\n").flat_map(|block| block.split("\n- ")) {
        let ids = paragraph.match_indices("[P").filter_map(|(at, _)| {
            let digits = paragraph[at + 2..].split(']').next()?;
            digits.parse::<u32>().ok()
        });
        let mut count = 0;
        for id in ids {
            assert_eq!(id, expected, "in {paragraph:?}");
            expected += 1;
            count += 1;
        }
        let musts = paragraph.matches("MUST").count();
        assert!(musts == 0 || count > 0, "a MUST without a number: {paragraph:?}");
    }
    assert!(expected > 40, "only {} numbered statements", expected - 1);
}

/// Adds the names of all functions in the Rust files under `folder`.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let source = fs::read_to_string(&path).expect("a readable file");
            let named = source.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
            names.extend(named.map(str::to_owned));
        }
    }
}

#[test]
fn every_numbered_statement_is_held_by_tests_that_exist() {
    let mut names = BTreeSet::new();
    for folder in ["src", "tests", "../xm-core/src", "../xm-core/tests"] {
        functions(&common::path(folder), &mut names);
    }
    let mut numbers: Vec<u32> = traced::TRACED.iter().map(|(number, _)| *number).collect();
    numbers.sort_unstable();
    let (page, count) = (page(), numbers.len());
    assert_eq!(numbers, (1..=count as u32).collect::<Vec<_>>(), "each statement once");
    assert!(page.contains(&format!("[P{count}]")) && !page.contains(&format!("[P{}]", count + 1)), "all statements");
    for (number, tests) in traced::TRACED {
        assert!(!tests.is_empty(), "P{number} has no test");
        for test in *tests {
            assert!(names.contains(*test), "P{number}: there is no test {test}");
        }
    }
}

#[test]
fn every_section_between_markers_has_a_test() {
    let names = ["types", "limits", "messages", "records", "enums", "index", "close-reasons"];
    let examples = ["example-open", "example-lookup", "example-login-key", "example-address", "example-frame"];
    for (_, rest) in
        page().match_indices("<!-- generated: ").map(|(at, text)| (at, page()[at + text.len()..].to_owned()))
    {
        let name = rest.split(' ').next().unwrap_or_default().to_owned();
        assert!(names.contains(&&*name) || examples.contains(&&*name), "nobody generates {name}");
    }
}
