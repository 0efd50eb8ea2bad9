//! How many instructions the hot paths take, against what they took when `instructions.txt` was written.
//!
//! `.ci/instructions` runs this; `.ci/instructions text` only the paths with that word in their name. Time on a machine that
//! others use varies by half, instructions by less than one in a hundred, so a change of [`TOLERANCE`] is seen. Each path
//! runs alone under callgrind, which counts inside [`counted`] only; the profile stays for `callgrind_annotate`.
//!
//! Not gungraun: its runner is one more program to install, in the version of its library, and its baselines are files in
//! `target/`, where a change and its figures cannot be reviewed together. What is needed of it is this file.
//!
//! Counts differ where the compiler, the processor or the C library does (`malloc` and `memcpy` are a tenth of a text). The
//! first line of the baseline names all three; with others there is nothing to compare, and nothing is judged. Of the
//! processor only AVX2 matters: the cryptography asks for it at run time, and valgrind shows every x86 processor that has
//! it as the same one, without AVX-512. Seeds of hash tables are random; they have not moved a count by one in a thousand.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a check prints")]

#[path = "../common/mod.rs"]
mod common;
mod paths;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use paths::{PATHS, Path};

/// How much more or less than its baseline a path may take.
const TOLERANCE: f64 = 0.03;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

type Counts = BTreeMap<String, u64>;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [flag, name] = &words[..]
        && flag == "--count"
    {
        let path = PATHS.iter().find(|path| path.name == name).expect("one of the table");
        counted(&mut *(path.prepare)(path.operations));
        println!("{}", processor());
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<_> = PATHS.iter().filter(|path| words.iter().all(|word| path.name.contains(word))).collect();
    if wanted.is_empty() {
        let names: Vec<_> = PATHS.iter().map(|path| path.name).collect();
        eprintln!("no path has {words:?} in its name; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    check(&wanted).unwrap_or_else(|why| {
        eprintln!("{why}");
        ExitCode::FAILURE
    })
}

/// What callgrind counts. It switches at the beginning and the end of the function with this name.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    // Without anything behind it the call would be a jump, and the end of the function be missed.
    black_box(());
}

fn check(wanted: &[&Path]) -> Result<ExitCode, String> {
    let mut counts = Counts::new();
    let mut processor = String::new();
    for path in wanted {
        let (count, runs_on) = count(path)?;
        counts.insert(path.name.to_owned(), count / path.operations as u64);
        processor = runs_on;
    }
    let conditions = format!(
        "# {}, {processor}, {}: instructions per operation, by .ci/instructions",
        says("rustc", "-V")?,
        says("getconf", "GNU_LIBC_VERSION")?,
    );
    let baseline = std::fs::read_to_string(BASELINE).unwrap_or_default();
    if std::env::var_os("XM_BLESS").is_some_and(|value| value != "0") {
        return bless(&conditions, &counts, wanted.len() == PATHS.len());
    }
    let (before, then) = read(&baseline)?;
    let (table, changed) = compare(wanted, &before, &counts);
    print!("{table}");
    if then != conditions {
        println!("not judged: the baseline was counted under other conditions\n  {then}\n  {conditions}");
        return Ok(ExitCode::SUCCESS);
    }
    if changed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let changed = changed.join("\n");
    Err(format!(
        "{changed}\nIf that is what you want, `XM_BLESS=1 .ci/instructions` writes the new counts to {BASELINE}."
    ))
}

fn bless(conditions: &str, counts: &Counts, all: bool) -> Result<ExitCode, String> {
    if !all {
        return Err("all paths are blessed together: leave out the word".to_owned());
    }
    let mut text = format!("{conditions}\n");
    for path in PATHS {
        writeln!(text, "{:<32} {:>9}", path.name, counts[path.name]).expect("a string takes everything");
    }
    std::fs::write(BASELINE, &text).map_err(|error| format!("{BASELINE}: {error}"))?;
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// The counts of a baseline, and its first line.
fn read(baseline: &str) -> Result<(Counts, &str), String> {
    let mut lines = baseline.lines();
    let conditions = lines.next().unwrap_or_default();
    let count = |line: &str| {
        let (name, count) = line.split_once(' ').ok_or_else(|| format!("{BASELINE}: {line:?} is no count"))?;
        let count = count.trim().parse().map_err(|error| format!("{BASELINE}: {line:?}: {error}"))?;
        Ok((name.to_owned(), count))
    };
    Ok((lines.map(count).collect::<Result<_, String>>()?, conditions))
}

/// A table, and what has changed too much.
fn compare(wanted: &[&Path], before: &Counts, now: &Counts) -> (String, Vec<String>) {
    let mut table = format!("{:<32} {:>9} {:>9}  change\n", "instructions per operation", "baseline", "now");
    let mut changed = Vec::new();
    for name in wanted.iter().map(|path| path.name) {
        let now = now[name];
        let Some(before) = before.get(name) else {
            writeln!(table, "{name:<32} {:>9} {now:>9}", "-").expect("a string takes everything");
            changed.push(format!("{name} has no baseline"));
            continue;
        };
        let change = now as f64 / *before as f64 - 1.0;
        writeln!(table, "{name:<32} {before:>9} {now:>9} {:>+6.1} %", change * 100.0)
            .expect("a string takes everything");
        if change.abs() > TOLERANCE {
            let how = if change > 0.0 { "worse" } else { "better" };
            let percent = change.abs() * 100.0;
            changed.push(format!("{name} got {percent:.1} % {how}: {now} instructions, the baseline is {before}"));
        }
    }
    let gone = before.keys().filter(|name| PATHS.iter().all(|path| path.name != **name));
    changed.extend(gone.map(|name| format!("{name} has a baseline and is not counted any more")));
    (table, changed)
}

/// Instructions of all operations of a path, and the processor they were counted on.
fn count(path: &Path) -> Result<(u64, String), String> {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("instructions");
    std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let profile = directory.join(format!("{}.callgrind", path.name));
    let program = std::env::current_exe().map_err(|error| format!("the path of this program: {error}"))?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--toggle-collect=instructions::counted*", "--error-exitcode=99"]);
    valgrind.arg(format!("--callgrind-out-file={}", profile.display())).arg(program).args(["--count", path.name]);
    // The environment lies on the stack and moves what follows.
    valgrind.env_clear().envs(std::env::var_os("PATH").map(|value| ("PATH", value)));
    let output = valgrind.output().map_err(|error| format!("valgrind: {error}; .ci/install installs it"))?;
    if !output.status.success() {
        return Err(format!("{}: {}\n{}", path.name, output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let profile = std::fs::read_to_string(&profile).map_err(|error| format!("{}: {error}", profile.display()))?;
    let totals = profile.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    let total = totals.filter(|total| *total > 0).ok_or_else(|| format!("{}: nothing was counted", path.name))?;
    Ok((total, String::from_utf8_lossy(&output.stdout).trim().to_owned()))
}

/// What a program says of itself.
fn says(program: &str, about: &str) -> Result<String, String> {
    let output = Command::new(program).arg(about).output().map_err(|error| format!("{program}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What the cryptography chooses its code by.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let avx2 = if std::arch::is_x86_feature_detected!("avx2") { " with AVX2" } else { " without AVX2" };
    #[cfg(not(target_arch = "x86_64"))]
    let avx2 = "";
    format!("{}{avx2}", std::env::consts::ARCH)
}
