//! Login, the Router's part: where does this user live? Asked by strangers, so the answer gives away nothing: whether
//! there is such a user shows neither in its shape, size nor in what is done to make it.

use std::net::IpAddr;
use std::time::Duration;

use xm_store::records::{Placement, PlacementState};
use xmmep::bounded::{Blob, List};
use xmmep::messages::login::{GetLoginInfoReq, GetLoginInfoRes};
use xmmep::result_code::ResultCode;
use xmmep::secret::{KdfParams, KeyHash, Salt};
use xmmep::session::{Admission, TICKET_LEN, Ticket, UserKind};
use xmmep::types::{PresenceId, UserId, WallTime};

use super::decoy::Decoy;
use super::{Router, lock};
use crate::ctx::{Ctx, Reply};
use crate::handlers::Handlers;
use crate::refusal::Refusal;

/// How long an admission ticket is good for: a slow phone derives its login key in this time and has some left for lost
/// datagrams. Later, the Presence asks for a cookie, which costs a round trip, and has to be told nothing by a ticket.
pub const TICKET_LIFE: Duration = Duration::from_secs(60);

pub(super) fn handlers(h: Handlers<Router>) -> Handlers<Router> {
    h.from_stranger(look_up)
}

/// What a lookup found, or would have found if there were such a user.
struct Found {
    salt: Salt,
    kdf: KdfParams,
    home: Option<PresenceId>,
    kind: UserKind,
    user: UserId,
    key_hash: Option<KeyHash>,
}

impl Found {
    fn new(placement: Option<Placement>, decoy: &Decoy) -> Self {
        let Some(placement) = placement else {
            return Self {
                salt: decoy.salt,
                kdf: KdfParams::RECOMMENDED,
                home: None,
                kind: UserKind::Unknown,
                user: UserId(0),
                key_hash: None,
            };
        };
        let (kind, home) = match placement.state {
            PlacementState::Registered { .. } => (UserKind::NotActivated, None),
            PlacementState::Activating { presence } => (UserKind::NotActivated, Some(presence)),
            PlacementState::Active { presence } => (UserKind::Member, Some(presence)),
        };
        Self {
            salt: placement.salt,
            kdf: placement.kdf,
            home,
            kind,
            user: placement.user,
            // Of an active user, only the Presence has it.
            key_hash: placement.form.map(|form| form.key_hash),
        }
    }
}

/// Only inside a handshake, where the number of lookups per address is limited: not on a session.
async fn look_up(ctx: Ctx<Router>, req: GetLoginInfoReq) -> Result<Reply, Refusal> {
    let (Some(from), None) = (ctx.stranger_address(), ctx.session()) else { return Err(Refusal::BadState) };
    let role = ctx.role();
    let decoy = role.decoys.of(&req.name);
    let placement = match role.placements.by_name(&req.name).await {
        Ok(placement) => placement.filter(|placement| !placement.is_expired(ctx.now().wall)),
        Err(error) => {
            tracing::warn!(%error, "a lookup found the store away");
            return ctx.reply(role.not_ready(&decoy));
        }
    };
    let found = Found::new(placement, &decoy);
    let lives_at = found.home.filter(|_| found.kind == UserKind::Member);
    role.admitted.remember(found.user, lives_at, ctx.now().mono.after(TICKET_LIFE));
    ctx.reply(role.admit(found, &decoy, from.ip(), ctx.now().wall.after(TICKET_LIFE)))
}

impl Router {
    /// The answer to a lookup. The same steps, whoever was found.
    fn admit(&self, found: Found, decoy: &Decoy, ip: IpAddr, expires: WallTime) -> GetLoginInfoRes {
        let Some((presence, announced)) = self.presences.seat(found.home, decoy) else {
            return self.not_ready(decoy);
        };
        let rng = &mut *lock(&self.rng);
        let mut random = [0; 32];
        rng.fill_bytes(&mut random);
        let admission = Admission {
            kind: found.kind,
            user: found.user,
            key_hash: found.key_hash.unwrap_or(KeyHash::from_bytes(random)),
        };
        let ticket = Ticket::seal(&admission, &announced.ticket_key, presence, ip, expires, rng);
        GetLoginInfoRes {
            result: ResultCode::SUCCESS,
            addresses: announced.addresses.clone(),
            presence_key: announced.static_key,
            salt: found.salt,
            kdf: found.kdf,
            ticket: sealed(ticket.as_bytes()),
        }
    }

    /// Where to send a client is not known at the moment. Says nothing about the name.
    fn not_ready(&self, decoy: &Decoy) -> GetLoginInfoRes {
        let mut nothing = [0; TICKET_LEN];
        lock(&self.rng).fill_bytes(&mut nothing);
        GetLoginInfoRes {
            result: ResultCode::SERVER_NOT_READY,
            addresses: List::default(),
            presence_key: [0; 32],
            salt: decoy.salt,
            kdf: KdfParams::RECOMMENDED,
            ticket: sealed(&nothing),
        }
    }
}

fn sealed(bytes: &[u8; TICKET_LEN]) -> Blob<192> {
    const _: () = assert!(TICKET_LEN <= xmmep::messages::login::TICKET_MAX, "the message has room for a ticket");
    Blob::new(bytes).expect("a ticket fits into its field")
}
