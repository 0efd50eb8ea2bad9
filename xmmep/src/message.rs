//! What a message is, and `messages!`, which declares them. The messages themselves live in `messages/`.

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use crate::error::{DecodeError, Problem};
use crate::frame::Code;
use crate::sample::Sampler;

/// One message of the protocol. Implemented by [`messages!`](crate::messages!), not by hand.
pub trait Message: Sized + Send + 'static {
    /// Its code, unique in the catalogue.
    const CODE: Code;
    /// Its Rust name; `LoginReq` is `MSG_LOGIN_REQ` of the message tables.
    const NAME: &'static str;

    /// Appends the body to `out`: the fields in order, each as postcard.
    fn encode_body(&self, out: &mut Vec<u8>);

    /// Reads a body. Bytes after the last known field are ignored (a newer peer sent them); missing fields that have
    /// a default get it (an older peer left them out).
    ///
    /// # Errors
    /// If a field is malformed, or truncated, or missing without a default.
    fn decode_body(body: &[u8]) -> Result<Self, DecodeError>;
}

/// A message that wants an answer of one type. A refusal is answered by [`ResultMsg`](crate::messages::ResultMsg).
pub trait Request: Message {
    /// The answer.
    type Answer: Message;
}

/// What the catalogue knows of a message: enough to test, document and fuzz it without naming its type.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Its code.
    pub code: Code,
    /// Its Rust name.
    pub name: &'static str,
    /// Its documentation. The first line says who sends it to whom.
    pub doc: &'static str,
    /// The answer's Rust name, if it is a request.
    pub answer: Option<&'static str>,
    /// Its fields, in order.
    pub fields: &'static [Field],
    /// The body of an example.
    pub sample: fn(&mut Sampler) -> Vec<u8>,
    /// Decodes a body and encodes it again.
    pub recode: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
    /// Where each field of a body ends, in bytes from its start.
    pub field_ends: fn(&[u8]) -> Result<Vec<usize>, DecodeError>,
}

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its Rust type.
    pub ty: &'static str,
    /// Its documentation.
    pub doc: &'static str,
    /// What it is when the bytes end before it, as Rust text.
    pub default: Option<&'static str>,
}

/// Declares messages: `code Name { field: Type, … }`, requests as `code Name -> Answer { … }`.
///
/// A field that joins later comes last and states what it is when an older peer leaves it out: `field: Type = default`.
/// Field types implement serde's traits and [`Sample`](crate::sample::Sample), are never maps, and bound every string and list
/// ([`bounded`](crate::bounded)).
///
/// ```
/// use xmmep::bounded::Text;
/// use xmmep::message::Message;
///
/// xmmep::messages! {
///     /// Client → Presence: play a note.
///     0x8001 PlayNote { pitch: u8, lyrics: Text<64> = Text::default() }
/// }
///
/// let mut body = Vec::new();
/// PlayNote { pitch: 60, lyrics: Text::new("la").unwrap() }.encode_body(&mut body);
/// assert_eq!(&body[..], [60, 2, b'l', b'a']);
/// assert_eq!(PlayNote::decode_body(&[60]).unwrap().lyrics.as_str(), "");   // from a peer that knows no lyrics
/// assert_eq!(MESSAGES[0].name, "PlayNote");
/// ```
///
/// Each entry becomes a struct with public fields that implements [`Message`] (and [`Request`]); all together
/// become `pub const MESSAGES: &[Descriptor]`.
#[macro_export]
macro_rules! messages {
    ($(
        $(#[doc = $doc:literal])*
        $code:literal $name:ident $(-> $answer:ident)? {
            $( $(#[doc = $field_doc:literal])* $field:ident : $ty:ty $(= $default:expr)? ),* $(,)?
        }
    )*) => {
        /// The messages declared here, for the catalogue.
        pub const MESSAGES: &[$crate::message::Descriptor] = &[$(
            $crate::message::Descriptor {
                code: $crate::frame::Code($code),
                name: stringify!($name),
                doc: concat!($($doc, "\n"),*),
                answer: $crate::messages!(@answer $($answer)?),
                fields: &[$(
                    $crate::message::Field {
                        name: stringify!($field),
                        ty: stringify!($ty),
                        doc: concat!($($field_doc, "\n"),*),
                        default: $crate::messages!(@default_text $($default)?),
                    }
                ),*],
                sample: |sampler| $crate::message::body_of(&<$name as $crate::sample::Sample>::sample(sampler)),
                recode: |body| {
                    <$name as $crate::message::Message>::decode_body(body).map(|m| $crate::message::body_of(&m))
                },
                field_ends: |body| {
                    #[allow(unused_mut)]
                    let mut reader = $crate::message::Reader::new(stringify!($name), body);
                    #[allow(unused_mut)]
                    let mut ends = Vec::new();
                    $(
                        let _: $ty = $crate::messages!(@read reader $field $($default)?);
                        ends.push(reader.offset());
                    )*
                    let _ = &reader;
                    Ok(ends)
                },
            }
        ),*];

        $(
            $(#[doc = $doc])*
            #[allow(missing_docs, reason = "fields of embedders may go without")]
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $name { $( $(#[doc = $field_doc])* pub $field: $ty ),* }

            impl $crate::message::Message for $name {
                const CODE: $crate::frame::Code = $crate::frame::Code($code);
                const NAME: &'static str = stringify!($name);

                #[allow(unused_variables)]
                fn encode_body(&self, out: &mut Vec<u8>) {
                    $( $crate::message::put(&self.$field, out); )*
                }

                #[allow(unused_mut, unused_variables)]
                #[inline]
                fn decode_body(body: &[u8]) -> Result<Self, $crate::error::DecodeError> {
                    let mut reader = $crate::message::Reader::new(stringify!($name), body);
                    Ok(Self { $( $field: $crate::messages!(@read reader $field $($default)?) ),* })
                }
            }

            impl $crate::sample::Sample for $name {
                #[allow(unused_variables)]
                fn sample(sampler: &mut $crate::sample::Sampler) -> Self {
                    Self { $( $field: $crate::sample::Sample::sample(sampler) ),* }
                }
            }

            $( impl $crate::message::Request for $name { type Answer = $answer; } )?
        )*
    };
    (@answer) => { None };
    (@answer $answer:ident) => { Some(stringify!($answer)) };
    (@default_text) => { None };
    (@default_text $default:expr) => { Some(stringify!($default)) };
    (@read $reader:ident $field:ident) => { $reader.required(stringify!($field))? };
    (@read $reader:ident $field:ident $default:expr) => { $reader.or_else(stringify!($field), || $default)? };
}

/// Declares records: parts of messages. A record never changes once published, because nothing inside a message says
/// where it ends; what is new comes as a new field of the message.
macro_rules! records {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident { $( $(#[doc = $field_doc:literal])* $field:ident : $ty:ty ),* $(,)? }
    )*) => {
        /// The records declared here, for the documentation.
        pub const RECORDS: &[$crate::message::Record] = &[$(
            $crate::message::Record {
                name: stringify!($name),
                doc: concat!($($doc, "\n"),*),
                fields: &[$(
                    $crate::message::Field {
                        name: stringify!($field),
                        ty: stringify!($ty),
                        doc: concat!($($field_doc, "\n"),*),
                        default: None,
                    }
                ),*],
            }
        ),*];

        $(
            $(#[doc = $doc])*
            #[derive(Clone, Debug, PartialEq, Eq, ::serde::Serialize, ::serde::Deserialize)]
            pub struct $name { $( $(#[doc = $field_doc])* pub $field: $ty ),* }

            impl $crate::sample::Sample for $name {
                fn sample(sampler: &mut $crate::sample::Sampler) -> Self {
                    Self { $( $field: $crate::sample::Sample::sample(sampler) ),* }
                }
            }
        )*
    };
}
pub(crate) use records;

/// What the documentation knows of a record.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Its Rust name.
    pub name: &'static str,
    /// Its documentation.
    pub doc: &'static str,
    /// Its fields, in order.
    pub fields: &'static [Field],
}

/// What the documentation knows of an integer with named values. Unknown values are kept as they are.
#[derive(Clone, Copy, Debug)]
pub struct OpenEnum {
    /// Its Rust name.
    pub name: &'static str,
    /// Its documentation.
    pub doc: &'static str,
    /// The integer it is on the wire.
    pub ty: &'static str,
    /// Value, name and documentation of each value known today.
    pub values: &'static [(u64, &'static str, &'static str)],
}

/// The body of `message`.
#[must_use]
pub fn body_of<M: Message>(message: &M) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode_body(&mut out);
    out
}

/// Appends one field to a body. For [`messages!`](crate::messages!).
#[doc(hidden)]
pub fn put<T: Serialize>(field: &T, out: &mut Vec<u8>) {
    // Writing into memory cannot fail, and no field type has a serializer that refuses (checked by the catalogue's tests).
    let written = postcard::serialize_with_flavor(field, Body(out));
    debug_assert!(written.is_ok(), "a field refused to be serialized");
}

/// Postcard's output, straight into the frame.
struct Body<'a>(&'a mut Vec<u8>);

impl Flavor for Body<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Reads the fields of a body one after the other. For [`messages!`](crate::messages!).
#[doc(hidden)]
#[derive(Debug)]
pub struct Reader<'a> {
    message: &'static str,
    len: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// At the start of `body`.
    #[must_use]
    pub fn new(message: &'static str, body: &'a [u8]) -> Self {
        Self { message, len: body.len(), rest: body }
    }

    /// How far it has read.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.len.saturating_sub(self.rest.len())
    }

    /// Reads a field that has to be there.
    #[inline(always)]
    pub fn required<T: Deserialize<'a>>(&mut self, field: &'static str) -> Result<T, DecodeError> {
        match postcard::take_from_bytes(self.rest) {
            Ok((value, rest)) => {
                self.rest = rest;
                Ok(value)
            }
            Err(error) => {
                let truncated = error == postcard::Error::DeserializeUnexpectedEnd;
                let problem = if truncated { Problem::Truncated } else { Problem::Malformed };
                Err(DecodeError { message: self.message, field, offset: self.offset(), problem })
            }
        }
    }

    /// Reads a field that an older peer leaves out.
    pub fn or_else<T: Deserialize<'a>>(
        &mut self,
        field: &'static str,
        default: impl FnOnce() -> T,
    ) -> Result<T, DecodeError> {
        if self.rest.is_empty() { Ok(default()) } else { self.required(field) }
    }
}
