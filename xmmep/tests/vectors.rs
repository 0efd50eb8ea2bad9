//! Every message of the catalogue, from outside: golden bytes, truncation, bit flips, samples, lying lengths.
//! `XM_BLESS=1` writes the vectors that are missing, `XM_BLESS=rewrite` all of them.

mod common;

use std::collections::BTreeSet;
use std::fs;

use bytes::Bytes;
use common::schema::{self, Length, Wire, varint};
use common::{hex, vector};
use xmmep::bounded::Text;
use xmmep::catalog;
use xmmep::error::Problem;
use xmmep::frame::{Frame, HEADER_LEN, Kind};
use xmmep::message::Descriptor;
use xmmep::sample::Sampler;
use xmmep::types::UserId;

xmmep::messages! {
    /// Client → Presence: what a message looks like to which fields were added, twice.
    0x8001 Grown {
        /// There from the start.
        user: UserId,
        /// Added later.
        note: Text<16> = Text::cut("none"),
        /// Added last.
        count: u32 = 7,
    }
    /// Client → Presence: it had no field at first.
    0x8002 Sprouted {
        /// Added later.
        count: u32 = 7,
    }
}

/// The catalogue and two messages with defaults, each with an example: the golden one where there is one.
fn examples() -> impl Iterator<Item = (&'static Descriptor, Vec<u8>)> {
    let golden = catalog::all().map(|message| (message, vector::body(message)));
    golden.chain(MESSAGES.iter().map(|message| (message, vector::example(message))))
}

fn lengths(message: &Descriptor, body: &[u8]) -> Vec<Length> {
    schema::walk(message.fields, body).unwrap_or_else(|error| panic!("{}: {error}", message.name)).lengths
}

/// The body with another length and other content in one place.
fn replaced(body: &[u8], length: &Length, says: u64, content: &[u8]) -> Vec<u8> {
    [&body[..length.at.start], &varint(says), content, &body[length.content.end..]].concat()
}

#[test]
fn every_message_has_a_vector() {
    for message in catalog::all() {
        let frame = vector::frame(message);
        assert!(frame.is_ok(), "{}: {}; XM_BLESS=1 writes it", message.name, frame.unwrap_err());
    }
}

#[test]
fn every_vector_has_a_message() {
    let names: BTreeSet<&str> = catalog::all().map(|message| message.name).collect();
    for entry in fs::read_dir(common::path("vectors")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = name.strip_suffix(".hex").is_some_and(|stem| names.contains(stem));
        assert!(known, "vectors/{name} belongs to no message");
    }
}

#[test]
fn every_vector_decodes_and_encodes_to_the_same_bytes() {
    for message in catalog::all() {
        let bytes = vector::frame(message).unwrap_or_else(|error| panic!("{}: {error}", message.name));
        let frame = Frame::decode(Bytes::from(bytes)).unwrap_or_else(|error| panic!("{}: {error}", message.name));
        assert_eq!(frame.header.code, message.code, "{}", message.name);
        let (flags, sequence, _) = vector::head(message);
        assert_eq!(frame.header.kind == Kind::Answer, flags == 1, "{}", message.name);
        assert_eq!(frame.header.sequence.0, sequence, "{}", message.name);
        assert_eq!((message.recode)(&frame.body).as_deref(), Ok(&frame.body[..]), "{}", message.name);
    }
}

#[test]
fn the_comments_of_every_vector_are_what_the_bytes_say() {
    for message in catalog::all() {
        let rendered = vector::render(message, &vector::body(message)).unwrap();
        let text = fs::read_to_string(vector::file(message.name)).unwrap();
        assert!(text == rendered, "{}: the comments of its vector are stale; XM_BLESS=1 renews them", message.name);
    }
}

#[test]
fn every_vector_shows_at_least_one_entry_of_each_list() {
    for message in catalog::all() {
        for length in lengths(message, &vector::body(message)) {
            let empty = matches!(length.wire, Wire::List(..)) && length.first_entry.is_none();
            assert!(!empty, "{}: {} is empty", message.name, length.path);
        }
    }
}

#[test]
fn a_second_reader_written_from_the_page_reads_every_sample_to_its_last_byte() {
    for (message, _) in examples() {
        let mut sampler = Sampler::new(1);
        for index in 0..1_000 {
            let body = (message.sample)(&mut sampler);
            let walk = schema::walk(message.fields, &body);
            let walk = walk.unwrap_or_else(|error| panic!("{} sample {index}: {error}", message.name));
            assert_eq!(walk.leaves.last().map_or(0, |leaf| leaf.at.end), body.len(), "{} sample {index}", message.name);
        }
    }
}

#[test]
fn every_truncation_errs_or_yields_the_stated_defaults() {
    for (message, body) in examples() {
        let ends = (message.field_ends)(&body).unwrap();
        for cut in 0..body.len() {
            let whole = ends.iter().take_while(|end| **end <= cut).count();
            let at_boundary = cut == 0 || ends.contains(&cut);
            let defaulted = message.fields[whole..].iter().all(|field| field.default.is_some());
            let result = (message.recode)(&body[..cut]);
            if at_boundary && defaulted {
                let recoded = result.unwrap_or_else(|error| panic!("{} cut at {cut}: {error}", message.name));
                assert!(recoded.starts_with(&body[..cut]) && recoded.len() > cut, "{} cut at {cut}", message.name);
            } else {
                let error = result.expect_err(message.name);
                assert_eq!(error.problem, Problem::Truncated, "{} cut at {cut}", message.name);
                assert_eq!(error.field, message.fields[whole].name, "{} cut at {cut}", message.name);
                assert_eq!(error.message, message.name, "cut at {cut}");
            }
        }
    }
}

#[test]
fn a_field_that_an_older_peer_leaves_out_has_its_stated_default() {
    let recode = |body: &[u8]| (MESSAGES[0].recode)(body);
    assert_eq!(recode(&[5]).unwrap(), [5, 4, b'n', b'o', b'n', b'e', 7]);
    assert_eq!(recode(&[5, 0]).unwrap(), [5, 0, 7]);
    assert_eq!((MESSAGES[1].recode)(&[]).unwrap(), [7]);
    assert!(recode(&[]).is_err() && recode(&[5, 4, b'n']).is_err());
}

#[test]
fn every_bit_flip_gives_the_same_verdict_twice_and_a_fixed_point() {
    let verdict = |bytes: &[u8]| {
        let frame = Frame::decode(Bytes::copy_from_slice(bytes)).map_err(|error| error.to_string())?;
        let message = catalog::find(frame.header.code).ok_or_else(|| format!("no message {}", frame.header.code))?;
        (message.recode)(&frame.body).map(|body| (message.name, body)).map_err(|error| error.to_string())
    };
    for message in catalog::all() {
        let golden = vector::frame(message).unwrap();
        for bit in 0..golden.len() * 8 {
            let mut bytes = golden.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let first = verdict(&bytes);
            assert_eq!(first, verdict(&bytes), "{} bit {bit}", message.name);
            if let Ok((name, body)) = first {
                let found = catalog::all().find(|other| other.name == name).unwrap();
                assert_eq!((found.recode)(&body), Ok(body), "{} bit {bit} became {name}", message.name);
            }
        }
    }
}

#[test]
fn both_readers_agree_on_every_bit_flip_of_a_body() {
    for (message, body) in examples() {
        for bit in 0..body.len() * 8 {
            let mut bytes = body.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let codec = (message.recode)(&bytes);
            let page = schema::walk(message.fields, &bytes);
            // The page's reader does not know the character rules of names and addresses.
            let by_rule = codec.as_ref().is_err_and(|error| error.problem == Problem::Malformed);
            let named = |ty: &str| ["UserName", "Email"].iter().any(|name| ty.contains(name));
            let has_names = page.as_ref().is_ok_and(|walk| walk.leaves.iter().any(|leaf| named(&leaf.ty)));
            let agree = codec.is_ok() == page.is_ok() || (by_rule && has_names);
            assert!(agree, "{} bit {bit}: codec {codec:?}, page {page:?}", message.name);
        }
    }
}

#[test]
fn bytes_after_the_last_field_are_ignored() {
    for (message, body) in examples() {
        for tail in [&[0_u8][..], &[0xff; 9], b"\x03abc"] {
            let longer = [&body, tail].concat();
            assert_eq!((message.recode)(&longer).as_deref(), Ok(&body[..]), "{} and {tail:?}", message.name);
        }
    }
}

#[test]
fn a_longer_varint_is_understood_and_written_in_its_shortest_form() {
    let recode = |body: &[u8]| (MESSAGES[0].recode)(body);
    let short = recode(&[5, 0, 7]).unwrap();
    assert_eq!(recode(&[0x85, 0x00, 0x80, 0x00, 0x87, 0x80, 0x00]), Ok(short));
    // Too long for the type, and a value that does not fit it.
    assert!(recode(&[5, 0, 0x87, 0x80, 0x80, 0x80, 0x80, 0x00]).is_err());
    assert!(recode(&[5, 0, 0xff, 0xff, 0xff, 0xff, 0x1f]).is_err());
}

#[test]
fn an_unknown_value_of_an_open_integer_is_kept() {
    let status = catalog::all().find(|message| message.name == "StatusChangedNotify").unwrap();
    for value in 0..=255 {
        assert_eq!((status.recode)(&[value]), Ok(vec![value]));
    }
}

#[test]
fn ten_thousand_samples_of_every_message_survive_the_way_to_bytes_and_back() {
    for (message, _) in examples() {
        for seed in 0..10_000 {
            let body = (message.sample)(&mut Sampler::new(seed));
            assert_eq!((message.recode)(&body).as_ref(), Ok(&body), "{} seed {seed}", message.name);
        }
    }
}

#[test]
fn every_lying_length_is_refused() {
    let lies = [1 << 31, (1 << 32) - 1, 1 << 32, u64::MAX / 8 + 1, u64::MAX / 24 + 1, u64::MAX];
    let mut lied = 0;
    for (message, body) in examples() {
        for length in lengths(message, &body) {
            for lie in lies {
                let bytes = replaced(&body, &length, lie, &body[length.content.clone()]);
                assert!((message.recode)(&bytes).is_err(), "{}: {} says {lie}", message.name, length.path);
                lied += 1;
            }
        }
    }
    assert!(lied > 300, "only {lied} lengths were tried");
}

#[test]
fn every_bound_is_reached_and_not_passed() {
    for (message, body) in examples() {
        for length in lengths(message, &body) {
            let content = |count: usize| match &length.wire {
                Wire::List(..) => body[length.first_entry.clone().unwrap()].repeat(count),
                Wire::Blob(_) => vec![0; count],
                _ => vec![b'a'; count],
            };
            // Names and addresses have rules of their own beside the length; `name.rs` tests them at their bound.
            let own_rules = matches!(length.wire, Wire::Name | Wire::Email);
            let at = |count: usize| (message.recode)(&replaced(&body, &length, count as u64, &content(count)));
            assert!(own_rules || at(length.max).is_ok(), "{}: {} at {}", message.name, length.path, length.max);
            let over = at(length.max + 1).expect_err(&length.path);
            assert_eq!(over.problem, Problem::Malformed, "{}: {} over {}", message.name, length.path, length.max);
        }
    }
}

#[test]
fn text_with_nul_or_bad_utf8_is_refused_in_every_field() {
    for (message, body) in examples() {
        for length in lengths(message, &body) {
            if matches!(length.wire, Wire::Text(_) | Wire::Name | Wire::Email) {
                // NUL, a lone continuation, an overlong '/', a surrogate, over U+10FFFF, cut in mid-character.
                for bad in
                    [&[b'a', 0][..], &[0x80], &[0xc0, 0xaf], &[0xed, 0xa0, 0x80], &[0xf4, 0x90, 0x80, 0x80], &[0xe4]]
                {
                    let bytes = replaced(&body, &length, bad.len() as u64, bad);
                    let error = (message.recode)(&bytes).expect_err(&length.path);
                    assert_eq!(error.problem, Problem::Malformed, "{}: {} {bad:?}", message.name, length.path);
                }
            }
        }
    }
}

#[test]
fn every_header_cut_short_is_refused() {
    for message in catalog::all() {
        let golden = vector::frame(message).unwrap();
        for cut in 0..HEADER_LEN {
            assert!(Frame::decode(Bytes::copy_from_slice(&golden[..cut])).is_err(), "{} cut at {cut}", message.name);
        }
    }
}

#[test]
fn commented_hex_is_read_without_its_comments_and_half_bytes_are_refused() {
    assert_eq!(hex::parse("# head\n00 ff # x 11\n\n2a2b\n"), Ok(vec![0, 0xff, 0x2a, 0x2b]));
    assert!(hex::parse("0").is_err() && hex::parse("zz").is_err() && hex::parse("00 1\n").is_err());
    assert!(hex::parse("+1").is_err());
}
