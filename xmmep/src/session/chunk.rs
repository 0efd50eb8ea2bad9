//! Chunks: what the plaintext of a record is made of. Only form is judged here; what a chunk does lives in the file
//! of its subject.

use super::wire::Reader;

const PADDING: u8 = 0x00;
const PING: u8 = 0x01;
const ACK: u8 = 0x02;
const DATAGRAM: u8 = 0x03;
const PATH_CHALLENGE: u8 = 0x04;
const PATH_RESPONSE: u8 = 0x05;
const CLOSE: u8 = 0x06;
/// Plus [`FIRST`] and [`LAST`].
const DATA: u8 = 0x10;
/// The fragment begins a message.
pub(super) const FIRST: u8 = 0x01;
/// The fragment ends a message.
pub(super) const LAST: u8 = 0x02;

/// Bytes of an ACK.
pub(super) const ACK_LEN: usize = 14;
/// Bytes of a DATA chunk before its content.
pub(super) const DATA_HEADER: usize = 7;
/// Bytes of a DATAGRAM chunk before its content.
pub(super) const DATAGRAM_HEADER: usize = 3;
/// Bytes of a PATH_CHALLENGE or PATH_RESPONSE.
pub(super) const PATH_LEN: usize = 9;

/// What the peer has of our fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    /// All fragments before this one arrived.
    pub(super) next: u32,
    /// Bit `i`: fragment `next + 1 + i` arrived too.
    pub(super) beyond: u64,
    /// The low byte of the newest key epoch read.
    pub(super) epoch_low: u8,
}

/// A piece of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Data<'a> {
    pub(super) number: u32,
    /// [`FIRST`] and [`LAST`].
    pub(super) flags: u8,
    pub(super) bytes: &'a [u8],
}

/// One chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk<'a> {
    Ping,
    Ack(Ack),
    Datagram(&'a [u8]),
    PathChallenge([u8; 8]),
    PathResponse([u8; 8]),
    Close(u8),
    Data(Data<'a>),
}

/// The plaintext is no sequence of chunks: an unknown type, or a length past the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadChunk;

/// Walks the chunks of a plaintext; ends after the first bad one.
pub(super) struct Chunks<'a>(Reader<'a>);

impl<'a> Chunks<'a> {
    pub(super) fn new(plain: &'a [u8]) -> Self {
        Self(Reader(plain))
    }

    fn read(&mut self, kind: u8) -> Option<Chunk<'a>> {
        let reader = &mut self.0;
        Some(match kind {
            PING => Chunk::Ping,
            ACK => Chunk::Ack(Ack { next: reader.u32()?, beyond: reader.u64()?, epoch_low: reader.u8()? }),
            DATAGRAM => {
                let len = reader.u16()?;
                Chunk::Datagram(reader.take(len.into())?)
            }
            PATH_CHALLENGE => Chunk::PathChallenge(reader.array()?),
            PATH_RESPONSE => Chunk::PathResponse(reader.array()?),
            CLOSE => Chunk::Close(reader.u8()?),
            _ if kind & !(FIRST | LAST) == DATA => {
                let number = reader.u32()?;
                let len = reader.u16()?;
                Chunk::Data(Data { number, flags: kind & (FIRST | LAST), bytes: reader.take(len.into())? })
            }
            _ => return None,
        })
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<Chunk<'a>, BadChunk>;

    fn next(&mut self) -> Option<Self::Item> {
        let kind = loop {
            match self.0.u8()? {
                PADDING => {}
                kind => break kind,
            }
        };
        let chunk = self.read(kind).ok_or(BadChunk);
        if chunk.is_err() {
            self.0 = Reader(&[]);
        }
        Some(chunk)
    }
}

pub(super) fn put_ping(out: &mut Vec<u8>) {
    out.push(PING);
}

pub(super) fn put_ack(out: &mut Vec<u8>, ack: Ack) {
    out.push(ACK);
    out.extend_from_slice(&ack.next.to_be_bytes());
    out.extend_from_slice(&ack.beyond.to_be_bytes());
    out.push(ack.epoch_low);
}

pub(super) fn put_datagram(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(DATAGRAM);
    out.extend_from_slice(&len_of(bytes).to_be_bytes());
    out.extend_from_slice(bytes);
}

pub(super) fn put_path_challenge(out: &mut Vec<u8>, token: [u8; 8]) {
    out.push(PATH_CHALLENGE);
    out.extend_from_slice(&token);
}

pub(super) fn put_path_response(out: &mut Vec<u8>, token: [u8; 8]) {
    out.push(PATH_RESPONSE);
    out.extend_from_slice(&token);
}

pub(super) fn put_close(out: &mut Vec<u8>, reason: u8) {
    out.extend_from_slice(&[CLOSE, reason]);
}

pub(super) fn put_data(out: &mut Vec<u8>, data: Data<'_>) {
    out.push(DATA | data.flags);
    out.extend_from_slice(&data.number.to_be_bytes());
    out.extend_from_slice(&len_of(data.bytes).to_be_bytes());
    out.extend_from_slice(data.bytes);
}

fn len_of(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).expect("what goes into a datagram is shorter than 65,536 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<u8> {
        let mut plain = vec![0, 0];
        put_ping(&mut plain);
        put_ack(&mut plain, Ack { next: 5, beyond: 0b101, epoch_low: 9 });
        put_datagram(&mut plain, b"typing");
        put_path_challenge(&mut plain, [1; 8]);
        put_path_response(&mut plain, [2; 8]);
        put_data(&mut plain, Data { number: 7, flags: FIRST | LAST, bytes: b"hello" });
        plain.push(0);
        put_close(&mut plain, 3);
        plain
    }

    #[test]
    fn chunks_are_read_back_as_written_and_padding_is_skipped() {
        let plain = all();
        let read: Result<Vec<_>, _> = Chunks::new(&plain).collect();
        let expected = [
            Chunk::Ping,
            Chunk::Ack(Ack { next: 5, beyond: 0b101, epoch_low: 9 }),
            Chunk::Datagram(b"typing"),
            Chunk::PathChallenge([1; 8]),
            Chunk::PathResponse([2; 8]),
            Chunk::Data(Data { number: 7, flags: FIRST | LAST, bytes: b"hello" }),
            Chunk::Close(3),
        ];
        assert_eq!(read.unwrap(), expected);
    }

    #[test]
    fn a_plaintext_cut_inside_a_chunk_is_bad_and_ends_there() {
        let plain = all();
        let mut bad = 0;
        for len in 0..plain.len() {
            let read: Vec<_> = Chunks::new(&plain[..len]).collect();
            let errors = read.iter().filter(|chunk| chunk.is_err()).count();
            assert!(errors == 0 || (errors == 1 && read.last() == Some(&Err(BadChunk))), "cut at {len}");
            bad += errors;
        }
        assert!(bad > 40, "{bad}");
    }

    #[test]
    fn an_unknown_type_is_bad() {
        for kind in (0x07..0x10).chain(0x14..=0xff) {
            assert_eq!(Chunks::new(&[kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).next(), Some(Err(BadChunk)), "{kind:#x}");
        }
    }

    #[test]
    fn the_stated_lengths_are_the_real_ones() {
        let mut out = Vec::new();
        put_ack(&mut out, Ack { next: 0, beyond: 0, epoch_low: 0 });
        assert_eq!(out.len(), ACK_LEN);
        out.clear();
        put_data(&mut out, Data { number: 0, flags: 0, bytes: &[] });
        assert_eq!(out.len(), DATA_HEADER);
        out.clear();
        put_datagram(&mut out, &[]);
        assert_eq!(out.len(), DATAGRAM_HEADER);
        out.clear();
        put_path_response(&mut out, [0; 8]);
        assert_eq!(out.len(), PATH_LEN);
    }
}
