//! What can be wrong with bytes from outside. Refusals of legal requests are `result_code.rs`.

use crate::frame::Code;

/// The body of a message does not say what its code promises. The sender has a bug or is hostile: count it, drop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} is {problem} in field `{field}`, at byte {offset} of the body")]
pub struct DecodeError {
    /// The message, by its Rust name.
    pub message: &'static str,
    /// The first field that could not be read.
    pub field: &'static str,
    /// Where that field starts, in bytes from the start of the body.
    pub offset: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The bytes end before the field does.
    Truncated,
    /// Over its bound, not UTF-8, not a valid name: the bytes are no value of the field's type.
    Malformed,
}

impl core::fmt::Display for Problem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
        })
    }
}

/// A frame that cannot be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than a header has.
    #[error("a frame of {0} bytes is shorter than its header")]
    Short(usize),
    /// More bytes than this link allows.
    #[error("a frame of {len} bytes where at most {max} are allowed")]
    TooLarge {
        /// What came.
        len: usize,
        /// What is allowed.
        max: usize,
    },
    /// A flag that this version does not know.
    #[error("reserved flags {0:#04x} are set")]
    ReservedFlags(u8),
    /// The message has another code than the one that was asked for.
    #[error("the frame holds code {found}, not {wanted}")]
    OtherCode {
        /// The code in the header.
        found: Code,
        /// The code of the type that was asked for.
        wanted: Code,
    },
    /// The body is not what the code promises.
    #[error(transparent)]
    Body(#[from] DecodeError),
}
