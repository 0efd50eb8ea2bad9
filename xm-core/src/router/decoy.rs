//! Decoys: what the Router says of names nobody has, so that nobody learns which names exist. Always the same for the
//! same name, in any spelling; without the key, nothing tells it from the real thing.

use xmmep::name::UserName;
use xmmep::secret::Salt;
use xmmep::types::PresenceId;

/// Makes decoys.
pub(super) struct Decoys {
    key: [u8; 32],
}

/// What a name would have if nobody has it.
pub(super) struct Decoy {
    /// Salt of the login key.
    pub(super) salt: Salt,
    place: [u8; 32],
}

impl Decoys {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self { key: blake3::derive_key("X-Messenger Router decoys v1", secret) }
    }

    /// The decoy of a name.
    pub(super) fn of(&self, name: &UserName) -> Decoy {
        let mut bytes = [0; 48];
        blake3::Hasher::new_keyed(&self.key).update(name.folded().as_bytes()).finalize_xof().fill(&mut bytes);
        let (mut salt, mut place) = ([0; 16], [0; 32]);
        salt.copy_from_slice(&bytes[..16]);
        place.copy_from_slice(&bytes[16..]);
        Decoy { salt: Salt(salt), place }
    }
}

impl Decoy {
    /// Where the name would live. Each Presence gets a draw of its own and the highest wins: when a Presence comes, only
    /// the names that fall to it move, and all others stay as real users do.
    pub(super) fn presence(&self, among: impl Iterator<Item = PresenceId>) -> Option<PresenceId> {
        among.max_by_key(|presence| {
            let mut draw = blake3::Hasher::new_keyed(&self.place);
            draw.update(&presence.cluster.to_be_bytes()).update(&presence.presence.to_be_bytes());
            (*draw.finalize().as_bytes(), *presence)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> UserName {
        UserName::new(text).unwrap()
    }

    fn presences(count: u16) -> impl Iterator<Item = PresenceId> {
        (1..=count).map(|presence| PresenceId { cluster: 1, presence })
    }

    #[test]
    fn a_name_has_one_salt_in_every_spelling_and_another_under_another_secret() {
        let decoys = Decoys::new(&[1; 32]);
        assert_eq!(decoys.of(&name("Jörg")).salt, decoys.of(&name("JO\u{308}RG")).salt);
        assert_ne!(decoys.of(&name("Jörg")).salt, decoys.of(&name("jorg")).salt);
        assert_ne!(decoys.of(&name("Jörg")).salt, Decoys::new(&[2; 32]).of(&name("Jörg")).salt);
    }

    #[test]
    fn names_spread_over_the_presences_and_stay_when_one_more_comes() {
        let decoys = Decoys::new(&[3; 32]);
        let mut share = [0_u32; 5];
        for number in 0..1_000 {
            let decoy = decoys.of(&name(&format!("user{number}")));
            let (before, after) = (decoy.presence(presences(4)).unwrap(), decoy.presence(presences(5)).unwrap());
            share[usize::from(before.presence)] += 1;
            assert!(after == before || after.presence == 5, "user{number} moved from {before} to {after}");
        }
        assert!(share[1..].iter().all(|share| (150..350).contains(share)), "{share:?}");
        assert_eq!(decoys.of(&name("ann")).presence(presences(0)), None);
    }
}
