//! People in databases: registered, activated, with buddies, groups, blocks and messages that wait.
#![allow(dead_code, unreachable_pub, reason = "shared: every user takes another part")]

use std::sync::Arc;

use xm_store::contacts::{Answer, Ask};
use xm_store::placements::Registration;
use xm_store::records::{Level, Mail, NewAccount, NewPlacement, Parcel, ParcelId, Person, Profile};
use xm_store::sql::{SqlMailQueue, SqlPlacements, SqlPresence, open_presence, open_register, open_router};
use xm_store::{Accounts, Contacts, MailQueue, Offline, Placements};
use xmmep::bounded::{PrivateText, Text};
use xmmep::name::{Email, UserName};
use xmmep::secret::{KdfParams, LoginKey, Salt, TokenHash};
use xmmep::types::{MsgId, PresenceId, RequestId, WallTime};

pub const HOME: PresenceId = PresenceId { cluster: 1, presence: 1 };
pub const NOW: WallTime = WallTime(1_790_000_000_000);

/// The databases of one server.
pub struct Stores {
    pub router: SqlPlacements,
    pub presence: Arc<SqlPresence>,
    pub register: SqlMailQueue,
}

impl Stores {
    /// Opens them by their URLs.
    pub async fn open(router: &str, presence: &str, register: &str) -> Self {
        Self {
            router: open_router(router).await.expect("RouterDB opens"),
            presence: Arc::new(open_presence(presence).await.expect("PresenceDB opens")),
            register: open_register(register).await.expect("RegisterDB opens"),
        }
    }

    pub async fn close(&self) {
        self.router.close().await;
        self.presence.close().await;
        self.register.close().await;
    }

    /// Registers somebody as far as to the mail. The number names the person.
    pub async fn register(&self, number: u32) -> (Person, TokenHash) {
        let name = UserName::new(&format!("user{number}")).expect("a name");
        let mut token = [0; 32];
        token[..4].copy_from_slice(&number.to_le_bytes());
        let (request, token) = (request(number), TokenHash::from_bytes(token));
        let new = NewPlacement {
            request,
            name: name.clone(),
            email: email(number),
            salt: Salt([7; 16]),
            kdf: KdfParams::RECOMMENDED,
            key_hash: LoginKey::from_bytes([9; 32]).hash(),
            token: token.clone(),
            expires: WallTime(u64::MAX >> 1),
            profile: Profile::default(),
        };
        let Registration::Registered(user) = self.router.register(new, NOW).await.expect("RouterDB works") else {
            panic!("{name} is taken")
        };
        let mail = Mail {
            id: request,
            to: email(number),
            subject: Text::new("Welcome").expect("it fits"),
            body: PrivateText::new("a token").expect("it fits"),
            created: NOW,
        };
        self.register.enqueue(mail).await.expect("RegisterDB works");
        (Person { user, name }, token)
    }

    /// Activates somebody, in the order in which the roles do.
    pub async fn activate(&self, number: u32, person: &Person, token: &TokenHash) {
        self.router.begin_activation(token, HOME, NOW).await.expect("RouterDB works");
        let account = NewAccount {
            user: person.user,
            name: person.name.clone(),
            email: email(number),
            key_hash: LoginKey::from_bytes([9; 32]).hash(),
            profile: Profile::default(),
            created: NOW,
        };
        self.presence.create(account).await.expect("PresenceDB works");
        self.router.finish_activation(person.user).await.expect("RouterDB works");
    }

    pub async fn enrol(&self, number: u32) -> Person {
        let (person, token) = self.register(number).await;
        self.activate(number, &person, &token).await;
        person
    }

    /// `me` and `buddy` have each other as buddies, `buddy` in a group of `me`.
    pub async fn befriend(&self, me: &Person, buddy: &Person) {
        let name = Text::new(&format!("with {}", buddy.name)).expect("it fits");
        let (group, _) = self.presence.create_group(me.user, name).await.expect("there is room");
        let ask = Ask {
            me: me.clone(),
            buddy: buddy.clone(),
            display_name: Text::default(),
            group,
            greeting: Text::default(),
            at: NOW,
        };
        self.presence.ask(ask).await.expect("asking works");
        self.presence.answer(buddy, me.user, Answer::AcceptAndAdd, NOW).await.expect("answering works");
    }

    /// A message that waits.
    pub async fn send(&self, from: &Person, to: &Person, number: u8) -> ParcelId {
        let id = MsgId([number; 16]);
        let parcel = Parcel { from: from.user, id, sent: NOW, body: format!("text {number}").into_bytes() };
        self.presence.append(to.user, vec![parcel]).await.expect("there is room");
        ParcelId { from: from.user, id }
    }

    pub async fn settle(&self, to: &Person, parcel: ParcelId) {
        self.presence.settle(to.user, &[parcel], Level::Received, NOW).await.expect("settling works");
    }

    pub async fn block(&self, me: &Person, other: &Person) {
        self.presence.block(me.user, other, NOW).await.expect("blocking works");
    }

    pub async fn mail_is_sent(&self, number: u32) {
        self.register.sent(request(number), NOW).await.expect("RegisterDB works");
    }
}

fn request(number: u32) -> RequestId {
    let mut request = [1; 16];
    request[..4].copy_from_slice(&number.to_le_bytes());
    RequestId(request)
}

fn email(number: u32) -> Email {
    Email::new(&format!("user{number}@example.org")).expect("an address")
}
