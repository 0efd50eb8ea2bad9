//! What a test does and sees as Ann, and what the Presence heard of her.

use xmmep::bounded::PrivateText;
use xmmep::client::{Event, Target};
use xmmep::frame::Frame;
use xmmep::message::Message;
use xmmep::messages::chat::{Tick, TxtMsgFwd};
use xmmep::messages::login::ClientReady;
use xmmep::types::MsgId;

use crate::script::{BOB, content};
use crate::world::World;

impl World {
    /// All messages of that kind the Presence heard so far.
    pub(crate) fn heard<M: Message>(&self) -> Vec<M> {
        self.heard_frames::<M>().into_iter().map(|frame| frame.message().unwrap()).collect()
    }

    pub(crate) fn heard_frames<M: Message>(&self) -> Vec<Frame> {
        self.presence
            .inbox
            .iter()
            .map(|(_, frame)| frame)
            .filter(|frame| frame.header.code == M::CODE)
            .cloned()
            .collect()
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.heard::<ClientReady>().is_empty()
    }

    /// Ann writes to Bob.
    pub(crate) fn text(&mut self, body: &str) -> MsgId {
        let body = PrivateText::new(body).unwrap();
        self.call(|machine, env, out| machine.send_text(env, Target::User(BOB), body, out)).unwrap()
    }

    /// Bob writes to Ann, as the Presence passes it on.
    pub(crate) fn text_from_bob(&mut self, n: u8) -> TxtMsgFwd {
        let text = TxtMsgFwd { from: BOB, at: self.wall(), from_store: false, text: content(n) };
        self.say(&text);
        text
    }

    /// The bodies of the texts that were shown, in order.
    pub(crate) fn shown(&self) -> Vec<String> {
        let text = |event: &Event| match event {
            Event::Text(text) => Some(text.text.body.expose().to_owned()),
            _ => None,
        };
        self.events.iter().filter_map(text).collect()
    }

    pub(crate) fn ticks(&self) -> Vec<(MsgId, Tick)> {
        let tick = |event: &Event| match event {
            Event::Tick(tick) => Some((tick.id, tick.tick)),
            _ => None,
        };
        self.events.iter().filter_map(tick).collect()
    }
}
