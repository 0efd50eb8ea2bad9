//! `xmd demo`: a server in a temporary directory and two people who use it through the real pages, mails and sockets.
//! Prints what happens, with the time since the start, so that a newcomer can follow.

mod http;
mod person;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use xmmep::messages::buddies::BuddyAnswer;
use xmmep::messages::chat::Tick;
use xmmep::types::Status;

use crate::cli::DemoArgs;
use crate::config::Config;
use crate::run::{complain, say, told_to_stop, welcome};
use crate::server::{Places, Server};
use person::{Person, Session};

/// A step that takes longer has failed. The slowest, a login with Argon2id on a loaded machine, takes well under a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tells what happens.
pub(crate) struct Story {
    started: Instant,
    step: Instant,
}

impl Story {
    /// One line: time since the start, who, what; and how long it took, if that is worth knowing.
    fn tell(&mut self, who: &str, what: &str) {
        let total = self.started.elapsed().as_secs_f64();
        say(&format!("{total:7.3} s  {who:<7} {what}\n"));
        self.step = Instant::now();
    }

    fn timed(&mut self, who: &str, what: &str) {
        let took = self.step.elapsed().as_secs_f64() * 1_000.0;
        self.tell(who, &format!("{what}  ({took:.1} ms)"));
    }

    fn heading(&self, text: &str) {
        say(&format!("\n{text}\n"));
    }
}

/// Runs the demonstration.
pub async fn demo(args: &DemoArgs) -> ExitCode {
    match tempfile::Builder::new().prefix("xmd-demo-").tempdir() {
        Ok(directory) => demo_in(directory.path(), args.stay).await,
        Err(error) => {
            complain(&format!("demo: no temporary directory: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn demo_in(directory: &Path, stay: bool) -> ExitCode {
    let started = Instant::now();
    let mut story = Story { started, step: started };
    say("X-Messenger: a server and two people, for real, on this machine alone.\n");
    story.heading("The server");
    let mut config = Config { data_dir: directory.join("server"), ..Config::default() };
    for listen in [&mut config.router.listen, &mut config.presence.listen, &mut config.web.listen] {
        listen.set_port(0);
    }
    let mut server = match Server::start(&config).await {
        Ok(server) => server,
        Err(error) => {
            complain(&format!("demo: the server does not start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let places = server.places().clone();
    story.timed("server", "has its keys, databases and sockets: Router, Presence and Register in one process");
    story.tell("", &format!("clients connect to {}", places.client));
    story.tell("", &format!("people register at {}/", places.web));
    let played = tokio::select! {
        played = play(&mut story, &places, directory) => played,
        why = server.failed() => Err(format!("the server stopped by itself: {why}")),
    };
    if let Err(why) = played {
        complain(&format!("demo: {why}"));
        server.stop().await;
        return ExitCode::FAILURE;
    }
    if stay {
        let told_to_stop = told_to_stop();
        story.heading("It stays. You can log in as ann or bob; both passwords are below.");
        say(&format!("  ann: {}\n  bob: {}\n\n{}", person::ANN.password, person::BOB.password, welcome(&places)));
        say("Everything above is deleted when it stops.\n");
        tokio::select! {
            () = told_to_stop => {}
            why = server.failed() => complain(&format!("demo: the server stopped by itself: {why}")),
        }
    }
    story.heading("The end");
    story.step = Instant::now();
    server.stop().await;
    story.timed("server", "has stopped; the temporary directory goes with it");
    ExitCode::SUCCESS
}

async fn play(story: &mut Story, places: &Places, directory: &Path) -> Result<(), String> {
    let (ann, bob) = (&person::ANN, &person::BOB);
    story.heading("Two accounts, by web page and mail");
    for person in [ann, bob] {
        register(story, places, person).await?;
    }
    story.heading("Two logins, by encrypted UDP");
    let mut ann = login(story, places, ann, directory).await?;
    let mut bob = login(story, places, bob, directory).await?;
    story.heading("Becoming buddies");
    befriend(story, &mut ann, &mut bob).await?;
    story.heading("Talking");
    talk(story, &mut ann, &mut bob).await?;
    story.heading("A message for somebody who is away");
    away(story, places, &mut ann, bob, directory).await?;
    ann.logout().await;
    story.timed("ann", "logs out");
    Ok(())
}

async fn register(story: &mut Story, places: &Places, person: &Person) -> Result<(), String> {
    let name = person.name;
    let web = person::web_address(places)?;
    let sent = person.register(web).await?;
    story.timed(name, &format!("sends the form for {} <{}>: \"check your mail\"", person.name, person.email));
    let link = person.link_from_mail(places).await?;
    story.timed(name, "finds the mail (an .eml file) with a link; only pressing the button on its page does something");
    person.press_the_button(web, &link).await?;
    let done = http::get(web, &sent).await?;
    if !done.body.contains("on its way") {
        return Err(format!("the page does not say that {name}'s mail was sent"));
    }
    story.timed(name, "opens the link and presses the button: the account is ready");
    Ok(())
}

async fn login(story: &mut Story, places: &Places, person: &Person, directory: &Path) -> Result<Session, String> {
    let session = person.login(places, directory).await?;
    story.timed(person.name, "looks up the Presence at the Router, derives the key with Argon2id, is logged in");
    Ok(session)
}

async fn befriend(story: &mut Story, ann: &mut Session, bob: &mut Session) -> Result<(), String> {
    ann.add_buddy("bob", "It's me, Ann!").await?;
    story.timed("ann", "asks bob to be her buddy: \"It's me, Ann!\"");
    let asker = bob.is_asked().await?;
    story.timed("bob", "is asked");
    bob.answer(asker, BuddyAnswer::ACCEPT_AND_ADD).await?;
    ann.is_accepted().await?;
    story.timed("ann", "is told that bob said yes, and has added her, too");
    Ok(())
}

async fn talk(story: &mut Story, ann: &mut Session, bob: &mut Session) -> Result<(), String> {
    bob.set_status(Status::BUSY).await;
    ann.sees(bob.user(), Status::BUSY).await?;
    story.timed("ann", "sees bob change to busy");
    for (from_ann, text) in
        [(true, "Hello Bob, are you there?"), (false, "Busy, but for you… 你好!"), (true, "See you later.")]
    {
        let (from, to) = if from_ann { (&mut *ann, &mut *bob) } else { (&mut *bob, &mut *ann) };
        story.step = Instant::now();
        let id = from.send(to.user(), text).await?;
        let heard = to.hears(from.user()).await?;
        if heard != text {
            return Err(format!("{} wrote {text:?}, but {} read {heard:?}", from.name(), to.name()));
        }
        from.gets(id, Tick::DELIVERED).await?;
        let line = format!("writes \"{text}\"; {} reads it; tick: delivered", to.name());
        story.timed(from.name(), &line);
    }
    Ok(())
}

async fn away(
    story: &mut Story,
    places: &Places,
    ann: &mut Session,
    bob: Session,
    directory: &Path,
) -> Result<(), String> {
    let bob_id = bob.user();
    bob.logout().await;
    ann.sees(bob_id, Status::OFFLINE).await?;
    story.timed("bob", "logs out; ann sees him go");
    let text = "For when you are back: the tick says that this is on disk.";
    let id = ann.send(bob_id, text).await?;
    ann.gets(id, Tick::STORED).await?;
    story.timed("ann", &format!("writes \"{text}\"; tick: stored"));
    let mut bob = login(story, places, &person::BOB, directory).await?;
    let heard = bob.hears(ann.user()).await?;
    if heard != text {
        return Err(format!("ann wrote {text:?}, but bob read {heard:?}"));
    }
    story.timed("bob", "reads it, first thing");
    ann.gets(id, Tick::DELIVERED).await?;
    story.timed("ann", "sees the tick rise: delivered");
    bob.logout().await;
    story.timed("bob", "logs out");
    Ok(())
}
