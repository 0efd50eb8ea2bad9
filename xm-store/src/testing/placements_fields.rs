//! Cases of [`Placements`]: every field at its ends.

#![allow(missing_docs, clippy::missing_panics_doc, reason = "the name of a case says what it proves")]
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use xmmep::name::Email;
use xmmep::secret::{KdfParams, KeyHash, Salt, TokenHash};
use xmmep::types::{PresenceId, RequestId, UserId};

use super::placements::{email, form, registered, token};
use super::{AWKWARD_NAMES, Open, TIMES, at, awkward_emails, awkward_fields, name, request_id};
use crate::placements::{Activation, Placements, Registration, Renewal};
use crate::records::{NewPlacement, PlacementState, Profile};

/// Registers, opens the store again and compares every field.
async fn is_kept(open: &Open<dyn Placements>, forms: Vec<NewPlacement>) {
    let store = open.open().await;
    let mut users = Vec::new();
    for new in &forms {
        users.push(registered(&*store, new.clone()).await);
    }
    drop(store);
    let store = open.open().await;
    for (user, new) in users.into_iter().zip(forms) {
        let found = store.by_user(user).await.unwrap().expect("registered");
        assert_eq!((found.name.as_str(), found.email.as_str()), (new.name.as_str(), new.email.as_str()));
        assert_eq!((found.salt, found.kdf), (new.salt, new.kdf));
        let kept = found.form.as_ref().expect("the form is kept until activation");
        assert_eq!((&kept.key_hash, &kept.profile), (&new.key_hash, &new.profile));
        assert_eq!((found.state, found.registered_at), (PlacementState::Registered { expires: new.expires }, at(0)));
        assert_eq!(store.by_name(&new.name).await.unwrap(), Some(found));
    }
}

pub async fn every_awkward_name_is_a_name_of_its_own(open: &Open<dyn Placements>) {
    let forms = (1..).zip(AWKWARD_NAMES).map(|(number, one)| form(number, one));
    is_kept(open, forms.collect()).await;
}

pub async fn every_awkward_address_is_an_address_of_its_own(open: &Open<dyn Placements>) {
    let forms =
        (1..).zip(awkward_emails()).map(|(number, email)| NewPlacement { email, ..form(number, &number.to_string()) });
    is_kept(open, forms.collect()).await;
    let store = open.open().await;
    for (number, address) in (50..).zip(awkward_emails()) {
        let shouted = Email::new(&address.as_str().to_uppercase()).unwrap();
        if shouted != address {
            continue; // ß shouts SS, which is another address.
        }
        let again = NewPlacement { email: shouted, ..form(number, &number.to_string()) };
        assert_eq!(store.register(again, at(1)).await.unwrap(), Registration::EmailTaken, "{address}");
        let renewal = store.renew_token(&address, request_id(number), &token(9), at(9), at(2)).await.unwrap();
        assert!(matches!(renewal, Renewal::Renewed(_)), "{address}");
    }
}

pub async fn every_text_of_a_form_is_kept_byte_for_byte(open: &Open<dyn Placements>) {
    let texts = awkward_fields::<128>().into_iter().zip(awkward_fields::<256>()).zip(awkward_fields::<10>());
    let forms = (1..).zip(texts).map(|(number, ((nickname, personal_msg), birthdate))| {
        let location = nickname.clone();
        let profile = Profile { nickname, personal_msg, birthdate, location, ..Profile::default() };
        NewPlacement { profile, ..form(number, &format!("u{number}")) }
    });
    is_kept(open, forms.collect()).await;
}

pub async fn every_number_of_a_form_is_kept_at_its_ends(open: &Open<dyn Placements>) {
    let mut forms = Vec::new();
    for (number, end) in (1..).zip([0, 1, 0x7f, 0x80, u8::MAX]) {
        let wide = u32::from_be_bytes([end; 4]);
        let profile = Profile { gender: end, avatar: Some([end; 32]), ..Profile::default() };
        forms.push(NewPlacement {
            request: RequestId([end; 16]),
            salt: Salt([end; 16]),
            kdf: KdfParams { memory_kib: wide, passes: wide, lanes: wide },
            key_hash: KeyHash::from_bytes([end; 32]),
            token: TokenHash::from_bytes([end; 32]),
            expires: TIMES[3],
            profile,
            ..form(number, &format!("u{number}"))
        });
    }
    is_kept(open, forms.clone()).await;
    let store = open.open().await;
    for new in forms {
        assert_eq!(store.by_token(&new.token).await.unwrap().expect("registered").name, new.name);
        assert!(matches!(store.register(new, at(9)).await.unwrap(), Registration::Registered(_)), "the first answer");
    }
    for nobody in [0, 1 << 40, (1 << 63) - 1, 1 << 63, u64::MAX].map(UserId) {
        assert_eq!(store.by_user(nobody).await.unwrap(), None);
        assert_eq!(store.locate(nobody).await.unwrap(), None);
        store.finish_activation(nobody).await.unwrap();
    }
}

pub async fn a_home_is_kept_at_both_ends_of_its_numbers(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let homes = [(0, 0), (0, u16::MAX), (u16::MAX, 0), (0x7fff, 0x8000), (u16::MAX, u16::MAX)];
    for (number, (cluster, presence)) in (1..).zip(homes) {
        let user = registered(&*store, form(number, &format!("u{number}"))).await;
        let home = PresenceId { cluster, presence };
        store.begin_activation(&token(number as u8), home, at(1)).await.unwrap();
        store.finish_activation(user).await.unwrap();
        assert_eq!(store.locate(user).await.unwrap(), Some(home));
    }
}

pub async fn every_change_made_again_gets_the_same_answer_and_changes_nothing(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let user = registered(&*store, form(1, "ann")).await;
    let home = PresenceId { cluster: 1, presence: 1 };
    let now = async || store.by_user(user).await.unwrap();
    assert_eq!(store.register(form(1, "ann"), at(1)).await.unwrap(), Registration::Registered(user));
    let renew = async || store.renew_token(&email("1@example.org"), request_id(9), &token(2), at(900), at(2)).await;
    let (first, before) = (renew().await.unwrap(), now().await);
    assert_eq!((renew().await.unwrap(), now().await), (first, before));
    let begin = async || store.begin_activation(&token(2), home, at(3)).await.unwrap();
    let (first, before) = (begin().await, now().await);
    assert!(matches!(first, Activation::Begun(_)), "{first:?}");
    assert_eq!((begin().await, now().await), (first, before));
    store.finish_activation(user).await.unwrap();
    let before = now().await;
    store.finish_activation(user).await.unwrap();
    assert_eq!(now().await, before);
    // Late repetitions of everything before.
    assert_eq!(store.register(form(1, "ann"), at(4)).await.unwrap(), Registration::Registered(user));
    assert_eq!(renew().await.unwrap(), Renewal::Renewed(user));
    assert!(matches!(begin().await, Activation::AlreadyActive(_)));
    assert_eq!(now().await, before);
}

pub async fn a_registration_refused_reserves_nothing(open: &Open<dyn Placements>) {
    let store = open.open().await;
    registered(&*store, form(1, "ann")).await;
    let name_taken = store.register(NewPlacement { email: email("new@example.org"), ..form(2, "ANN") }, at(0)).await;
    assert_eq!(name_taken.unwrap(), Registration::NameTaken);
    let email_taken = store.register(NewPlacement { email: email("1@example.org"), ..form(3, "new") }, at(0)).await;
    assert_eq!(email_taken.unwrap(), Registration::EmailTaken);
    assert_eq!(store.by_name(&name("new")).await.unwrap(), None);
    assert_eq!((store.by_token(&token(2)).await.unwrap(), store.by_token(&token(3)).await.unwrap()), (None, None));
    registered(&*store, NewPlacement { email: email("new@example.org"), ..form(4, "new") }).await;
}
