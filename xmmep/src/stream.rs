//! Frames on a byte stream (feature `tokio`): a length of four bytes, big-endian, then that many bytes. What a frame
//! says lives in `frame.rs`; who may connect, and what is encrypted, is the driver's business.
//!
//! ```text
//! 0        4
//! ├────────┼──────────────┄
//! │ length │ frame
//! └────────┴──────────────┄   length ≥ 1, at most the limit of this link now
//! ```

use std::io;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::length_delimited::LengthDelimitedCodecError;
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};

use crate::frame::FRAME_MAX_STRANGER;

/// Bytes of the length before each frame.
pub const LENGTH_LEN: usize = 4;

/// Cuts a byte stream into frames and joins frames to a byte stream.
///
/// Starts with the limit for strangers, [`FRAME_MAX_STRANGER`]; [`set_limit`](Self::set_limit) raises it once the peer
/// is authenticated. A length is compared with the limit before anything is allocated for it. After an error the stream
/// has no known frame boundary: close it.
#[derive(Debug)]
pub struct FrameCodec {
    lengths: LengthDelimitedCodec,
    /// A length was read, its frame not yet. The inner codec knows, but would call a stream that ends here well ended.
    in_frame: bool,
}

impl FrameCodec {
    /// For a peer that is not authenticated yet.
    #[must_use]
    pub fn new() -> Self {
        let lengths = LengthDelimitedCodec::builder()
            .length_field_length(LENGTH_LEN)
            .max_frame_length(FRAME_MAX_STRANGER)
            .new_codec();
        Self { lengths, in_frame: false }
    }

    /// The longest frame accepted and sent now, in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.lengths.max_frame_length()
    }

    /// Changes the limit, from the next frame on: one whose length was already accepted may still end. At most
    /// `u32::MAX`, the longest that a length can say.
    pub fn set_limit(&mut self, bytes: usize) {
        self.lengths.set_max_frame_length(bytes);
    }

    fn error(&self, error: io::Error) -> StreamError {
        match error.get_ref() {
            Some(inner) if inner.is::<LengthDelimitedCodecError>() => StreamError::TooLarge { max: self.limit() },
            _ => StreamError::Io(error),
        }
    }
}

impl Default for FrameCodec {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder for FrameCodec {
    type Item = Bytes;
    type Error = StreamError;

    fn decode(&mut self, stream: &mut BytesMut) -> Result<Option<Bytes>, StreamError> {
        let before = stream.len();
        match self.lengths.decode(stream) {
            Ok(Some(frame)) if frame.is_empty() => Err(StreamError::Empty),
            Ok(Some(frame)) => {
                self.in_frame = false;
                Ok(Some(frame.freeze()))
            }
            Ok(None) => {
                self.in_frame |= stream.len() < before;
                Ok(None)
            }
            Err(error) => Err(self.error(error)),
        }
    }

    fn decode_eof(&mut self, stream: &mut BytesMut) -> Result<Option<Bytes>, StreamError> {
        match self.decode(stream)? {
            Some(frame) => Ok(Some(frame)),
            None if stream.is_empty() && !self.in_frame => Ok(None),
            None => Err(StreamError::Cut),
        }
    }
}

impl Encoder<Bytes> for FrameCodec {
    type Error = StreamError;

    fn encode(&mut self, frame: Bytes, stream: &mut BytesMut) -> Result<(), StreamError> {
        if frame.is_empty() {
            return Err(StreamError::Empty);
        }
        self.lengths.encode(frame, stream).map_err(|error| self.error(error))
    }
}

/// Why a byte stream cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A length over the limit of this link now.
    #[error("a frame of more than {max} bytes")]
    TooLarge {
        /// What is allowed, in bytes.
        max: usize,
    },
    /// A length of zero: no frame is empty.
    #[error("a frame of no bytes")]
    Empty,
    /// The stream ended inside a length or a frame.
    #[error("the stream ended inside a frame")]
    Cut,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}
