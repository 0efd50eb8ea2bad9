//! The tables of `docs/PROTOCOL.md`: types, limits, messages, records, integers with names; all from the catalogue.

use std::fmt::Write;

use xmmep::catalog::{self, Flow};
use xmmep::frame::{FRAME_MAX_CLIENT, FRAME_MAX_LINK, FRAME_MAX_STRANGER};
use xmmep::message::{Descriptor, Field, OpenEnum};
use xmmep::session;

use crate::common::{self, schema, vector};

/// One line of documentation, without what only Rust readers need.
fn prose(doc: &str) -> String {
    let lines: Vec<&str> = doc.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

/// A type in the words of the page.
pub(crate) fn type_name(ty: &str) -> String {
    let ty = schema::tidy(ty);
    let inner = |prefix: &str| ty.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('>'));
    if let Some(max) = inner("Text<").or_else(|| inner("PrivateText<")) {
        return format!("text ≤ {max}");
    }
    if let Some(max) = inner("Blob<") {
        return format!("bytes ≤ {max}");
    }
    if let Some(inner) = inner("Option<") {
        return format!("optional {}", type_name(inner));
    }
    if let Some((entry, max)) = inner("List<").and_then(|rest| rest.rsplit_once(',')) {
        return format!("list of {} ≤ {}", type_name(entry), max.trim());
    }
    if let Some(len) = ty.strip_prefix("[u8;").and_then(|rest| rest.strip_suffix(']')) {
        return format!("{} bytes", len.trim());
    }
    ty
}

fn fields(out: &mut String, fields: &[Field]) {
    *out += "| field | type | meaning |\n|---|---|---|\n";
    for field in fields {
        let default = field.default.map(|text| format!(" Left out: `{text}`.")).unwrap_or_default();
        let _ = writeln!(out, "| `{}` | {} | {}{default} |", field.name, type_name(field.ty), prose(field.doc));
    }
}

/// The types that are another one on the wire.
pub(crate) fn types() -> String {
    let mut out = String::from("| type | on the wire | what it is |\n|---|---|---|\n");
    for (name, wire, meaning) in schema::SCALARS {
        let _ = writeln!(out, "| {name} | {} | {meaning} |", type_name(wire));
    }
    for open in catalog::ENUMS {
        let _ = writeln!(out, "| {} | {} | an open integer: see \"Integers with names\" |", open.name, open.ty);
    }
    out
}

/// What bounds everything else.
pub(crate) fn limits() -> String {
    let mut out = String::from("| limit | value |\n|---|---|\n");
    let mut row = |what: &str, value: String| {
        let _ = writeln!(out, "| {what} | {value} |");
    };
    let seconds = |time: core::time::Duration| match time.subsec_millis() {
        0 => format!("{} s", time.as_secs()),
        _ => format!("{} ms", time.as_millis()),
    };
    let config = session::Config::default();
    let bytes = |count: usize| format!("{count} bytes");
    row("datagram, and the exact size of INIT", bytes(session::DATAGRAM_MAX));
    row("payload of an INIT after its purpose byte", bytes(session::REQUEST_MAX));
    row("answer to a lookup; every answer is padded to this", bytes(session::LOOKUP_ANSWER_MAX));
    row("age of a cookie", seconds(session::COOKIE_AGE_MAX));
    let rate = (session::HANDSHAKES_PER_SECOND, session::HANDSHAKES_BURST);
    row("handshakes per address (IPv4 /32, IPv6 /64)", format!("{} at once, then {} per second", rate.1, rate.0));
    row("first record of a client after RESPONSE", format!("within {}", seconds(session::HANDSHAKE_AGE_MAX)));
    row("INIT sent again after", format!("{}, doubled each time up to four times that", seconds(session::INIT_PAUSE)));
    row("INITs without an answer before giving up", session::INIT_TRIES_MAX.to_string());
    row("replay window", format!("{} counters", session::REPLAY_WINDOW));
    row("key epoch", format!("2^{} counters or {}", config.epoch_bits, seconds(config.epoch_age)));
    row("key of the last epoch kept for", seconds(session::PREVIOUS_KEY_AGE_MAX));
    row("content of a DATA chunk", bytes(session::FRAGMENT_MAX));
    row("content of a DATAGRAM chunk that is sent", bytes(session::UNRELIABLE_MAX));
    row("fragments of a message", session::FRAGMENTS_PER_MESSAGE.to_string());
    row("message to a server before login", bytes(config.stranger.message_max));
    row("message after login, or to a client", bytes(config.member.message_max));
    row("fragments under way", session::WINDOW_MAX.to_string());
    row("congestion window at first", format!("{} fragments", session::WINDOW_INITIAL));
    let rto = (session::RTO_INITIAL, session::RTO_MIN, session::RTO_MAX);
    row("retransmission timeout: first, least, most", [rto.0, rto.1, rto.2].map(seconds).join(", "));
    row("timeouts in a row before the peer counts as gone", session::TIMEOUTS_MAX.to_string());
    row("delay of an acknowledgement", seconds(session::ACK_DELAY));
    row("records with data acknowledged at once", session::ACK_EVERY.to_string());
    row("keep-alive of a client after its own silence of", seconds(config.keep_alive));
    row("end of a session after the peer's silence of", seconds(config.idle));
    row("least time between two changes of address", seconds(session::PROPOSAL_INTERVAL));
    row("time a new address has to answer its challenge", seconds(session::PROPOSAL_AGE_MAX));
    row("frame before authentication (streams)", bytes(FRAME_MAX_STRANGER));
    row("frame on a client link", bytes(FRAME_MAX_CLIENT));
    row("frame on a link between servers", bytes(FRAME_MAX_LINK));
    out
}

/// The diagram at the head of a flow's source file.
fn diagram(flow: &Flow) -> String {
    let Ok(source) = std::fs::read_to_string(common::path("src/messages").join(format!("{}.rs", flow.name))) else {
        return String::new();
    };
    let head = source.lines().map_while(|line| line.strip_prefix("//!"));
    let lines: Vec<&str> = head.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    let inside = lines.iter().skip_while(|line| **line != "```text").skip(1);
    let rest: Vec<&str> = inside.clone().skip_while(|line| **line != "```").skip(1).copied().collect();
    let body: Vec<&str> = inside.take_while(|line| **line != "```").copied().collect();
    let remark = prose(&rest.join("\n"));
    let remark = if remark.is_empty() { remark } else { format!("{remark}\n\n") };
    if body.is_empty() { String::new() } else { format!("```text\n{}\n```\n\n{remark}", body.join("\n")) }
}

fn message(out: &mut String, message: &Descriptor) {
    let _ = writeln!(out, "#### {} {}\n\n{}\n", message.code, message.name, prose(message.doc));
    match message.answer {
        Some("ResultMsg") => *out += "Answer: `ResultMsg`.\n\n",
        Some(answer) => {
            let _ = writeln!(out, "Answer: `{answer}`; if refused, `ResultMsg`.\n");
        }
        None => {}
    }
    if message.fields.is_empty() {
        *out += "No fields.\n\n";
    } else {
        fields(out, message.fields);
        out.push('\n');
    }
}

/// All messages, flow by flow.
pub(crate) fn messages() -> String {
    let mut out = String::new();
    for flow in catalog::FLOWS {
        let range =
            |(first, last): &(u16, u16)| if first == last { format!("{first}") } else { format!("{first}–{last}") };
        let ranges: Vec<String> = flow.ranges.iter().map(range).collect();
        let _ = writeln!(out, "### Flow: {}\n\nCodes {}.\n", flow.name, ranges.join(", "));
        out += &diagram(flow);
        flow.messages.iter().for_each(|entry| message(&mut out, entry));
    }
    out
}

/// All records.
pub(crate) fn records() -> String {
    let mut out = String::new();
    for record in schema::records() {
        let _ = writeln!(out, "#### {}\n\n{}\n", record.name, prose(record.doc));
        fields(&mut out, record.fields);
        out.push('\n');
    }
    out
}

fn values(out: &mut String, open: &OpenEnum) {
    *out += "| value | name | meaning |\n|---|---|---|\n";
    for (value, name, doc) in open.values {
        let _ = writeln!(out, "| {value} | {name} | {} |", prose(doc));
    }
}

/// All open integers, result codes among them.
pub(crate) fn enums() -> String {
    let mut out = String::new();
    for open in catalog::ENUMS {
        let _ = writeln!(out, "#### {} ({})\n\n{}\n", open.name, open.ty, prose(open.doc));
        values(&mut out, open);
        out.push('\n');
    }
    out
}

/// Why sessions are closed.
pub(crate) fn close_reasons() -> String {
    let mut out = String::new();
    values(&mut out, &session::CloseReason::OPEN_ENUM);
    out
}

/// All messages by code, with their vectors.
pub(crate) fn index() -> String {
    let mut rows: Vec<&Descriptor> = catalog::all().collect();
    rows.sort_by_key(|message| message.code);
    let mut out = String::from("| code | message | example, bytes | sent as |\n|---|---|---|---|\n");
    for message in rows {
        let len = vector::frame(message).map_or(0, |frame| frame.len());
        let kind = vector::head(message).2;
        let _ = writeln!(out, "| {} | [{}](../xmmep/vectors/{1}.hex) | {len} | {kind} |", message.code, message.name);
    }
    let burnt: Vec<String> = catalog::BURNT.iter().map(u16::to_string).collect();
    let _ = writeln!(out, "\nNever assigned: {}.", burnt.join(", "));
    out
}
