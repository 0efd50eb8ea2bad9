//! The registration form: what a browser sent becomes typed values, or a list of what is wrong with which field. What is
//! taken and what is not, only the Router knows.

use serde::Deserialize;
use xmmep::bounded::{BoundError, Text};
use xmmep::messages::{Gender, Profile};
use xmmep::name::{Email, UserName};

/// Fewest characters of a password.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Most characters of a password. More add nothing, and each costs the estimator time.
pub const PASSWORD_CHARS_MAX: usize = 128;
/// A password that an informed guesser finds within this many tries is refused. The 3,000 commonest are among them with
/// a wide margin, as are their capitalised, reversed and l33t forms.
pub const GUESSES_MIN: u64 = 10_000;

/// The fields as they come. Whatever is missing is empty.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields {
    pub(super) nonce: String,
    pub(super) name: String,
    pub(super) email: String,
    pub(super) password: String,
    pub(super) again: String,
    pub(super) nickname: String,
}

/// What is wrong with which field; empty where nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldErrors {
    pub(super) name: String,
    pub(super) email: String,
    pub(super) password: String,
    pub(super) again: String,
    pub(super) nickname: String,
}

impl FieldErrors {
    /// Whether nothing is wrong.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A form whose fields are fine by themselves.
pub(super) struct Checked {
    /// The name.
    pub(super) name: UserName,
    /// The address.
    pub(super) email: Email,
    /// The password, as typed.
    pub(super) password: String,
    /// What the user tells about himself.
    pub(super) profile: Profile,
}

/// Checks the fields. Cheap: how guessable the password is comes later, see [`guessable`].
///
/// # Errors
/// What is wrong, for all fields at once.
pub(super) fn check(fields: Fields) -> Result<Checked, FieldErrors> {
    let mut errors = FieldErrors::default();
    let name = UserName::new(fields.name.trim()).map_err(|error| sentence(&error));
    let email = Email::new(fields.email.trim()).map_err(|error| sentence(&error));
    let nickname = Text::new(fields.nickname.trim()).map_err(|error| match error {
        BoundError::TooLong { .. } => "A nickname has at most 128 bytes of UTF-8.".to_owned(),
        BoundError::Nul(_) => "A nickname cannot contain this character.".to_owned(),
    });
    let chars = fields.password.chars().take(PASSWORD_CHARS_MAX + 1).count();
    if chars < PASSWORD_CHARS_MIN {
        errors.password = format!("A password has at least {PASSWORD_CHARS_MIN} characters.");
    } else if chars > PASSWORD_CHARS_MAX {
        errors.password = format!("A password has at most {PASSWORD_CHARS_MAX} characters.");
    } else if fields.password != fields.again {
        errors.again = "The two passwords differ.".to_owned();
    }
    match (name, email, nickname) {
        (Ok(name), Ok(email), Ok(nickname)) if errors.is_empty() => {
            let profile = Profile {
                nickname,
                personal_msg: Text::default(),
                birthdate: Text::default(),
                location: Text::default(),
                gender: Gender::NOT_STATED,
            };
            Ok(Checked { name, email, password: fields.password, profile })
        }
        (name, email, nickname) => {
            errors.name = name.err().unwrap_or_default();
            errors.email = email.err().unwrap_or_default();
            errors.nickname = nickname.err().unwrap_or_default();
            Err(errors)
        }
    }
}

/// Whether a guesser who knows common passwords, keyboards, dates, words, and this user's name and address finds the
/// password within [`GUESSES_MIN`] tries. Takes milliseconds: not for an event loop.
#[must_use]
pub(super) fn guessable(checked: &Checked) -> bool {
    let email = checked.email.as_str();
    let local = email.split('@').next().unwrap_or_default();
    let known = [checked.name.as_str(), email, local, &*checked.profile.nickname, "xmessenger", "messenger"];
    zxcvbn::zxcvbn(&checked.password, &known).guesses() < GUESSES_MIN
}

/// An error of a type, which is lower case and has no full stop, as the sentence a form shows.
fn sentence(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).chain(['.']).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine() -> Fields {
        Fields {
            nonce: String::new(),
            name: "Ann".to_owned(),
            email: "ann@example.org".to_owned(),
            password: "plum tractor 9 sky".to_owned(),
            again: "plum tractor 9 sky".to_owned(),
            nickname: String::new(),
        }
    }

    fn with_password(password: &str) -> Fields {
        Fields { password: password.to_owned(), again: password.to_owned(), ..fine() }
    }

    fn errors(fields: Fields) -> FieldErrors {
        check(fields).err().unwrap_or_default()
    }

    #[test]
    fn a_form_that_keeps_the_rules_passes() {
        let checked = check(fine()).unwrap_or_else(|errors| panic!("{errors:?}"));
        assert_eq!((checked.name.as_str(), checked.email.as_str()), ("Ann", "ann@example.org"));
        assert!(!guessable(&checked));
    }

    #[test]
    fn all_broken_rules_are_named_at_once_each_with_its_field() {
        let fields = Fields {
            nonce: String::new(),
            name: "a b".to_owned(),
            email: "nobody".to_owned(),
            password: "short".to_owned(),
            again: "shirt".to_owned(),
            nickname: "n".repeat(129),
        };
        let errors = errors(fields);
        assert!(errors.name.starts_with("A user name has letters"), "{errors:?}");
        assert!(errors.email.starts_with("This is no e-mail address"), "{errors:?}");
        assert!(errors.password.contains("at least 8"), "{errors:?}");
        assert!(errors.nickname.contains("at most 128"), "{errors:?}");
    }

    #[test]
    fn passwords_have_8_to_128_characters_of_any_script() {
        for (password, fine) in [
            ("x".repeat(7), false),
            ("x".repeat(8), true),
            ("字".repeat(8), true),
            ("x".repeat(128), true),
            ("字".repeat(128), true),
            ("x".repeat(129), false),
            ("x".repeat(1_000_000), false),
        ] {
            assert_eq!(errors(with_password(&password)).is_empty(), fine, "{} characters", password.chars().count());
        }
    }

    #[test]
    fn common_passwords_and_the_users_own_name_are_guessable() {
        for password in [
            "password",
            "Password",
            "p@ssw0rd",
            "drowssap",
            "12345678",
            "87654321",
            "qwertyui",
            "iloveyou",
            "sunshine",
            "football",
            "princess",
            "baseball",
            "trustno1",
            "superman",
            "aaaaaaaa",
            "abcdefgh",
            "11111111",
            "letmein1",
            "starwars",
            "computer",
            "michelle",
            "jennifer",
            "whatever",
            "liverpool",
            "butterfly",
            "chocolate",
            "ann@example.org",
            "xmessenger",
        ] {
            let checked = check(with_password(password)).unwrap_or_else(|errors| panic!("{errors:?}"));
            assert!(guessable(&checked), "{password:?}");
        }
    }

    #[test]
    fn an_ordinary_long_password_is_not_guessable() {
        for password in ["correct horse battery staple", "kJ8#vPz2", "字漢語学習帳日", "grün-Elch7 tanzt"] {
            let padded = format!("{password}é");
            let checked = check(with_password(&padded)).unwrap_or_else(|errors| panic!("{errors:?}"));
            assert!(!guessable(&checked), "{padded:?}");
        }
    }
}
