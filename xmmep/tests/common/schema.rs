//! A second reader of message bodies, written from `docs/PROTOCOL.md` alone: it knows the names of field types and the
//! encoding rules of that page, and shares no code with the codec. So each checks the other, and it can say where in a
//! body every value and every length stands.

use std::ops::Range;

use xmmep::catalog;
use xmmep::message::{Field, Record};

/// How a type looks on the wire.
#[derive(Clone, Debug)]
pub enum Wire {
    /// One byte.
    U8,
    /// A varint of that many bits.
    Varint(u32),
    /// One byte, 0 or 1.
    Bool,
    /// That many bytes, without a length.
    Bytes(usize),
    /// A length, then UTF-8; at most that many bytes, no U+0000.
    Text(usize),
    /// A length, then a user name.
    Name,
    /// A length, then an e-mail address.
    Email,
    /// A length, then that many bytes at most.
    Blob(usize),
    /// A count, then that many entries at most.
    List(String, usize),
    /// 0, or 1 and the value.
    Option(String),
    /// The fields, one after the other.
    Record(&'static Record),
}

/// A type that is another one on the wire: name, wire type, meaning.
pub const SCALARS: &[(&str, &str, &str)] = &[
    ("UserId", "u64", "a user, for ever; 0 is nobody"),
    ("GroupId", "u32", "one of a user's buddy groups; 0 is the default group"),
    ("RoomId", "u64", "a room"),
    ("OwnerEpoch", "u64", "how often a Presence identity has changed owner"),
    ("RosterVersion", "u64", "version of groups, buddies and blocked; grows with every committed change"),
    ("WallTime", "u64", "milliseconds since 1970-01-01 00:00 UTC"),
    ("Code", "u16", "the code of a message"),
    ("MsgId", "[u8; 16]", "a message; drawn at random by the sending client"),
    ("RequestId", "[u8; 16]", "a request that may be repeated; drawn at random"),
    ("DeviceId", "[u8; 16]", "a device; drawn at random when the client is installed"),
    ("Salt", "[u8; 16]", "salt of a login key"),
    ("LoginKey", "[u8; 32]", "a login key"),
    ("KeyHash", "[u8; 32]", "the hash of a login key"),
    ("Token", "[u8; 32]", "a token from a mail"),
    ("TokenHash", "[u8; 32]", "the hash of such a token"),
    ("TicketKey", "[u8; 32]", "seals admission tickets"),
];

const fn plain(name: &'static str, ty: &'static str, doc: &'static str) -> Field {
    Field { name, ty, doc, default: None }
}

/// Records that are no part of a `records!` table.
pub const MORE_RECORDS: &[Record] = &[
    Record {
        name: "PresenceId",
        doc: "The identity of a Presence; `C1P2` is cluster 1, Presence 2.\n",
        fields: &[plain("cluster", "u16", "From 1.\n"), plain("presence", "u16", "Within the cluster, from 1.\n")],
    },
    Record {
        name: "KdfParams",
        doc: "Cost of the derivation of a login key (Argon2id).\n",
        fields: &[
            plain("memory_kib", "u32", "Memory, in KiB.\n"),
            plain("passes", "u32", "Passes over the memory.\n"),
            plain("lanes", "u32", "Lanes.\n"),
        ],
    },
];

/// All records of the protocol.
pub fn records() -> impl Iterator<Item = &'static Record> {
    catalog::FLOWS.iter().flat_map(|flow| flow.records).chain(MORE_RECORDS)
}

/// A type as it stands in a message, without paths and with one spelling of spaces.
pub fn tidy(ty: &str) -> String {
    let ty = ty.replace(' ', "").replace(',', ", ").replace(';', "; ");
    let (head, inner) = ty.split_once('<').map_or((ty.as_str(), None), |(head, inner)| (head, Some(inner)));
    let head = head.rsplit("::").next().unwrap_or(head);
    match inner {
        Some(inner) => format!("{head}<{}>", tidy(inner.strip_suffix('>').unwrap_or(inner))),
        None => head.to_owned(),
    }
}

/// What a type looks like on the wire. A type that this page does not know is an error that names it.
pub fn wire(ty: &str) -> Result<Wire, String> {
    let ty = tidy(ty);
    let unknown = || format!("{ty} is no type of docs/PROTOCOL.md");
    let number = |text: &str| text.trim().parse().map_err(|_| unknown());
    if let Some((head, inner)) = ty.strip_suffix('>').and_then(|rest| rest.split_once('<')) {
        return match head {
            "Text" | "PrivateText" => Ok(Wire::Text(number(inner)?)),
            "Blob" => Ok(Wire::Blob(number(inner)?)),
            "Option" => Ok(Wire::Option(inner.to_owned())),
            "List" => {
                let (entry, max) = inner.rsplit_once(',').ok_or_else(unknown)?;
                Ok(Wire::List(entry.to_owned(), number(max)?))
            }
            _ => Err(unknown()),
        };
    }
    if let Some(len) = ty.strip_prefix("[u8;").and_then(|rest| rest.strip_suffix(']')) {
        return Ok(Wire::Bytes(number(len)?));
    }
    if let Some((_, inner, _)) = SCALARS.iter().find(|(name, ..)| *name == ty) {
        return wire(inner);
    }
    if let Some(open) = catalog::ENUMS.iter().find(|open| open.name == ty) {
        return wire(open.ty);
    }
    if let Some(record) = records().find(|record| record.name == ty) {
        return Ok(Wire::Record(record));
    }
    match ty.as_str() {
        "u8" => Ok(Wire::U8),
        "u16" => Ok(Wire::Varint(16)),
        "u32" => Ok(Wire::Varint(32)),
        "u64" => Ok(Wire::Varint(64)),
        "bool" => Ok(Wire::Bool),
        "UserName" => Ok(Wire::Name),
        "Email" => Ok(Wire::Email),
        _ => Err(unknown()),
    }
}

/// The shortest value of a type.
pub fn shortest(ty: &str) -> Result<Vec<u8>, String> {
    Ok(match wire(ty)? {
        Wire::Bytes(len) => vec![0; len],
        Wire::Name => b"\x01a".to_vec(),
        Wire::Email => b"\x03a@b".to_vec(),
        Wire::Record(record) => {
            let fields: Result<Vec<_>, _> = record.fields.iter().map(|field| shortest(field.ty)).collect();
            fields?.concat()
        }
        _ => vec![0],
    })
}

/// The shortest form of a varint.
pub fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A value that has no parts, or the length or tag before one that has.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Field, then fields of records and positions in lists.
    pub path: String,
    /// Its type, or `count`, `tag`.
    pub ty: String,
    /// Where it stands in the body; a text with its length.
    pub at: Range<usize>,
    /// For people.
    pub value: String,
}

/// A length or count in a body.
#[derive(Clone, Debug)]
pub struct Length {
    /// The value it is part of.
    pub path: String,
    /// Where the length itself stands.
    pub at: Range<usize>,
    /// What it counts.
    pub content: Range<usize>,
    /// Its bound: bytes, or entries of a list.
    pub max: usize,
    /// For a list: its first entry. For the others: none.
    pub first_entry: Option<Range<usize>>,
    /// How it is counted.
    pub wire: Wire,
}

/// A body taken apart.
#[derive(Debug, Default)]
pub struct Walk {
    /// Its values, in order.
    pub leaves: Vec<Leaf>,
    /// Its lengths, in order.
    pub lengths: Vec<Length>,
}

/// Takes a body apart. What follows the last field is left alone.
pub fn walk(fields: &[Field], body: &[u8]) -> Result<Walk, String> {
    let mut walker = Walker { body, at: 0, out: Walk::default() };
    for field in fields {
        if field.default.is_some() && walker.at == body.len() {
            break;
        }
        walker.value(field.name.to_owned(), field.ty)?;
    }
    Ok(walker.out)
}

struct Walker<'a> {
    body: &'a [u8],
    at: usize,
    out: Walk,
}

impl<'a> Walker<'a> {
    fn take(&mut self, path: &str, len: usize) -> Result<&'a [u8], String> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let taken = rest.get(..len).ok_or_else(|| format!("{path}: the body ends at {}", self.body.len()))?;
        self.at += len;
        Ok(taken)
    }

    fn varint(&mut self, path: &str, bits: u32) -> Result<u64, String> {
        let mut value: u128 = 0;
        for index in 0..bits.div_ceil(7) {
            let byte = self.take(path, 1)?.first().copied().unwrap_or_default();
            value |= u128::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                let fits = value < 1_u128 << bits;
                return u64::try_from(value).ok().filter(|_| fits).ok_or_else(|| format!("{path}: over {bits} bits"));
            }
        }
        Err(format!("{path}: a varint of over {bits} bits"))
    }

    fn leaf(&mut self, path: &str, ty: &str, start: usize, value: String) {
        self.out.leaves.push(Leaf { path: path.to_owned(), ty: tidy(ty), at: start..self.at, value });
    }

    /// A length and its bytes.
    fn counted(&mut self, path: &str, max: usize, wire: &Wire) -> Result<&'a [u8], String> {
        let start = self.at;
        let len = usize::try_from(self.varint(path, 64)?).map_err(|_| format!("{path}: length"))?;
        let prefix = start..self.at;
        let bytes = self.take(path, len)?;
        if len > max {
            return Err(format!("{path}: {len} bytes, at most {max}"));
        }
        let content = prefix.end..self.at;
        let length = Length { path: path.to_owned(), at: prefix, content, max, first_entry: None, wire: wire.clone() };
        self.out.lengths.push(length);
        Ok(bytes)
    }

    fn text(&mut self, path: &str, max: usize, wire: &Wire) -> Result<&'a str, String> {
        let bytes = self.counted(path, max, wire)?;
        let text = std::str::from_utf8(bytes).map_err(|_| format!("{path}: not UTF-8"))?;
        if text.contains('\0') { Err(format!("{path}: U+0000")) } else { Ok(text) }
    }

    fn value(&mut self, path: String, ty: &str) -> Result<(), String> {
        let start = self.at;
        let wire = wire(ty)?;
        let value = match &wire {
            Wire::U8 => self.varint_of_one(&path)?.to_string(),
            Wire::Varint(bits) => self.varint(&path, *bits)?.to_string(),
            Wire::Bool => match self.varint_of_one(&path)? {
                0 => "false".to_owned(),
                1 => "true".to_owned(),
                other => return Err(format!("{path}: {other} is no bool")),
            },
            Wire::Bytes(len) => {
                self.take(&path, *len)?;
                format!("{len} bytes")
            }
            Wire::Text(max) => format!("{:?}", self.text(&path, *max, &wire)?),
            // 32 characters of at most four bytes.
            Wire::Name => format!("{:?}", self.text(&path, 128, &wire)?),
            Wire::Email => format!("{:?}", self.text(&path, 254, &wire)?),
            Wire::Blob(max) => format!("{} bytes", self.counted(&path, *max, &wire)?.len()),
            Wire::List(entry, max) => return self.list(&path, entry, *max, &wire),
            Wire::Option(inner) => {
                let tag = self.varint_of_one(&path)?;
                self.leaf(&path, ty, start, if tag == 0 { "none" } else { "some" }.to_owned());
                return match tag {
                    0 => Ok(()),
                    1 => self.value(path, inner),
                    other => Err(format!("{path}: {other} is no tag")),
                };
            }
            Wire::Record(record) => {
                return record
                    .fields
                    .iter()
                    .try_for_each(|field| self.value(format!("{path}.{}", field.name), field.ty));
            }
        };
        self.leaf(&path, ty, start, value);
        Ok(())
    }

    fn varint_of_one(&mut self, path: &str) -> Result<u8, String> {
        Ok(self.take(path, 1)?.first().copied().unwrap_or_default())
    }

    fn list(&mut self, path: &str, entry: &str, max: usize, wire: &Wire) -> Result<(), String> {
        let start = self.at;
        let count = usize::try_from(self.varint(path, 64)?).map_err(|_| format!("{path}: count"))?;
        if count > max {
            return Err(format!("{path}: {count} entries, at most {max}"));
        }
        let prefix = start..self.at;
        self.leaf(path, &format!("List<{entry}, {max}>"), start, format!("{count} entries"));
        let place = self.out.lengths.len();
        let mut first_entry = None;
        for index in 0..count {
            let entry_start = self.at;
            self.value(format!("{path}[{index}]"), entry)?;
            first_entry.get_or_insert(entry_start..self.at);
        }
        let content = prefix.end..self.at;
        let length = Length { path: path.to_owned(), at: prefix, content, max, first_entry, wire: wire.clone() };
        self.out.lengths.insert(place, length);
        Ok(())
    }
}
