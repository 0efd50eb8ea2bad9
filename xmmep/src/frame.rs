//! The frame: a header of seven bytes (code, flags, sequence number) and the body of one message. What the body
//! says lives in `messages/`; how frames travel in `session/` and `stream.rs`.
//!
//! ```text
//! 0      2       3            7
//! ├──────┼───────┼────────────┼─────────────┄
//! │ code │ flags │  sequence  │  body
//! └──────┴───────┴────────────┴─────────────┄   big-endian
//! ```

use core::fmt;
use std::cell::Cell;

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use crate::block;
use crate::error::FrameError;
use crate::message::Message;
use crate::sample::{Sample, Sampler};

/// Bytes of a header.
pub const HEADER_LEN: usize = 7;
/// The largest frame before authentication. Nothing a stranger may say is longer.
pub const FRAME_MAX_STRANGER: usize = 4 * 1024;
/// The largest frame on a client link: 16 fragments of a datagram.
pub const FRAME_MAX_CLIENT: usize = 16 * 1024;
/// The largest frame on a link between servers.
pub const FRAME_MAX_LINK: usize = 1024 * 1024;

/// The code of a message: the key of the handler registry. Embedders own 0x8000 and above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u16);

impl Code {
    /// The first code that belongs to embedders. X-Messenger never assigns one from here on.
    pub const EMBEDDER_FIRST: Self = Self(0x8000);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Sample for Code {
    fn sample(sampler: &mut Sampler) -> Self {
        Self(u16::sample(sampler))
    }
}

/// Relates an answer to its request. Each side of a link counts its own requests from 1 upwards; 0 belongs to
/// messages that want no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u32);

impl Sequence {
    /// For messages that want no answer.
    pub const NONE: Self = Self(0);

    /// The next one; skips 0 when it wraps.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1).max(1))
    }
}

/// Whether a frame asks or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request, or a message that wants no answer. The sequence number is the sender's.
    Ask,
    /// An answer. The sequence number is the one of the request. An answer is never answered.
    Answer,
}

const FLAG_ANSWER: u8 = 0b0000_0001;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the body is.
    pub code: Code,
    /// Whether it asks or answers.
    pub kind: Kind,
    /// Which request it is or answers.
    pub sequence: Sequence,
}

/// A frame taken apart; the body still shares the bytes it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The header.
    pub header: Header,
    /// The body: postcard of the message's fields in order.
    pub body: Bytes,
}

impl Frame {
    /// Takes `bytes` apart without copying.
    ///
    /// # Errors
    /// If they are shorter than a header or a reserved flag is set.
    #[inline]
    pub fn decode(mut bytes: Bytes) -> Result<Self, FrameError> {
        let (header, _) = split(&bytes)?;
        bytes.advance(HEADER_LEN);
        Ok(Self { header, body: bytes })
    }

    /// The message in the body.
    ///
    /// # Errors
    /// If the code is not `M`'s, or the body is malformed.
    #[inline]
    pub fn message<M: Message>(&self) -> Result<M, FrameError> {
        if self.header.code != M::CODE {
            return Err(FrameError::OtherCode { found: self.header.code, wanted: M::CODE });
        }
        Ok(M::decode_body(&self.body)?)
    }
}

/// The header of a frame and the body behind it, where they are.
///
/// # Errors
/// As [`Frame::decode`].
#[inline]
pub fn split(frame: &[u8]) -> Result<(Header, &[u8]), FrameError> {
    let Some((&[c0, c1, flags, s0, s1, s2, s3], body)) = frame.split_first_chunk::<HEADER_LEN>() else {
        return Err(FrameError::Short(frame.len()));
    };
    if flags & !FLAG_ANSWER != 0 {
        return Err(FrameError::ReservedFlags(flags & !FLAG_ANSWER));
    }
    let header = Header {
        code: Code(u16::from_be_bytes([c0, c1])),
        kind: if flags & FLAG_ANSWER == 0 { Kind::Ask } else { Kind::Answer },
        sequence: Sequence(u32::from_be_bytes([s0, s1, s2, s3])),
    };
    Ok((header, body))
}

/// The frame of a message that wants no answer.
pub fn notice<M: Message>(message: &M) -> Bytes {
    encode(Header { code: M::CODE, kind: Kind::Ask, sequence: Sequence::NONE }, message)
}

/// The frame of a request.
pub fn request<M: Message>(message: &M, sequence: Sequence) -> Bytes {
    encode(Header { code: M::CODE, kind: Kind::Ask, sequence }, message)
}

/// The frame of an answer to the request with that sequence number.
pub fn answer<M: Message>(message: &M, sequence: Sequence) -> Bytes {
    encode(Header { code: M::CODE, kind: Kind::Answer, sequence }, message)
}

fn encode<M: Message>(header: Header, message: &M) -> Bytes {
    write(header, |out| message.encode_body(out))
}

/// The frame of a message that wants no answer, whose body is written by `body`.
pub(crate) fn notice_with(code: Code, body: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    write(Header { code, kind: Kind::Ask, sequence: Sequence::NONE }, body)
}

thread_local! {
    /// Where frames are written before their length is known, so that they take no more than they need.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

fn write(header: Header, body: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = SCRATCH.take();
    out.clear();
    let [c0, c1] = header.code.0.to_be_bytes();
    let [s0, s1, s2, s3] = header.sequence.0.to_be_bytes();
    let flags = if header.kind == Kind::Answer { FLAG_ANSWER } else { 0 };
    out.extend_from_slice(&[c0, c1, flags, s0, s1, s2, s3]);
    body(&mut out);
    let frame = block::piece(&out);
    if out.capacity() <= FRAME_MAX_CLIENT {
        SCRATCH.set(out);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::login::ClientReady;

    #[test]
    fn a_header_is_read_back_as_written() {
        let frame = Frame::decode(answer(&ClientReady {}, Sequence(7))).unwrap();
        assert_eq!(frame.header, Header { code: Code(128), kind: Kind::Answer, sequence: Sequence(7) });
        assert!(frame.body.is_empty());
    }

    #[test]
    fn every_frame_shorter_than_a_header_is_refused() {
        for len in 0..HEADER_LEN {
            assert_eq!(Frame::decode(Bytes::from(vec![0; len])), Err(FrameError::Short(len)));
        }
    }

    #[test]
    fn each_reserved_flag_is_refused() {
        for bit in 1..8 {
            let bytes = Bytes::from(vec![0, 128, 1 << bit, 0, 0, 0, 0]);
            assert_eq!(Frame::decode(bytes), Err(FrameError::ReservedFlags(1 << bit)));
        }
    }

    #[test]
    fn sequence_numbers_skip_zero() {
        assert_eq!(Sequence(u32::MAX).next(), Sequence(1));
    }
}
