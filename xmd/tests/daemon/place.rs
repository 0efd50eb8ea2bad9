//! A directory with a configuration, a daemon that runs in it, and what a browser does with its pages.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything here takes on a loaded machine; a test that needs it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn xmd(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xmd"));
    command.args(args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn output(args: &[&str]) -> Output {
    xmd(args).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory with a configuration that takes free ports and keeps its data beside it.
pub(crate) struct Place {
    directory: TempDir,
}

impl Place {
    pub(crate) fn new(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let config = format!(
            "data_dir = {data:?}\n[router]\nlisten = \"127.0.0.1:0\"\n[presence]\nlisten = \"127.0.0.1:0\"\n\
             [web]\nlisten = \"127.0.0.1:0\"\n{more}"
        );
        std::fs::write(directory.path().join("xmd.toml"), config).unwrap();
        Self { directory }
    }

    pub(crate) fn config(&self) -> String {
        self.directory.path().join("xmd.toml").to_str().unwrap().to_owned()
    }

    /// Adds a line to a section of the configuration.
    pub(crate) fn add_to(&self, section: &str, line: &str) {
        let config = std::fs::read_to_string(self.config()).unwrap();
        let header = format!("[{section}]\n");
        std::fs::write(self.config(), config.replace(&header, &format!("{header}{line}\n"))).unwrap();
    }

    pub(crate) fn data(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("data").join(name)
    }

    pub(crate) fn start(&self) -> Running {
        Running::wait_for(xmd(&["run", "--config", &self.config()]).spawn().unwrap())
    }

    /// Runs until it ends by itself, which it must do soon.
    pub(crate) fn refused(&self) -> (Option<i32>, String) {
        let mut child = xmd(&["run", "--config", &self.config()]).spawn().unwrap();
        let status = ended(&mut child);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

/// A daemon that serves. Killed if the test ends before it was stopped.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) welcome: String,
}

impl Running {
    pub(crate) fn wait_for(mut child: Child) -> Self {
        let mut welcome = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        while !welcome.contains("Stop it with Ctrl-C") {
            let read = lines.read_line(&mut welcome).unwrap();
            if read == 0 {
                let mut said = String::new();
                child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("it does not start: {said}");
            }
        }
        Self { child, welcome }
    }

    /// The rest of the line that begins so.
    pub(crate) fn told(&self, begin: &str) -> String {
        let line = self.welcome.lines().find_map(|line| line.trim_start().strip_prefix(begin));
        line.unwrap_or_else(|| panic!("no {begin:?} in {}", self.welcome)).trim().to_owned()
    }

    /// The port of the pages where the welcome shows another address for them: the only TCP port this process listens on.
    pub(crate) fn port_of_pages(&self) -> SocketAddr {
        let ports = sockets_of(self.child.id(), "tcp");
        let [port] = ports.into_keys().collect::<Vec<_>>()[..] else { panic!("not one TCP port") };
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    pub(crate) fn web(&self) -> SocketAddr {
        self.told("Page to register").trim_start_matches("http://").trim_end_matches('/').parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Stops it and returns how it ended, how long that took and all it logged.
    pub(crate) fn stop(mut self, signal: &str) -> (ExitStatus, Duration, String) {
        let begun = Instant::now();
        self.signal(signal);
        let status = ended(&mut self.child);
        let took = begun.elapsed();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (status, took, log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a process; one that does not end is killed, and the test fails.
pub(crate) fn ended(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn get(web: SocketAddr, path: &str) -> String {
    ask(web, &format!("GET {path} HTTP/1.1\r\nHost: {web}\r\nConnection: close\r\n\r\n"))
}

/// Sends a form as a browser on this machine does; `headers` are further ones, each with its line's end.
pub(crate) fn post(web: SocketAddr, path: &str, fields: &[(&str, &str)], headers: &str) -> String {
    post_as(web, &web.to_string(), path, fields, headers)
}

/// Sends a form under another host's name.
pub(crate) fn post_as(web: SocketAddr, host: &str, path: &str, fields: &[(&str, &str)], headers: &str) -> String {
    ask(web, &form(host, path, fields, headers))
}

/// Sends a form and hangs up without waiting for the answer.
pub(crate) fn post_and_leave(web: SocketAddr, path: &str, fields: &[(&str, &str)]) {
    TcpStream::connect(web).unwrap().write_all(form(&web.to_string(), path, fields, "").as_bytes()).unwrap();
}

fn form(host: &str, path: &str, fields: &[(&str, &str)], headers: &str) -> String {
    let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let body = fields.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect::<Vec<_>>().join("&");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    format!("{head}{body}")
}

fn ask(web: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(web).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(crate) fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

/// The UDP ports a process has on loopback, with the number of sockets on each.
pub(crate) fn udp_ports_of(pid: u32) -> BTreeMap<u16, usize> {
    sockets_of(pid, "udp")
}

/// The ports of a process in one of the kernel's tables; from Linux's /proc.
fn sockets_of(pid: u32, table: &str) -> BTreeMap<u16, usize> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = links.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let inodes: Vec<String> =
        links.filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
    let mut ports = BTreeMap::new();
    for line in std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap().lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if inodes.iter().any(|inode| inode == fields[9]) {
            let port = u16::from_str_radix(fields[1].rsplit(':').next().unwrap(), 16).unwrap();
            *ports.entry(port).or_default() += 1;
        }
    }
    ports
}
