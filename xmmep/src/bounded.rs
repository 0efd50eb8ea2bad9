//! Text, byte strings and lists with a stated bound, enforced while decoding and before anything is allocated.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;

use bytes::Bytes;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::block;

/// A value over its bound, or with a character that no text may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoundError {
    /// More than the type can hold.
    #[error("{len} {unit} where at most {max} are allowed")]
    TooLong {
        /// What came.
        len: usize,
        /// What is allowed.
        max: usize,
        /// What is counted: bytes, entries.
        unit: &'static str,
    },
    /// U+0000, which no text of the protocol may hold (some databases cannot store it).
    #[error("the character U+0000 at byte {0}")]
    Nul(usize),
}

fn check(text: &str, max: usize) -> Result<(), BoundError> {
    if text.len() > max {
        return Err(BoundError::TooLong { len: text.len(), max, unit: "bytes" });
    }
    memchr::memchr(0, text.as_bytes()).map_or(Ok(()), |at| Err(BoundError::Nul(at)))
}

/// Whether all bytes are ASCII without U+0000. One pass without branches, which the processor makes 16 bytes at a time.
fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |plain, byte| plain & byte.wrapping_sub(1).lt(&0x7f))
}

/// UTF-8 text of at most `N` bytes, without U+0000; otherwise kept byte for byte.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Text<const N: usize>(Box<str>);

impl<const N: usize> Text<N> {
    /// Checks `text` and copies it.
    ///
    /// # Errors
    /// If it has more than `N` bytes or contains U+0000.
    pub fn new(text: &str) -> Result<Self, BoundError> {
        check(text, N)?;
        Ok(Self(text.into()))
    }

    /// The text, cut to its bound at a character boundary and without U+0000. For text that we write ourselves.
    #[must_use]
    pub fn cut(text: &str) -> Self {
        let end = (0..=N.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        Self(text.get(..end).unwrap_or_default().replace('\0', "").into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> Deref for Text<N> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.0, f)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Text<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `&str` borrows from the input: nothing is allocated before the bound was checked.
        let text = <&str>::deserialize(deserializer)?;
        Self::new(text).map_err(de::Error::custom)
    }
}

/// [`Text`] that never prints: what people write to each other.
///
/// One that was decoded may share memory with others that came at the same time; whoever keeps many of them for long keeps
/// [`PrivateText::expose`]`().to_owned()` instead.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PrivateText<const N: usize>(Bytes);

impl<const N: usize> PrivateText<N> {
    /// Checks `text` and copies it.
    ///
    /// # Errors
    /// As [`Text::new`].
    pub fn new(text: &str) -> Result<Self, BoundError> {
        check(text, N)?;
        Ok(Self(Bytes::copy_from_slice(text.as_bytes())))
    }

    /// The text. Do not log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        str::from_utf8(&self.0).expect("made from text")
    }

    /// Its bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<const N: usize> Serialize for PrivateText<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // As text and as bytes it is the same on the wire; this does not look again whether it is text.
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for PrivateText<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        if bytes.len() > N || !is_plain(bytes) {
            check(str::from_utf8(bytes).map_err(de::Error::custom)?, N).map_err(de::Error::custom)?;
        }
        Ok(Self(block::piece(bytes)))
    }
}

impl<const N: usize> fmt::Debug for PrivateText<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateText({} bytes)", self.0.len())
    }
}

/// A byte string of at most `N` bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob<const N: usize>(Box<[u8]>);

impl<const N: usize> Blob<N> {
    /// Checks `bytes` and copies them.
    ///
    /// # Errors
    /// If there are more than `N`.
    pub fn new(bytes: &[u8]) -> Result<Self, BoundError> {
        if bytes.len() > N {
            return Err(BoundError::TooLong { len: bytes.len(), max: N, unit: "bytes" });
        }
        Ok(Self(bytes.into()))
    }
}

impl<const N: usize> Deref for Blob<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for Blob<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl<const N: usize> Serialize for Blob<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Blob<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        Self::new(bytes).map_err(de::Error::custom)
    }
}

/// A list of at most `N` entries. Entries must take at least one byte each on the wire. A single entry needs no memory but the
/// list's own.
#[derive(Clone, PartialEq, Eq)]
pub struct List<T, const N: usize>(SmallVec<[T; 1]>);

impl<T, const N: usize> List<T, N> {
    /// Checks the number of entries.
    ///
    /// # Errors
    /// If there are more than `N`.
    pub fn new(entries: Vec<T>) -> Result<Self, BoundError> {
        if entries.len() > N {
            return Err(BoundError::TooLong { len: entries.len(), max: N, unit: "entries" });
        }
        Ok(Self(entries.into()))
    }

    /// A list of one entry.
    #[must_use]
    pub fn one(entry: T) -> Self {
        const { assert!(N > 0, "no entry fits") };
        Self(SmallVec::from_buf([entry]))
    }

    /// The entries, to keep.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.0.into_vec()
    }
}

impl<T: Serialize, const N: usize> List<T, N> {
    /// As few lists as hold these entries in order, each of at most `N` entries that take at most `bytes_max` bytes on the
    /// wire; an entry that takes more has a list of its own.
    #[must_use]
    pub fn in_parts(entries: impl IntoIterator<Item = T>, bytes_max: usize) -> Vec<Self> {
        let mut parts: Vec<Self> = Vec::new();
        let mut room = 0;
        for entry in entries {
            // Counting cannot fail; what did would be alone.
            let bytes = postcard::experimental::serialized_size(&entry).unwrap_or(usize::MAX);
            match parts.last_mut().filter(|part| bytes <= room && part.len() < N) {
                Some(part) => {
                    room -= bytes;
                    part.0.push(entry);
                }
                None => {
                    room = bytes_max.saturating_sub(bytes);
                    parts.push(Self::one(entry));
                }
            }
        }
        parts
    }
}

impl<T, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<T, const N: usize> Deref for List<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for List<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<T: Serialize, const N: usize> Serialize for List<T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for List<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T, const N: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Entries<T, N> {
            type Value = List<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N} entries")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<List<T, N>, A::Error> {
                let announced = entries.size_hint().unwrap_or(0);
                if announced > N {
                    let error = BoundError::TooLong { len: announced, max: N, unit: "entries" };
                    return Err(de::Error::custom(error));
                }
                // Grows with what really arrives: an announced length allocates nothing by itself.
                let mut list = SmallVec::new();
                while let Some(entry) = entries.next_element()? {
                    if list.len() >= N {
                        return Err(de::Error::invalid_length(list.len().saturating_add(1), &self));
                    }
                    list.push(entry);
                }
                Ok(List(list))
            }
        }

        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_at_its_bound_is_accepted_and_one_byte_more_is_not() {
        assert!(Text::<4>::new("äö").is_ok());
        assert_eq!(Text::<4>::new("äöu"), Err(BoundError::TooLong { len: 5, max: 4, unit: "bytes" }));
    }

    #[test]
    fn text_never_holds_nul() {
        assert_eq!(Text::<8>::new("a\0b"), Err(BoundError::Nul(1)));
        assert!(postcard::from_bytes::<Text<8>>(b"\x03a\0b").is_err());
    }

    #[test]
    fn cut_text_ends_at_a_character() {
        assert_eq!(&*Text::<3>::cut("aäö"), "aä");
        assert_eq!(&*Text::<2>::cut("aäö"), "a");
    }

    #[test]
    fn an_announced_length_over_the_bound_is_refused_before_the_entries_are_read() {
        let announced = [0xff, 0xff, 0xff, 0x7f];
        assert!(postcard::from_bytes::<List<u8, 16>>(&announced).is_err());
        assert!(postcard::from_bytes::<Text<16>>(&announced).is_err());
        assert!(postcard::from_bytes::<Blob<16>>(&announced).is_err());
    }

    #[test]
    fn parts_hold_all_entries_in_order_and_neither_too_many_nor_too_large() {
        let entries = [vec![1; 3], vec![2; 3], vec![3; 9], vec![4; 2], vec![5; 2], vec![6; 2], vec![7; 7]];
        let parts = List::<Vec<u8>, 2>::in_parts(entries.clone(), 8);
        let sizes: Vec<_> = parts.iter().map(|part| part.iter().map(Vec::len).collect::<Vec<_>>()).collect();
        // A byte more for each length.
        assert_eq!(sizes, [vec![3, 3], vec![9], vec![2, 2], vec![2], vec![7]]);
        assert_eq!(parts.into_iter().flat_map(List::into_vec).collect::<Vec<_>>(), entries);
        assert!(List::<u8, 2>::in_parts([], 8).is_empty());
    }

    #[test]
    fn bad_utf8_is_refused() {
        assert!(postcard::from_bytes::<Text<8>>(&[2, 0xc3, 0x28]).is_err());
    }
    #[test]
    fn private_text_takes_what_text_takes_whichever_byte_stands_where() {
        for (at, byte) in (0..40).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
            let mut content = [b'a'; 40];
            content[at] = byte;
            let written = postcard::to_stdvec(&content[..]).unwrap();
            let (text, private) =
                (postcard::from_bytes::<Text<40>>(&written), postcard::from_bytes::<PrivateText<40>>(&written));
            assert_eq!(private.as_ref().ok().map(PrivateText::expose), text.as_deref().ok(), "{byte} at {at}");
            assert_eq!(private.is_ok(), (1..=127).contains(&byte));
        }
        let written = postcard::to_stdvec("äöüß, 私").unwrap();
        assert_eq!(postcard::from_bytes::<PrivateText<13>>(&written).unwrap().expose(), "äöüß, 私");
        assert!(postcard::from_bytes::<PrivateText<12>>(&written).is_err(), "13 bytes");
    }
}
