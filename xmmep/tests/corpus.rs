//! The committed corpus of the fuzz targets, replayed on stable Rust: what was found once stays found. Then some thousand
//! inputs drawn from a seed, so that every run sees more than the corpus.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests fail by panicking, and say on what")]

mod common;

use std::fs;
use std::sync::Once;

use common::{Bless, bless, bodies, duo, hostile, vector};
use xmmep::catalog;
use xmmep::sample::Sampler;

/// Inputs of a target: the files of its corpus, each with its name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    static SEEDED: Once = Once::new();
    SEEDED.call_once(|| {
        seed_from_vectors("frame", <[u8]>::to_vec);
        seed_from_vectors("message", |frame| [&frame[..2], &frame[bodies::BODY_AT..]].concat());
    });
    let folder = common::path("../fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.sort();
    let named = |file: std::path::PathBuf| (file.display().to_string(), fs::read(&file).expect("a readable file"));
    files.into_iter().map(named).collect()
}

/// Runs `body` over the corpus, then over `drawn` mutations of it.
fn replay(target: &str, body: fn(&[u8]), drawn: u64) {
    let corpus = corpus(target);
    assert!(corpus.len() >= 3, "the corpus of {target} has only {} inputs", corpus.len());
    let mut running = Running(String::new());
    for (name, input) in &corpus {
        running.0 = format!("fuzz target {target}, input {name}");
        body(input);
    }
    for seed in 0..drawn {
        running.0 = format!("fuzz target {target}, seed {seed}");
        body(&mutated(seed, &corpus));
    }
    running.0.clear();
}

/// Says which input it was if a body panics.
struct Running(String);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed: {}", self.0);
        }
    }
}

/// An input of the corpus with a few bytes changed, cut out or put in.
fn mutated(seed: u64, corpus: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut sampler = Sampler::new(seed);
    let mut input = corpus[sampler.up_to(corpus.len() - 1)].1.clone();
    for _ in 0..=sampler.up_to(6) {
        let at = sampler.up_to(input.len());
        match sampler.up_to(3) {
            0 => input.insert(at, sampler.next_u64() as u8),
            1 if at < input.len() => drop(input.remove(at)),
            2 => {
                let other = &corpus[sampler.up_to(corpus.len() - 1)].1;
                let from = sampler.up_to(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ if at < input.len() => input[at] ^= 1 << sampler.up_to(7),
            _ => {}
        }
    }
    input.truncate(4_096);
    input
}

/// Writes the seeds that come from the vectors, if asked to; the rest of the corpus was found by fuzzing.
fn seed_from_vectors(target: &str, input: impl Fn(&[u8]) -> Vec<u8>) {
    if bless() != Bless::No {
        for message in catalog::all() {
            let frame = vector::frame(message).unwrap();
            let file = common::path("../fuzz/corpus").join(target).join(message.name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, input(&frame)).unwrap();
        }
    }
}

#[test]
fn the_corpus_of_frame_and_message_begins_with_every_vector() {
    for target in ["frame", "message"] {
        let _ = corpus(target);
        for message in catalog::all() {
            let file = common::path("../fuzz/corpus").join(target).join(message.name);
            assert!(file.exists(), "{target}: no seed for {}; XM_BLESS=1 writes it", message.name);
        }
    }
}

#[test]
fn frame() {
    replay("frame", bodies::frame, 20_000);
}

#[test]
fn message() {
    replay("message", bodies::message, 20_000);
}

#[test]
fn stream() {
    replay("stream", bodies::stream, 20_000);
}

#[test]
fn datagram() {
    replay("datagram", bodies::datagram, 500);
}

#[test]
fn session() {
    replay("session", duo::session, 300);
}

#[test]
fn hostile() {
    replay("hostile", hostile::hostile, 500);
}
