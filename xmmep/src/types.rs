//! Ids, times and small numbers of the protocol. Bounded text lives in `bounded.rs`, names in `name.rs`.

use core::fmt;
use core::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// Declares an id: a number or a byte string that is never mixed with another.
macro_rules! id {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

/// Declares a 128-bit id that its maker draws at random; shown as 32 hex digits.
macro_rules! random_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Draws a new id.
            pub fn random(rng: &mut impl rand_core::Rng) -> Self {
                let mut bytes = [0; 16];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

id! {
    /// A user, for ever. The Router assigns it at registration; 0 is nobody.
    UserId(u64)
}
id! {
    /// One of a user's buddy groups. 0 is the default group, which always exists and has no name of its own.
    GroupId(u32)
}
id! {
    /// A room.
    RoomId(u64)
}
id! {
    /// How often an identity has changed owner. Writes and orders of an older owner are refused.
    OwnerEpoch(u64)
}
id! {
    /// The version of a user's roster (groups, buddies, blocked); grows with every committed change.
    RosterVersion(u64)
}
random_id! {
    /// A message, named by the sending client before its first try. All retries and roads reuse it.
    MsgId
}
random_id! {
    /// A request that may be repeated: the answer to the same id is the same.
    RequestId
}
random_id! {
    /// A device of a user, drawn once when the client is installed.
    DeviceId
}

impl GroupId {
    /// The group every buddy is in until moved.
    pub const DEFAULT: Self = Self(0);
}

/// Wall-clock time: milliseconds since 1970-01-01 00:00 UTC. For people and for expiry; never for order or time-outs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(pub u64);

impl WallTime {
    /// This time plus `duration`; stops at the end of time instead of wrapping.
    #[must_use]
    pub fn after(self, duration: core::time::Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Monotonic time: microseconds since an arbitrary start, the same for everything in one process. State machines
/// take it as an argument; they have no clock. An `Option` of it takes no more room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(NonZeroU64);

impl Time {
    /// The start.
    pub const ZERO: Self = Self(NonZeroU64::MIN);

    /// `micros` microseconds after the start; the end of time is one microsecond before `u64::MAX`.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(micros))
    }

    /// Microseconds since the start.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0.get() - 1
    }

    /// This time plus `duration`; stops at the end of time instead of wrapping.
    #[must_use]
    pub fn after(self, duration: core::time::Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero if it is later than this.
    #[must_use]
    pub fn since(self, earlier: Self) -> core::time::Duration {
        core::time::Duration::from_micros(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Time").field(&self.as_micros()).finish()
    }
}

/// The identity of a Presence, `C1P1`: cluster 1, Presence 1. A spare that takes over keeps the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PresenceId {
    /// The cluster, from 1.
    pub cluster: u16,
    /// The Presence within the cluster, from 1.
    pub presence: u16,
}

impl fmt::Display for PresenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "C{}P{}", self.cluster, self.presence)
    }
}

impl core::str::FromStr for PresenceId {
    type Err = BadPresenceId;

    fn from_str(text: &str) -> Result<Self, BadPresenceId> {
        let numbers = text.strip_prefix('C').and_then(|rest| rest.split_once('P'));
        let parsed = numbers.and_then(|(cluster, presence)| Some((cluster.parse().ok()?, presence.parse().ok()?)));
        match parsed {
            Some((cluster, presence)) if cluster > 0 && presence > 0 => Ok(Self { cluster, presence }),
            _ => Err(BadPresenceId(text.to_owned())),
        }
    }
}

/// Text that is no Presence identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no Presence identity, which looks like \"C1P1\"")]
pub struct BadPresenceId(String);

/// Declares an integer with names for the values known today. Unknown values are kept, so that a newer peer can
/// add some: `0x7f` decodes, re-encodes as `0x7f` and prints as `Status(127)`.
macro_rules! open_enum {
    ($(#[doc = $doc:literal])* $name:ident($inner:ty) {
        $($(#[doc = $vdoc:literal])* $value:literal $variant:ident),* $(,)?
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            $($(#[doc = $vdoc])* pub const $variant: Self = Self($value);)*

            /// What the documentation knows of it.
            pub const OPEN_ENUM: $crate::message::OpenEnum = $crate::message::OpenEnum {
                name: stringify!($name),
                doc: concat!($($doc, "\n"),*),
                ty: stringify!($inner),
                values: &[$(($value, stringify!($variant), concat!($($vdoc, "\n"),*))),*],
            };

            /// The values known today, with their names.
            pub const KNOWN: &'static [(Self, &'static str)] = &[$((Self($value), stringify!($variant))),*];

            /// The name of a known value.
            #[must_use]
            pub fn known_name(self) -> Option<&'static str> {
                Self::KNOWN.iter().find(|(value, _)| *value == self).map(|(_, name)| *name)
            }
        }

        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self.known_name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}({})", stringify!($name), self.0),
                }
            }
        }

        impl $crate::sample::Sample for $name {
            fn sample(sampler: &mut $crate::sample::Sampler) -> Self {
                Self(<$inner as $crate::sample::Sample>::sample(sampler))
            }
        }
    };
}
pub(crate) use open_enum;

open_enum! {
    /// What watchers see of a user (first version's states, plus INVISIBLE).
    Status(u8) {
        /// Available.
        0 ONLINE,
        /// Busy.
        1 BUSY,
        /// Away.
        2 AWAY,
        /// Not here.
        3 OFFLINE,
        /// Here, but watchers see OFFLINE. Never sent to a watcher.
        4 INVISIBLE,
    }
}

impl Status {
    /// What others may see: INVISIBLE looks like OFFLINE, and so does anything unknown.
    #[must_use]
    pub fn seen_by_others(self) -> Self {
        match self {
            Self::ONLINE | Self::BUSY | Self::AWAY => self,
            _ => Self::OFFLINE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_presence_identity_is_read_back_as_written() {
        let id = PresenceId { cluster: 3, presence: 12 };
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn a_malformed_presence_identity_is_named_in_the_error() {
        for text in ["", "C1", "P1", "C0P1", "C1P0", "C1P99999", "c1p1", "C-1P1"] {
            let error = text.parse::<PresenceId>().expect_err(text);
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn an_invisible_user_looks_offline() {
        assert_eq!(Status::INVISIBLE.seen_by_others(), Status::OFFLINE);
        assert_eq!(Status(99).seen_by_others(), Status::OFFLINE);
        assert_eq!(Status::BUSY.seen_by_others(), Status::BUSY);
    }

    #[test]
    fn time_stops_instead_of_wrapping() {
        let end = Time::from_micros(u64::MAX);
        assert_eq!(end.after(core::time::Duration::from_secs(1)), end);
        assert_eq!(Time::ZERO.since(end), core::time::Duration::ZERO);
    }
}
