//! What a piece of work cost: time, CPU time of this process and of a server, bytes handed to the system.

use std::time::Instant;

/// Counted from its start on.
pub(crate) struct Cost {
    /// Processes of a server, besides this one.
    server: Vec<u32>,
    start: Instant,
    cpu: f64,
    server_cpu: f64,
    written: u64,
}

impl Cost {
    /// Starts counting.
    pub(crate) fn start(server: Vec<u32>) -> Self {
        let server_cpu = cpu_of(&server);
        Self { server, start: Instant::now(), cpu: cpu_seconds("self"), server_cpu, written: bytes_written() }
    }

    /// Prints what `count` operations cost, each.
    #[expect(clippy::print_stdout, reason = "a benchmark prints")]
    pub(crate) fn print(self, name: &str, count: usize) {
        let (seconds, each) = (self.start.elapsed().as_secs_f64(), count as f64);
        let cpu = (cpu_seconds("self") - self.cpu) * 1e6 / each;
        let server_cpu = (cpu_of(&self.server) - self.server_cpu) * 1e6 / each;
        let written = (bytes_written() - self.written) as f64 / each;
        print!("{name:<28} {:>9.0} /s  {cpu:>8.1} us CPU each", each / seconds);
        if !self.server.is_empty() {
            print!("  {server_cpu:>8.1} us in the server");
        }
        println!("  {written:>7.0} bytes written each  ({count} in {seconds:.2} s)");
    }
}

/// User and system time of a process, where the system says: fields 14 and 15 of its `stat`, in hundredths.
fn cpu_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn cpu_of(processes: &[u32]) -> f64 {
    processes.iter().map(|process| cpu_seconds(&process.to_string())).sum()
}

/// Bytes handed to write calls, where the system says.
fn bytes_written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}
