//! Golden vectors: one file of commented hex per message, `vectors/<Message>.hex`, a whole frame each.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::sync::Once;

use xmmep::catalog;
use xmmep::frame::HEADER_LEN;
use xmmep::message::Descriptor;
use xmmep::sample::Sampler;

use super::{Bless, bless, hex, path, schema};

/// Where the vector of a message lives.
pub fn file(name: &str) -> PathBuf {
    path("vectors").join(format!("{name}.hex"))
}

/// Writes what `XM_BLESS` asks for, once and before any test of this process reads a vector.
fn bless_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for message in catalog::all().filter(|_| bless() != Bless::No) {
            let body = match fs::read_to_string(file(message.name)).map(|text| hex::parse(&text)) {
                Ok(Ok(golden)) if bless() == Bless::Missing => golden.get(HEADER_LEN..).unwrap_or_default().to_vec(),
                _ => example(message),
            };
            let text = render(message, &body).unwrap_or_else(|error| panic!("{}: {error}", message.name));
            fs::write(file(message.name), text).unwrap_or_else(|error| panic!("{}: {error}", message.name));
        }
    });
}

/// The frame in the vector of a message.
pub fn frame(message: &Descriptor) -> Result<Vec<u8>, String> {
    bless_once();
    let file = file(message.name);
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    hex::parse(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// The body in the vector of a message; panics with the name if there is none.
pub fn body(message: &Descriptor) -> Vec<u8> {
    let frame = frame(message).unwrap_or_else(|error| panic!("{}: {error}", message.name));
    frame.get(HEADER_LEN..).unwrap_or_else(|| panic!("{}: no header", message.name)).to_vec()
}

/// What the flags byte and the sequence number of an example are: requests ask with number 1, answers answer it, all
/// others want no answer.
pub fn head(message: &Descriptor) -> (u8, u32, &'static str) {
    let is_answer = catalog::all().any(|other| other.answer == Some(message.name));
    match (is_answer, message.answer) {
        (true, _) => (1, 1, "an answer"),
        (false, Some(_)) => (0, 1, "a request"),
        (false, None) => (0, 0, "wants no answer"),
    }
}

/// An example with as much in it as 256 tries find in at most 700 bytes, so that lists are not empty.
pub fn example(message: &Descriptor) -> Vec<u8> {
    let candidates = (0..256).map(|seed| (message.sample)(&mut Sampler::new(seed)));
    let values = |body: &Vec<u8>| schema::walk(message.fields, body).map_or(0, |walk| walk.leaves.len());
    let small = candidates.filter(|body| body.len() <= 700);
    // The first of the fullest: `max_by_key` alone would take the last.
    small.reduce(|best, body| if values(&body) > values(&best) { body } else { best }).unwrap_or_default()
}

/// The text of a vector file.
pub fn render(message: &Descriptor, body: &[u8]) -> Result<String, String> {
    let (flags, sequence, kind) = head(message);
    let mut out = format!("# {} = {}\n", message.name, message.code);
    let _ = writeln!(out, "# {}", message.doc.lines().next().unwrap_or_default().trim());
    let _ = writeln!(out, "# offset, field: type = value");
    let mut put = |at: usize, bytes: &[u8], what: String| out += &hex::lines(bytes, &format!("{at:04} {what}"));
    put(0, &message.code.0.to_be_bytes(), format!("code = {}", message.code));
    put(2, &[flags], format!("flags: {kind}"));
    put(3, &sequence.to_be_bytes(), format!("sequence = {sequence}"));
    for leaf in schema::walk(message.fields, body)?.leaves {
        let bytes = body.get(leaf.at.clone()).unwrap_or_default();
        put(HEADER_LEN + leaf.at.start, bytes, format!("{}: {} = {}", leaf.path, leaf.ty, leaf.value));
    }
    Ok(out)
}
