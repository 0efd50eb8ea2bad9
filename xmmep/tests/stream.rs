//! Frames on a byte stream: however the network cuts it, whole frames come out, and lies are refused unread.
#![cfg(feature = "tokio")]

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio_util::codec::{Decoder, Encoder, FramedRead};
use xmmep::frame::{FRAME_MAX_LINK, FRAME_MAX_STRANGER};
use xmmep::stream::{FrameCodec, LENGTH_LEN, StreamError};

fn frames() -> Vec<Bytes> {
    let lengths = [1, 7, 100, 255, 256, FRAME_MAX_STRANGER];
    lengths.iter().zip(1u8..).map(|(len, fill)| Bytes::from(vec![fill; *len])).collect()
}

fn joined(frames: &[Bytes]) -> BytesMut {
    let mut stream = BytesMut::new();
    for frame in frames {
        FrameCodec::new().encode(frame.clone(), &mut stream).expect("within the limit");
    }
    stream
}

/// Hands `stream` over in pieces of `size` bytes and collects what comes out, up to the first error.
fn in_pieces(stream: &[u8], size: usize) -> (Vec<Bytes>, Option<StreamError>) {
    let (mut codec, mut buffer, mut out) = (FrameCodec::new(), BytesMut::new(), Vec::new());
    for piece in stream.chunks(size) {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(frame)) => out.push(frame),
                Ok(None) => break,
                Err(error) => return (out, Some(error)),
            }
        }
    }
    (out, codec.decode_eof(&mut buffer).err())
}

#[test]
fn a_length_is_four_bytes_big_endian() {
    assert_eq!(&joined(&[Bytes::from(vec![9; 258])])[..6], [0, 0, 1, 2, 9, 9]);
}

#[test]
fn one_byte_at_a_time_gives_the_same_frames_as_all_at_once() {
    let stream = joined(&frames());
    for size in [1, 2, 3, 5, 1_000, stream.len()] {
        let (out, error) = in_pieces(&stream, size);
        assert!(out == frames() && error.is_none(), "pieces of {size}: {} frames, {error:?}", out.len());
    }
}

#[tokio::test]
async fn a_reader_gets_the_frames_of_a_pipe_of_one_byte() {
    let stream = joined(&frames());
    let (read_half, mut write_half) = tokio::io::duplex(1);
    let write = async move {
        write_half.write_all(&stream).await.unwrap();
        drop(write_half);
    };
    let read = FramedRead::new(read_half, FrameCodec::new()).map(Result::unwrap).collect::<Vec<_>>();
    let ((), out) = tokio::join!(write, read);
    assert_eq!(out, frames());
}

#[tokio::test]
async fn a_reader_learns_that_the_pipe_broke_inside_a_frame() {
    for kept in [2, LENGTH_LEN, LENGTH_LEN + 1] {
        let mut reader = FramedRead::new(&[0, 0, 0, 9, 1][..kept], FrameCodec::new());
        assert!(matches!(reader.next().await, Some(Err(StreamError::Cut))), "{kept} bytes");
        assert!(reader.next().await.is_none(), "{kept} bytes");
    }
}

#[test]
fn a_stream_that_ends_inside_a_frame_is_an_error_at_every_byte() {
    let frames = &frames()[..3];
    let stream = joined(frames);
    let boundaries: Vec<usize> = (0..=3).map(|count| joined(&frames[..count]).len()).collect();
    for cut in 0..=stream.len() {
        for size in [1, 3, stream.len()] {
            let (_, error) = in_pieces(&stream[..cut], size);
            let fine =
                if boundaries.contains(&cut) { error.is_none() } else { matches!(error, Some(StreamError::Cut)) };
            assert!(fine, "cut at {cut}, pieces of {size}: {error:?}");
        }
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_anything_is_allocated_for_it() {
    for length in [u32::MAX, 1 << 31, (1 << 31) - 1, FRAME_MAX_STRANGER as u32 + 1] {
        let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
        let error = FrameCodec::new().decode(&mut buffer).unwrap_err();
        assert!(matches!(error, StreamError::TooLarge { max: FRAME_MAX_STRANGER }), "{length}: {error}");
        assert!(buffer.capacity() < 64, "{length}: {} bytes reserved", buffer.capacity());
    }
}

#[test]
fn a_length_of_zero_is_refused() {
    let (out, error) = in_pieces(&[0, 0, 0, 1, 5, 0, 0, 0, 0], 1);
    assert_eq!(out, [Bytes::from_static(&[5])]);
    assert!(matches!(error, Some(StreamError::Empty)), "{error:?}");
}

#[test]
fn the_limit_rises_for_the_next_frame_and_falls_again() {
    let big = Bytes::from(vec![1; FRAME_MAX_STRANGER + 1]);
    let (mut codec, mut stream) = (FrameCodec::new(), BytesMut::new());
    assert!(matches!(codec.encode(big.clone(), &mut stream), Err(StreamError::TooLarge { .. })));
    assert!(stream.is_empty());

    codec.set_limit(FRAME_MAX_LINK);
    codec.encode(big.clone(), &mut stream).unwrap();
    assert_eq!(codec.decode(&mut stream.clone()).unwrap(), Some(big));

    codec.set_limit(FRAME_MAX_STRANGER);
    assert!(matches!(codec.decode(&mut stream), Err(StreamError::TooLarge { .. })));
}

#[test]
fn an_empty_frame_is_not_sent() {
    let mut stream = BytesMut::new();
    assert!(matches!(FrameCodec::new().encode(Bytes::new(), &mut stream), Err(StreamError::Empty)));
    assert!(stream.is_empty());
}
