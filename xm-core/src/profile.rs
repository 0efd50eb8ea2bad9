//! Profiles, cards and buddy entries between the wire and the store: the one place where the two forms meet.

use xm_store::records::{Account, BuddyEntry, BuddyState as StoredState, Profile as Stored};
use xmmep::bounded::Text;
use xmmep::messages::login::{Buddy, BuddyState};
use xmmep::messages::{Gender, Profile, PublicCard};

/// A profile from the wire, to store.
pub(crate) fn stored_profile(profile: Profile) -> Stored {
    Stored {
        nickname: profile.nickname,
        personal_msg: profile.personal_msg,
        birthdate: profile.birthdate,
        location: profile.location,
        gender: profile.gender.0,
        avatar: None,
    }
}

/// A stored profile, for the wire.
pub(crate) fn wire_profile(profile: Stored) -> Profile {
    Profile {
        nickname: profile.nickname,
        personal_msg: profile.personal_msg,
        birthdate: profile.birthdate,
        location: profile.location,
        gender: Gender(profile.gender),
    }
}

/// What everybody may see of an account.
pub(crate) fn public_card(account: &Account) -> PublicCard {
    PublicCard {
        user: account.user,
        name: account.name.clone(),
        nickname: account.profile.nickname.clone(),
        personal_msg: account.profile.personal_msg.clone(),
        location: account.profile.location.clone(),
    }
}

/// The card of somebody whose account is not at hand: the name alone.
pub(crate) fn name_card(person: &xm_store::records::Person) -> PublicCard {
    PublicCard {
        user: person.user,
        name: person.name.clone(),
        nickname: Text::default(),
        personal_msg: Text::default(),
        location: Text::default(),
    }
}

/// A stored entry, for the wire.
pub(crate) fn wire_buddy(entry: BuddyEntry) -> Buddy {
    Buddy {
        user: entry.buddy.user,
        name: entry.buddy.name,
        group: entry.group,
        display_name: entry.display_name,
        state: match entry.state {
            StoredState::Pending => BuddyState::PENDING,
            StoredState::Accepted => BuddyState::ACCEPTED,
        },
    }
}
