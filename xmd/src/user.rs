//! `xmd user`: everything about one person, written out or erased. What each store has of a user is `xm-store`'s to know;
//! here is the order in which they are asked.

use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use xm_store::StoreError;
use xm_store::offline::Erased;
use xm_store::records::{Account, BuddyState, Parcel, Place, Placement, PlacementState, Profile, Roster};
use xmmep::name::UserName;
use xmmep::types::{UserId, WallTime};

use crate::cli::{EraseArgs, ExportArgs, UserCommand};
use crate::config::Config;
use crate::data::{self, DataDir, hex};
use crate::databases::Databases;
use crate::run::{EXIT_USAGE, complain, configuration, say};
use crate::stores::{self, Kept};

/// Messages read at once.
const PAGE: usize = 256;
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// `xmd user export` and `xmd user erase`.
pub async fn user(command: &UserCommand) -> ExitCode {
    let (UserCommand::Export(ExportArgs { run, name, .. }) | UserCommand::Erase(EraseArgs { run, name, .. })) = command;
    let (config, name) = match configuration(run).and_then(|config| Ok((config, user_name(name)?))) {
        Ok(found) => found,
        Err(why) => {
            complain(&why);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let done = match command {
        UserCommand::Export(args) => export(&config, &name, args.to.as_deref()).await,
        UserCommand::Erase(args) => erase(&config, &name, args.yes).await,
    };
    match done {
        Ok(code) => code,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

fn user_name(text: &str) -> Result<UserName, String> {
    UserName::new(text).map_err(|error| format!("{text:?} is no user name: {error}"))
}

/// The stores of a server that does not run, and who is meant.
struct Opened {
    kept: Kept,
    placement: Placement,
    _data: DataDir,
}

impl Opened {
    async fn open(config: &Config, name: &UserName) -> Result<Self, String> {
        if !config.data_dir.is_dir() {
            return Err(format!("there is no directory {}; see --data", config.data_dir.display()));
        }
        let data = DataDir::open(&config.data_dir).map_err(|error| error.to_string())?;
        let databases = Databases::find(config, data.path())?;
        let evidence = stores::evidence(&data, &databases).await.map_err(|error| error.to_string())?;
        if evidence.made.is_none() {
            // Opening would make the databases.
            return Err(format!("nobody has registered here yet, so there is no user {:?}; see --data", name.as_str()));
        }
        let kept = Kept::open(&data, config, &databases, &evidence).await.map_err(|error| error.to_string())?;
        let placement = kept.placements.by_name(name).await.map_err(|error| error.to_string())?;
        let Some(placement) = placement else {
            kept.close().await;
            return Err(format!("there is no user {:?}", name.as_str()));
        };
        let ours = config.presence.identity;
        match placement.state {
            PlacementState::Active { presence } | PlacementState::Activating { presence } if presence != ours => {
                kept.close().await;
                Err(format!("{:?} lives at {presence}, and this is {ours}: run this there", name.as_str()))
            }
            _ => Ok(Self { kept, placement, _data: data }),
        }
    }
}

async fn export(config: &Config, name: &UserName, to: Option<&Path>) -> Result<ExitCode, String> {
    let opened = Opened::open(config, name).await?;
    let everything = everything(&opened).await.map_err(|error| error.to_string());
    opened.kept.close().await;
    let text = format!("{:#}\n", everything?);
    match to {
        None => say(&text),
        Some(path) if path.exists() => return Err(format!("{} exists; name another file", path.display())),
        Some(path) => {
            data::write_durably(path, text.as_bytes()).map_err(|error| error.to_string())?;
            say(&format!("{}: everything kept about {:?}\n", path.display(), name.as_str()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything kept about a user, but for secrets: what is derived from the password, and tokens.
async fn everything(opened: &Opened) -> Result<Value, StoreError> {
    let Opened { kept, placement, .. } = opened;
    let (stores, who) = (&kept.stores, placement.user);
    let account = stores.accounts.by_user(who).await?;
    let roster = stores.contacts.load(who).await?;
    let (mut waiting, mut after) = (Vec::new(), Place::START);
    loop {
        let page = stores.offline.page(who, after, PAGE, PAGE_BYTES).await?;
        let Some((last, _)) = page.last() else { break };
        after = *last;
        waiting.extend(page.iter().map(|(_, parcel)| message(parcel, ("from", parcel.from))));
    }
    let (mut sent, mut after) = (Vec::new(), None);
    loop {
        let page = stores.offline.sent_by(who, after, PAGE).await?;
        let Some((to, last, _)) = page.last() else { break };
        after = Some((*to, *last));
        sent.extend(page.iter().map(|(to, _, parcel)| message(parcel, ("to", *to))));
    }
    Ok(json!({
        "user": registration(placement),
        "account": account.as_ref().map(about),
        "roster": relations(&roster),
        "messages waiting for this user": waiting,
        "messages of this user waiting for others": sent,
    }))
}

/// Times as people and programs read them: milliseconds since 1970.
fn millis(time: WallTime) -> u64 {
    time.0
}

fn registration(placement: &Placement) -> Value {
    let state = match placement.state {
        PlacementState::Registered { expires } => json!({"waits for its mail until_ms": millis(expires)}),
        PlacementState::Activating { presence } => json!({"being activated at": presence.to_string()}),
        PlacementState::Active { presence } => json!({"active at": presence.to_string()}),
    };
    json!({
        "id": placement.user.0,
        "name": placement.name.as_str(),
        "e-mail": placement.email.as_str(),
        "registered_ms": millis(placement.registered_at),
        "state": state,
        "profile": placement.form.as_ref().map(|form| profile(&form.profile)),
    })
}

fn profile(profile: &Profile) -> Value {
    json!({
        "nickname": profile.nickname.as_str(),
        "personal message": profile.personal_msg.as_str(),
        "birthdate": profile.birthdate.as_str(),
        "location": profile.location.as_str(),
        "gender": match profile.gender { 0 => "female", 1 => "male", _ => "not stated" },
        "picture": profile.avatar.map(|hash| hex(&hash)),
    })
}

fn about(account: &Account) -> Value {
    json!({
        "created_ms": millis(account.created),
        "last login_ms": account.last_login.map(millis),
        "failed logins since": account.failed_attempts,
        "last failed login_ms": account.last_failed.map(millis),
        "may be found": account.findable.in_search,
        "may be found by e-mail": account.findable.by_email,
        "profile": profile(&account.profile),
    })
}

/// What the user has entered or been shown. Who else has this user on a list is the others' affair.
fn relations(roster: &Roster) -> Value {
    let group = |id: xmmep::types::GroupId| {
        roster.groups.iter().find(|group| group.group == id).map_or("", |group| group.name.as_str())
    };
    let buddies = roster.buddies.iter().map(|entry| {
        json!({
            "name": entry.buddy.name.as_str(),
            "group": group(entry.group),
            "display name": entry.display_name.as_str(),
            "accepted": entry.state == BuddyState::Accepted,
            "asked_ms": millis(entry.asked_at),
            "greeting": entry.greeting.as_str(),
        })
    });
    let requests = roster.requests.iter().map(|request| {
        json!({
            "from": request.from.name.as_str(),
            "greeting": request.greeting.as_str(),
            "asked_ms": millis(request.asked_at),
        })
    });
    json!({
        "groups": roster.groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(),
        "buddies": buddies.collect::<Vec<_>>(),
        "blocked": roster.blocked.iter().map(|person| person.name.as_str()).collect::<Vec<_>>(),
        "open requests": requests.collect::<Vec<_>>(),
    })
}

fn message(parcel: &Parcel, (side, other): (&str, UserId)) -> Value {
    json!({
        side: other.0,
        "id": hex(&parcel.id.0),
        "taken_ms": millis(parcel.sent),
        "text": xm_core::presence::text_of(&parcel.body),
    })
}

async fn erase(config: &Config, name: &UserName, yes: bool) -> Result<ExitCode, String> {
    let opened = Opened::open(config, name).await?;
    let who = opened.placement.user;
    if !yes {
        opened.kept.close().await;
        complain(&format!(
            "this erases {:?} (user {who}) for good: account, profile, buddies on both sides, blocks, waiting messages, mails; \
             say so with --yes. `xmd user export` writes it all out first",
            name.as_str()
        ));
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let erased = erase_all(&opened).await.map_err(|error| format!("{error}; nothing is lost by saying it again"));
    opened.kept.close().await;
    let Gone { messages, others, mails, is_in_log } = erased?;
    say(&format!("user {who} ({}) is erased\n", name.as_str()));
    say(&format!("  messages that waited: {} for this user, {} of this user\n", messages.to, messages.from));
    say(&format!("  others whose lists changed: {others}\n"));
    say(&format!("  mails: {mails}\n"));
    if messages.quarantined > 0 {
        say(&format!(
            "  quarantine/ of the offline messages has {} damaged files, which may hold more: delete them by hand\n",
            messages.quarantined
        ));
    }
    if is_in_log {
        say(
            "  another program reads RouterDB, so its files still have name and address: the next start takes them out\n",
        );
    }
    say("  backups made before still have everything\n");
    Ok(ExitCode::SUCCESS)
}

/// What was erased.
struct Gone {
    messages: Erased,
    others: usize,
    mails: u64,
    /// Whether a reader keeps RouterDB's log from being written back.
    is_in_log: bool,
}

/// The name goes last: until then a call that was cut short can be repeated.
async fn erase_all(opened: &Opened) -> Result<Gone, StoreError> {
    let Opened { kept, placement, .. } = opened;
    let who = placement.user;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let now = WallTime(u64::try_from(now).unwrap_or(u64::MAX));
    let messages = kept.stores.offline.erase(who, now).await?;
    let others = kept.stores.contacts.erase(who).await?.len();
    kept.stores.accounts.erase(who).await?;
    let mails = kept.mails.erase(&placement.email).await?;
    let is_in_log = match kept.placements.erase(who).await {
        // Said again it would find nobody of that name.
        Err(StoreError::Busy(_)) if kept.placements.by_user(who).await?.is_none() => true,
        erased => erased.map(|_| false)?,
    };
    Ok(Gone { messages, others, mails, is_in_log })
}
