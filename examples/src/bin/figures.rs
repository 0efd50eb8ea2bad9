//! First figures of a server: processor time per login and per confirmed message, memory per idle user. The server is a
//! process of its own, with memory stores, so that its processor time and memory can be read; real sockets, full encryption.
//!
//! `cargo run --release -p examples --bin figures`
//!
//! Linux only: processor time and memory come from `/proc`.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use examples::{befriend, embed, enrol};
use xm_core::presence;
use xm_store::Stores;
use xm_store::memory::MemoryPlacements;
use xmmep::client::{Client, ClientOptions, Credentials, DerivedKey, Event, Events, ServerAddress};
use xmmep::messages::chat::Tick;
use xmmep::name::UserName;
use xmmep::secret::{KdfParams, LoginKey, Salt};

/// Users, in pairs. One address may open 20 sessions a second, so many more would take their time to log in.
const USERS: usize = 400;
/// Messages in all.
const MESSAGES: usize = 100_000;
/// Messages of one sender on their way at a time.
const IN_FLIGHT: usize = 8;
/// Bytes of a message.
const TEXT: &str =
    "a hundred bytes of text, as people write them to each other all day long, and then a little bit more...";

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    match std::env::args().nth(1).as_deref() {
        Some("serve") => runtime.block_on(serve()),
        None => runtime.block_on(measure()),
        Some(other) => Err(format!("{other:?} is unknown: figures takes no argument").into()),
    }
}

/// A key that is as good as any for people who exist for a minute.
fn key() -> DerivedKey {
    DerivedKey { key: LoginKey::from_bytes([9; 32]), salt: Salt([9; 16]), params: KdfParams::RECOMMENDED }
}

fn name(number: usize) -> Result<UserName, Failure> {
    Ok(UserName::new(&format!("user{number}"))?)
}

/// The server: prints its address, serves until its input ends.
async fn serve() -> Result<(), Failure> {
    let (placements, stores) = (Arc::new(MemoryPlacements::default()), Stores::memory());
    for pair in 0..USERS / 2 {
        let a = enrol(&*placements, &stores, &name(2 * pair)?, &key()).await?;
        let b = enrol(&*placements, &stores, &name(2 * pair + 1)?, &key()).await?;
        befriend(&stores, &a, &b).await?;
    }
    let unlimited = |config: &mut presence::PresenceConfig| config.texts_burst = u32::MAX;
    let server = embed(placements, stores, presence::handlers(), unlimited).await?;
    println!("{}", server.address);
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    server.stop().await;
    Ok(())
}

async fn measure() -> Result<(), Failure> {
    let mut server =
        Command::new(std::env::current_exe()?).arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(server.stdout.take().ok_or("no output of the server")?).read_line(&mut line)?;
    let address: ServerAddress = line.trim().parse()?;

    println!("| figure | value |\n|---|---|");
    let (cpu, memory) = (cpu(&server)?, resident_kib(&server)?);
    let mut clients = Vec::new();
    for number in 0..USERS {
        let options = ClientOptions::new(address.clone(), name(number)?, Credentials::Key(key()));
        clients.push(Client::connect(options).await?);
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    let logins = USERS as f64;
    println!("| lookup, handshake and login, server CPU | {:.0} µs |", (self::cpu(&server)? - cpu) / logins * 1e6);
    let grown = (resident_kib(&server)? - memory) / logins;
    println!("| resident memory per idle online user with 1 buddy | {grown:.1} KiB |");

    let (cpu, start) = (self::cpu(&server)?, Instant::now());
    let mut pairs = tokio::task::JoinSet::new();
    while let (Some(b), Some(a)) = (clients.pop(), clients.pop()) {
        pairs.spawn(chat(a, b));
    }
    let mut latencies = Vec::with_capacity(MESSAGES);
    while let Some(of_pair) = pairs.join_next().await {
        latencies.extend(of_pair?.map_err(|error| -> Failure { error.into() })?);
    }
    let (elapsed, used) = (start.elapsed().as_secs_f64(), self::cpu(&server)? - cpu);
    let messages = latencies.len() as f64;
    println!("| text of {} bytes, delivered and confirmed, server CPU | {:.1} µs |", TEXT.len(), used / messages * 1e6);
    println!(
        "| … at, with {} in flight, clients on the other core | {:.0}/s |",
        USERS / 2 * IN_FLIGHT,
        messages / elapsed
    );
    latencies.sort_unstable();
    let percentile = |p: usize| latencies.get(latencies.len() * p / 100).map_or(0.0, Duration::as_secs_f64) * 1e3;
    println!(
        "| … round trip to DELIVERED under that load, p50 / p99 | {:.2} / {:.2} ms |",
        percentile(50),
        percentile(99)
    );
    drop(server.stdin.take());
    server.wait()?;
    Ok(())
}

/// One sends, the other only has to be there: its client confirms. Returns how long each message took.
async fn chat(a: (Client, Events), b: (Client, Events)) -> Result<Vec<Duration>, String> {
    let ((sender, mut ticks), (receiver, mut texts)) = (a, b);
    let to = receiver.welcome().user;
    let listener = tokio::spawn(async move { while texts.next().await.is_some() {} });
    let (mut sent, mut latencies) = (std::collections::HashMap::new(), Vec::new());
    let mut left = MESSAGES / (USERS / 2);
    while left > 0 || !sent.is_empty() {
        while left > 0 && sent.len() < IN_FLIGHT {
            let id = sender.send_text(to, TEXT).await.map_err(|error| error.to_string())?;
            sent.insert(id, Instant::now());
            left -= 1;
        }
        match ticks.next().await.ok_or("a client has ended")? {
            Event::Tick(tick) if tick.tick == Tick::DELIVERED => {
                latencies.extend(sent.remove(&tick.id).map(|at| at.elapsed()));
            }
            Event::Tick(tick) if tick.tick != Tick::STORED => {
                return Err(format!("a message ended as {:?}", tick.tick));
            }
            _ => {}
        }
    }
    listener.abort();
    Ok(latencies)
}

/// Processor time the server has used, in seconds.
fn cpu(server: &Child) -> Result<f64, Failure> {
    // The scheduler's count in nanoseconds; `stat` counts in hundredths of a second.
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir(format!("/proc/{}/task", server.id()))? {
        let schedstat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += schedstat.split_whitespace().next().ok_or("no schedstat")?.parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

/// Memory the server occupies, in KiB.
fn resident_kib(server: &Child) -> Result<f64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id()))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse()?)
}
