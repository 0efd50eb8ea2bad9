//! `load seed`: accounts and buddies, written through `xm-store`, a thousand at a time.

use std::io::IsTerminal;
use std::time::Instant;

use xm_store::records::{NewAccount, NewPlacement, Person, Profile};
use xm_store::sql::{IMPORT_MAX, SqlPlacements, SqlPresence, open_presence, open_router};
use xmmep::name::Email;
use xmmep::secret::TokenHash;
use xmmep::types::{PresenceId, RequestId, WallTime};

use crate::place::{BIG_BUDDIES, Place, Population};
use crate::server::{Server, program};
use crate::{Failure, SeedArgs};

/// The identity of a server that is configured no other.
const IDENTITY: PresenceId = PresenceId { cluster: 1, presence: 1 };
/// When all of them registered.
const AT: WallTime = WallTime(1_700_000_000_000);

pub(crate) fn seed(args: &SeedArgs) -> Result<(), Failure> {
    if !args.buddies.is_multiple_of(2) {
        return Err(format!("--buddies {}: it must be an even number", args.buddies).into());
    }
    let place = Place::at(&args.dir)?;
    place.make()?;
    // The first start makes keys and databases.
    let config = place.configure(&place.data(), 1)?;
    Server::start(&program(args.xmd.as_ref())?, &config, "")?.stop()?;
    let mut population = Population::new(args.users, args.buddies);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(fill(&place, &mut population))?;
    place.finish(&population)?;
    println!("{} users with {} buddies each are in {};", args.users, args.buddies, args.dir.display());
    println!("the last {} of them have {BIG_BUDDIES}", population.big);
    Ok(())
}

async fn fill(place: &Place, population: &mut Population) -> Result<(), Failure> {
    let url = |name: &str| format!("sqlite:{}", place.data().join(name).display());
    let router = open_router(&url("RouterDB.db")).await?;
    let presence = open_presence(&url("PresenceDB_C1P1.db")).await?;
    accounts(&router, &presence, population).await?;
    friends(&presence, population).await?;
    router.close().await;
    presence.close().await;
    Ok(())
}

async fn accounts(router: &SqlPlacements, presence: &SqlPresence, population: &mut Population) -> Result<(), Failure> {
    let mut progress = Progress::new("accounts", u64::from(population.users));
    let key_hash = population.key().key.hash();
    let numbers: Vec<u32> = (0..population.users).collect();
    for some in numbers.chunks(IMPORT_MAX) {
        let email = |number: u32| Email::new(&format!("u{number:07}@example.org"));
        let placement = |&number: &u32| {
            Ok::<_, Failure>(NewPlacement {
                request: RequestId::random(&mut rand::rng()),
                name: population.name(number),
                email: email(number)?,
                salt: population.key().salt,
                kdf: population.key().params,
                key_hash: key_hash.clone(),
                token: TokenHash::from_bytes(rand::random()),
                expires: AT,
                profile: Profile::default(),
            })
        };
        let ids = router.import(IDENTITY, some.iter().map(placement).collect::<Result<_, _>>()?, AT).await?;
        if population.first_id == 0 {
            population.first_id = ids.first().ok_or("no ids were given out")?.0;
        }
        let account = |(&number, &user)| {
            if user != population.id(number) {
                return Err(format!("user {number} got the id {user}: ids do not follow each other here").into());
            }
            Ok::<_, Failure>(NewAccount {
                user,
                name: population.name(number),
                email: email(number)?,
                key_hash: key_hash.clone(),
                profile: Profile::default(),
                created: AT,
            })
        };
        presence.import_accounts(some.iter().zip(&ids).map(account).collect::<Result<_, _>>()?).await?;
        progress.add(some.len());
    }
    progress.done();
    Ok(())
}

async fn friends(presence: &SqlPresence, population: &Population) -> Result<(), Failure> {
    let (users, after) = (population.users, population.buddies / 2);
    let (big, known) = (population.big(), population.known_by_big());
    let total = u64::from(users) * u64::from(after) + big.len() as u64 * known.len() as u64;
    let mut progress = Progress::new("buddies", total);
    let person = |number: u32| Person { user: population.id(number), name: population.name(number) };
    let neighbours = (0..users).flat_map(|number| (1..=after).map(move |step| (number, (number + step) % users)));
    let further = big.flat_map(|number| known.clone().map(move |other| (number, other)));
    let mut pairs = neighbours.chain(further).map(|(a, b)| (person(a), person(b))).peekable();
    while pairs.peek().is_some() {
        let some: Vec<_> = pairs.by_ref().take(IMPORT_MAX).collect();
        let count = some.len();
        presence.import_friends(some, AT).await?;
        progress.add(count);
    }
    progress.done();
    Ok(())
}

/// A line on the terminal that grows.
struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    since: Instant,
    shown: Instant,
}

impl Progress {
    fn new(what: &'static str, total: u64) -> Self {
        Self { what, total, done: 0, since: Instant::now(), shown: Instant::now() }
    }

    fn add(&mut self, some: usize) {
        self.done += some as u64;
        if self.shown.elapsed().as_millis() >= 200 {
            self.shown = Instant::now();
            self.show();
        }
    }

    fn show(&self) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let tenths = (self.done * 30 / self.total.max(1)) as usize;
        let bar = format!("{}{}", "█".repeat(tenths), "░".repeat(30 - tenths.min(30)));
        let seconds = self.since.elapsed().as_secs_f64();
        let left = seconds / self.done.max(1) as f64 * (self.total - self.done) as f64;
        eprint!("\r{:>9} {bar} {} of {}, {left:.0} s left   ", self.what, self.done, self.total);
    }

    fn done(&self) {
        self.show();
        let clear = if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
        eprintln!("{clear}{:>9} {} in {:.1} s", self.what, self.total, self.since.elapsed().as_secs_f64());
    }
}
