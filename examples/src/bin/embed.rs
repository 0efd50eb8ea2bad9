//! A server of your own with a message of your own: two people meet on it and play a note.
//!
//! `cargo run --release -p examples --bin embed`

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::sync::Arc;

use examples::{befriend, embed};
use xm_core::ctx::{Ctx, Reply};
use xm_core::presence::{self, Presence};
use xm_core::refusal::Refusal;
use xm_store::Stores;
use xm_store::memory::MemoryPlacements;
use xm_store::records::Person;
use xmmep::bounded::Text;
use xmmep::client::{Client, ClientOptions, Credentials, DerivedKey, Event, Password};
use xmmep::frame::Frame;
use xmmep::message::Message;
use xmmep::messages::ResultMsg;
use xmmep::name::UserName;
use xmmep::secret::{KdfParams, LoginKey, Salt};
use xmmep::types::UserId;

// The message: a struct per code from 0x8000 on …
xmmep::messages! {
    /// Client → Presence → client: a note for somebody to hear.
    0x8001 PlayNote -> ResultMsg { to: UserId, pitch: u8, lyrics: Text<64> = Text::default() }
}

// … and its handler: an ordinary function.
async fn play(ctx: Ctx<Presence>, note: PlayNote) -> Result<Reply, Refusal> {
    let listener = ctx.role().session_of(note.to).ok_or(Refusal::NotFound)?;
    ctx.outbox().send(listener, &PlayNote { to: ctx.user(), ..note });
    ctx.done()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (placements, stores) = (Arc::new(MemoryPlacements::default()), Stores::memory());
    let ann = enrol(&placements, &stores, "ann").await?;
    let bob = enrol(&placements, &stores, "bob").await?;
    befriend(&stores, &ann, &bob).await?;

    let server = embed(placements, stores, presence::handlers().from_client(play), |_| {}).await?;
    println!("clients connect to {}", server.address);

    let log_in = |person: &Person| {
        let credentials = Credentials::Password(Password::new(PASSWORD));
        Client::connect(ClientOptions::new(server.address.clone(), person.name.clone(), credentials))
    };
    let (ann_client, mut ann_hears) = log_in(&ann).await?;
    let (bob_client, mut bob_hears) = log_in(&bob).await?;
    while !matches!(ann_hears.next().await, Some(Event::Status { user, .. }) if user == bob.user) {}
    println!("ann sees bob online");
    let answer = ann_client.request(PlayNote { to: bob.user, pitch: 60, lyrics: Text::new("do")? }).await?;
    println!("ann played a note: {:?}", answer.result);
    let note = loop {
        match bob_hears.next().await.ok_or("bob's client has ended")? {
            Event::Other(frame) if frame.header.code == PlayNote::CODE => break Frame::message::<PlayNote>(&frame)?,
            _ => {}
        }
    };
    println!("bob heard {:?} at pitch {} from user {}", &*note.lyrics, note.pitch, note.to);
    ann_client.logout().await;
    bob_client.logout().await;
    server.stop().await;
    Ok(())
}

/// What Register, Router and a mail do for a real user, without them. A program of yours takes passwords from its users.
async fn enrol(
    placements: &MemoryPlacements,
    stores: &Stores,
    name: &str,
) -> Result<Person, Box<dyn std::error::Error>> {
    let (salt, params) = (Salt([7; 16]), KdfParams::RECOMMENDED);
    let key = DerivedKey { key: LoginKey::derive(PASSWORD, &salt, params)?, salt, params };
    examples::enrol(placements, stores, &UserName::new(name)?, &key).await
}

/// Both people's, for this example only.
const PASSWORD: &str = "only for this example";
