//! Processes that never outlive the test: how a server is started, watched, signalled and cleared away.
//!
//! Two nets catch them. The kernel kills a server when the process that started it ends, however it ends. And a shell
//! waits for that end, too: it kills what is left, and removes the directory.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// How long a server may take to start. An idle machine needs a second; a busy one with a slow disk, much more.
const START_MAX: Duration = Duration::from_secs(60);
/// Lines of a server's log that an error shows.
const LOG_LINES: usize = 40;

/// The user a server runs as, when we are root: PostgreSQL and MariaDB refuse to be it.
#[derive(Clone, Copy, Debug)]
pub struct RunAs(Option<(u32, u32)>);

impl RunAs {
    /// The first of `names` this machine has, or ourselves if we are not root.
    pub fn first(names: &[&str]) -> Self {
        let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        if !root {
            return Self(None);
        }
        let users = std::fs::read_to_string("/etc/passwd").expect("the users of this machine can be read");
        let ids = |name: &&str| {
            let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut numbers = line.split(':').skip(2).map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        };
        Self(Some(names.iter().find_map(ids).unwrap_or_else(|| panic!("none of {names:?} is a user here"))))
    }

    /// Gives him a directory.
    pub fn give(self, directory: &Path) {
        if let Some((user, group)) = self.0 {
            std::os::unix::fs::chown(directory, Some(user), Some(group)).expect("root may give a directory away");
        }
    }

    /// A command that runs `program` as that user, in its own process group, and dies with us.
    ///
    /// The user is changed here and never by the program itself: a change of user takes the promise to die away.
    pub fn command(self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some((user, group)) = self.0 {
            command.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).arg("--clear-groups");
        }
        command.arg("--").arg(program).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        command.current_dir("/").stdin(Stdio::null()).process_group(0);
        command
    }
}

/// Starts a process whose death is tied to ours.
///
/// "Ours" is the *thread* that starts it, so one thread that never ends starts them all.
pub fn spawn(command: Command) -> std::io::Result<Child> {
    type Job = (Command, Sender<std::io::Result<Child>>);
    static STARTER: OnceLock<Sender<Job>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (jobs, queue) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in queue {
                // Who asked waits for the answer; if he panicked meanwhile, nobody does.
                let _ = answer.send(command.spawn());
            }
        });
        jobs
    });
    let (answer, child) = channel();
    starter.send((command, answer)).expect("the starter never ends");
    child.recv().expect("it answers each job")
}

/// Runs a command to its end.
pub fn run(mut command: Command) -> Result<(), String> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = format!("{command:?}");
    let output = spawn(command).and_then(Child::wait_with_output).map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(format!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&text)))
}

/// Sends a signal.
pub fn signal(name: &str, processes: &[u32]) {
    if processes.is_empty() {
        return;
    }
    let list: Vec<_> = processes.iter().map(u32::to_string).collect();
    // A process that is gone already needs no signal, and the shell's complaint interests nobody.
    let script = format!("kill -s {name} {} 2>/dev/null", list.join(" "));
    Command::new("/bin/sh").args(["-c", &script]).status().expect("there is a shell");
}

/// The processes at work in `directory`, oldest first. Database servers, and all they fork, work in their data
/// directory; the fork of a dead parent is found by nothing else.
pub fn inside(directory: &Path) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("processes are listed").filter_map(Result::ok);
    let mut found: Vec<u32> = processes
        .filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|place| place.starts_with(directory)))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    found.sort_unstable();
    found
}

/// A directory that vanishes, with every process inside, when this value or our process ends.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    watchdog: Option<(Child, ChildStdin)>,
}

/// Waits for the end of its input, which is ours. The number it takes from PostgreSQL's file is a piece of shared memory
/// that outlives even the kill.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
read -r _
while :; do
  found=
  for link in /proc/[0-9]*/cwd; do
    case "$(readlink "$link")" in
      "$1"/*) pid=${link#/proc/}; kill -s KILL "${pid%/cwd}" && found=yes ;;
    esac
  done
  [ "$found" ] || break
done
memory=$(sed -n '7s/.* //p' "$1/data/postmaster.pid") && [ "$memory" ] && ipcrm -m "$memory"
rm -rf "$1"
"#;

impl Place {
    pub fn new(owner: RunAs) -> Self {
        let directory = tempfile::Builder::new().prefix("xm-store-").tempdir().expect("a temporary directory");
        owner.give(directory.path());
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", WATCHDOG, "watchdog"]).arg(directory.path()).current_dir("/").process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut watchdog = shell.spawn().expect("there is a shell");
        let leash = watchdog.stdin.take().expect("piped");
        Self { path: directory.keep(), watchdog: Some((watchdog, leash)) }
    }

    /// The process that clears up after us.
    pub fn watchdog(&self) -> u32 {
        self.watchdog.as_ref().expect("it waits until the end").0.id()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((mut watchdog, leash)) = self.watchdog.take() {
            drop(leash);
            watchdog.wait().expect("the watchdog ends");
        }
    }
}

/// A server that runs, and the end of its log.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Running {
    /// Starts a server and returns once it has logged `ready`.
    pub fn start(mut command: Command, ready: &'static str) -> Result<Self, String> {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = spawn(command).map_err(|error| error.to_string())?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let started = follow(child.stderr.take().expect("piped"), log.clone(), ready);
        let running = Self { child, log };
        match started.recv_timeout(START_MAX) {
            Ok(()) => Ok(running),
            Err(why) => Err(format!("the server did not start ({why}): {}", running.kill())),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it and returns the end of its log.
    pub fn kill(mut self) -> String {
        // An error here means that it is dead already.
        let _ = self.child.kill();
        self.child.wait().expect("a child can be waited for");
        let log = self.log.lock().expect("no reader panics");
        Vec::from(log.clone()).join("\n")
    }
}

/// Reads a log to its end, on a thread of its own; tells when `ready` is in it. The sender goes when the log ends.
fn follow(from: ChildStderr, log: Arc<Mutex<VecDeque<String>>>, ready: &'static str) -> Receiver<()> {
    let (sender, started) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            let is_ready = line.contains(ready);
            let mut log = log.lock().expect("nobody panics with the log in hand");
            log.push_back(line);
            while log.len() > LOG_LINES {
                log.pop_front();
            }
            drop(log);
            if is_ready {
                // Only the first time somebody waits for it.
                let _ = sender.send(());
            }
        }
    });
    started
}
