//! The list of all messages, by flow. Adding a flow adds a line here.

use crate::frame::Code;
use crate::message::{Descriptor, OpenEnum, Record};
use crate::messages;
use crate::result_code::ResultCode;
use crate::types::Status;

/// A flow: messages that belong together, and the codes they may have.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Its word, the same in every crate and in the documentation.
    pub name: &'static str,
    /// First and last code of each range of the number plan.
    pub ranges: &'static [(u16, u16)],
    /// Its messages.
    pub messages: &'static [Descriptor],
    /// Records that are declared beside them.
    pub records: &'static [Record],
}

/// All flows.
pub const FLOWS: &[Flow] = &[
    Flow { name: "any link", ranges: &[(1, 99)], messages: messages::MESSAGES, records: messages::RECORDS },
    Flow { name: "registration", ranges: &[(100, 109)], messages: messages::registration::MESSAGES, records: &[] },
    Flow {
        name: "login",
        ranges: &[(110, 133)],
        messages: messages::login::MESSAGES,
        records: messages::login::RECORDS,
    },
    Flow { name: "status", ranges: &[(135, 139)], messages: messages::status::MESSAGES, records: &[] },
    Flow { name: "buddies", ranges: &[(140, 159)], messages: messages::buddies::MESSAGES, records: &[] },
    Flow { name: "chat", ranges: &[(170, 179)], messages: messages::chat::MESSAGES, records: messages::chat::RECORDS },
    Flow {
        name: "profile",
        ranges: &[(108, 108), (120, 122), (190, 191)],
        messages: messages::profile::MESSAGES,
        records: &[],
    },
    Flow { name: "links", ranges: &[(200, 239)], messages: messages::links::MESSAGES, records: &[] },
];

/// All integers with named values. A field type that is missing here fails the documentation's tests.
pub const ENUMS: &[OpenEnum] = &[
    ResultCode::OPEN_ENUM,
    Status::OPEN_ENUM,
    messages::Gender::OPEN_ENUM,
    messages::DeviceClass::OPEN_ENUM,
    messages::login::BuddyState::OPEN_ENUM,
    messages::login::DevicePolicy::OPEN_ENUM,
    messages::buddies::BuddyAnswer::OPEN_ENUM,
    messages::chat::Tick::OPEN_ENUM,
    messages::chat::ConfirmLevel::OPEN_ENUM,
    messages::chat::TargetKind::OPEN_ENUM,
    messages::chat::TextKind::OPEN_ENUM,
];

/// Codes that were, or may have been, something else in the first version. Never assigned.
pub const BURNT: &[u16] = &[106, 107, 132, 803, 804, 812, 814];

/// All messages, flow by flow.
pub fn all() -> impl Iterator<Item = &'static Descriptor> {
    FLOWS.iter().flat_map(|flow| flow.messages)
}

/// The message with that code.
#[must_use]
pub fn find(code: Code) -> Option<&'static Descriptor> {
    all().find(|message| message.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<_> = all().map(|message| message.code).collect();
        let total = codes.len();
        codes.sort();
        codes.dedup();
        assert_eq!(codes.len(), total);
    }

    #[test]
    fn each_code_is_inside_its_flow_and_below_the_embedders() {
        for flow in FLOWS {
            for message in flow.messages {
                let inside = flow.ranges.iter().any(|(first, last)| (*first..=*last).contains(&message.code.0));
                assert!(inside && message.code < Code::EMBEDDER_FIRST, "{} is {}", message.name, message.code);
            }
        }
    }

    #[test]
    fn burnt_codes_stay_unassigned() {
        assert!(BURNT.iter().all(|code| find(Code(*code)).is_none()));
    }

    #[test]
    fn each_answer_is_in_the_catalogue() {
        for answer in all().filter_map(|message| message.answer) {
            assert!(all().any(|message| message.name == answer), "{answer}");
        }
    }

    #[test]
    fn each_message_says_who_sends_it() {
        for message in all() {
            let first = message.doc.lines().next().unwrap_or_default();
            assert!(first.contains('→'), "{}: {first}", message.name);
        }
    }

    #[test]
    fn fields_with_a_default_come_last() {
        for message in all() {
            let first_default = message.fields.iter().position(|field| field.default.is_some());
            let all_after = message.fields.iter().skip(first_default.unwrap_or(usize::MAX));
            assert!(all_after.into_iter().all(|field| field.default.is_some()), "{}", message.name);
        }
    }
}
