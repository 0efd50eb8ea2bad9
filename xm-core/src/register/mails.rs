//! The mails Register writes. Plain text, short, one link; nothing in them comes from a form but a name that was checked.

use xm_store::records::Mail;
use xmmep::bounded::{PrivateText, Text};
use xmmep::name::{Email, UserName};
use xmmep::secret::Token;
use xmmep::types::{RequestId, WallTime};

use super::{RegisterConfig, token_to_text};

/// The mail with which a registration, or a renewed token, is activated. `name` is the name asked for, if it is known.
pub(super) fn activation(
    config: &RegisterConfig,
    (id, created): (RequestId, WallTime),
    to: &Email,
    name: Option<&UserName>,
    token: &Token,
) -> Mail {
    let service = &*config.service;
    let link = format!("{}/activate?token={}", config.public_url, token_to_text(token));
    let who = name.map_or_else(|| "your account".to_owned(), |name| format!("the name {name}"));
    let days = config.token_life.as_secs() / (24 * 3_600);
    let until = if days == 1 { "one day".to_owned() } else { format!("{days} days") };
    let body = format!(
        "Welcome to {service}!\n\
         \n\
         To activate {who}, open this page and press the button there:\n\
         \n\
         {link}\n\
         \n\
         The link works once, for {until}. Whoever has it can activate the account, so keep it\n\
         to yourself.\n\
         \n\
         If you did not ask for this, somebody has mistyped an address. Do nothing: without the\n\
         link there is no account, and the name is free again after {until}.\n"
    );
    write(id, created, to, &format!("Activate your {service} account"), &body)
}

/// The mail to the owner of an address with which somebody else, or the owner again, has tried to register.
pub(super) fn somebody_tried(config: &RegisterConfig, (id, created): (RequestId, WallTime), to: &Email) -> Mail {
    let service = &*config.service;
    let url = &*config.public_url;
    let body = format!(
        "Somebody has tried to register at {service} with this e-mail address, which is already\n\
         registered there. Nothing has changed.\n\
         \n\
         If it was you: you have an account. Log in with its name; if it was never activated,\n\
         look for the activation mail, or have it sent again:\n\
         \n\
         {url}\n\
         \n\
         If it was not you, there is nothing to do. Who tried was not told that the address is\n\
         registered.\n"
    );
    write(id, created, to, &format!("Your {service} account"), &body)
}

fn write(id: RequestId, created: WallTime, to: &Email, subject: &str, body: &str) -> Mail {
    let body = PrivateText::new(body).expect("a text of ours with a bounded URL, service and name is far below 8 KiB");
    Mail { id, to: to.clone(), subject: Text::cut(subject), body, created }
}
