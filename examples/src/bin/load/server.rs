//! The server as a process: started on its cores, its processor time and memory read from outside.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xmmep::client::ServerAddress;

use crate::Failure;

/// How long it may take until it serves.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Server {
    child: Child,
    pub(crate) address: ServerAddress,
    /// When it was started.
    pub(crate) since: Instant,
}

impl Server {
    /// Starts `xmd` with this configuration on `cores`; returns once it serves.
    pub(crate) fn start(xmd: &Path, config: &Path, cores: &str) -> Result<Self, Failure> {
        let mut command = on_cores(xmd, cores);
        command.arg("run").arg("--config").arg(config);
        let since = Instant::now();
        let (child, address) = first_line_with(command, "Address for clients")?;
        Ok(Self { child, address: address.parse()?, since })
    }

    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        Usage::of(self.child.id())
    }

    /// Stops it in order.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        kill(Pid::from_raw(self.child.id().try_into()?), Signal::SIGTERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `stop` there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has used.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// Processor time in seconds, of all threads, in the program and in the kernel.
    pub(crate) cpu: f64,
    /// Resident memory in bytes.
    pub(crate) resident: u64,
}

impl Usage {
    pub(crate) fn of(process: u32) -> Result<Self, Failure> {
        // The scheduler's count in nanoseconds; `stat` counts in hundredths of a second.
        let mut nanoseconds = 0_u64;
        for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let schedstat = std::fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += schedstat.split_whitespace().next().ok_or("no schedstat")?.parse::<u64>()?;
        }
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse()?;
        Ok(Self { cpu: nanoseconds as f64 / 1e9, resident: kib * 1024 })
    }
}

/// A command that runs on these cores.
pub(crate) fn on_cores(program: &Path, cores: &str) -> Command {
    if cores.is_empty() {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.arg("-c").arg(cores).arg(program);
    command
}

/// Starts a process and waits until it prints a line that holds `what`; returns what stands behind it.
pub(crate) fn first_line_with(mut command: Command, what: &str) -> Result<(Child, String), Failure> {
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output of the server")?).lines();
    while let Some(line) = lines.next().transpose()? {
        if let Some((_, rest)) = line.split_once(what) {
            // What it says later has to go somewhere.
            std::thread::spawn(move || lines.for_each(drop));
            return Ok((child, rest.trim().to_owned()));
        }
        if started.elapsed() > PATIENCE {
            break;
        }
    }
    let _ = child.kill();
    child.wait()?;
    Err(format!("{:?} did not come to serve; what it says is above", command.get_program()).into())
}

/// The server's program: this one, or the one beside our own.
pub(crate) fn program(given: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    let path = match given {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("xmd"),
    };
    if !path.exists() {
        let path = path.display();
        return Err(
            format!("{path} does not exist; build it with `cargo build --release -p xmd`, or give --xmd").into()
        );
    }
    Ok(path)
}
