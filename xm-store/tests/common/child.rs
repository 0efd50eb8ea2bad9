//! A process of a test's own: says on standard output what it was answered, to be killed, starved or cut off.
//!
//! A test starts its own executable again as the victim: the test `victim::victim` of the same file. It writes each answer
//! *after* it got it.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Set for the victim: the directory of its store.
const DIRECTORY: &str = "XM_VICTIM_DIRECTORY";
/// Set for the victim: the number it begins with.
const FIRST: &str = "XM_VICTIM_FIRST";
/// A victim that says nothing for so long has hung.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// A victim that says so much else will never say it.
const LINES_MAX: usize = 50_000;

/// In the victim: its directory and the number it begins with. `None` in a test that is no victim.
pub(crate) fn task() -> Option<(PathBuf, u64)> {
    let directory = std::env::var_os(DIRECTORY)?;
    journal("pid", u64::from(std::process::id()));
    Some((directory.into(), std::env::var(FIRST).ok()?.parse().ok()?))
}

/// One line, one write: a line in the pipe is never torn by the kill. Ends the victim if nobody reads any more.
pub(crate) fn journal(what: &str, number: u64) {
    let line = format!("\njournal {what} {number} .\n");
    std::io::stdout().lock().write_all(line.as_bytes()).expect("the parent reads");
}

/// A victim that runs.
pub(crate) struct Victim {
    child: Child,
    lines: Receiver<(String, u64)>,
    /// What it has said so far.
    pub(crate) journal: Vec<(String, u64)>,
    pid: u64,
}

impl Victim {
    /// Starts one whose first parcel is `first`, as an argument of `wrapper` if there is one.
    pub(crate) fn start(directory: &Path, first: u64, wrapper: &[OsString]) -> Self {
        let own = std::env::current_exe().expect("this test has a path").into_os_string();
        let arguments = ["victim::victim", "--exact", "--nocapture", "--test-threads=1"].map(OsString::from);
        let words: Vec<_> = wrapper.iter().cloned().chain([own]).chain(arguments).collect();
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .env(DIRECTORY, directory)
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the victim starts");
        let reader = BufReader::new(child.stdout.take().expect("piped"));
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                if let ["journal", what, number, "."] = line.split_whitespace().collect::<Vec<_>>()[..] {
                    let number = number.parse().expect("a number");
                    // The test may have failed meanwhile.
                    let _ = tell.send((what.to_owned(), number));
                }
            }
        });
        let mut victim = Self { child, lines, journal: Vec::new(), pid: 0 };
        victim.pid = victim.wait_for("pid");
        victim
    }

    /// Its process, whatever wraps it.
    pub(crate) fn pid(&self) -> u64 {
        self.pid
    }

    /// Reads on until it says this; returns the number.
    pub(crate) fn wait_for(&mut self, what: &str) -> u64 {
        self.wait_for_any(&[what]).1
    }

    /// Reads on until it says one of these.
    pub(crate) fn wait_for_any(&mut self, words: &[&str]) -> (String, u64) {
        for _ in 0..LINES_MAX {
            let Ok(line) = self.lines.recv_timeout(SILENCE_MAX) else { break };
            self.journal.push(line.clone());
            if words.contains(&line.0.as_str()) {
                return line;
            }
        }
        panic!("the victim ends, hangs or goes on and never says {words:?}: {:?}", self.journal.last_chunk::<20>());
    }

    /// Reads on until it has said this so often.
    pub(crate) fn wait_for_many(&mut self, what: &str, times: usize) {
        for _ in 0..times {
            self.wait_for(what);
        }
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.journal.iter().filter(|(said, _)| said == what).count()
    }

    /// `kill -9`; returns all it has said.
    pub(crate) fn kill(mut self) -> Vec<(String, u64)> {
        let killed = Command::new("kill").args(["-9", &self.pid.to_string()]).status().expect("kill runs");
        assert!(killed.success(), "it lives until it is killed");
        self.child.wait().expect("it is dead");
        let rest: Vec<_> = self.lines.iter().collect();
        self.journal.extend(rest);
        std::mem::take(&mut self.journal)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Dead already, unless the test has failed. A wrapper that dies may leave it alive.
        if self.pid > 0 && matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").args(["-9", &self.pid.to_string()]).stderr(Stdio::null()).status();
            let _ = self.child.wait();
        }
    }
}
