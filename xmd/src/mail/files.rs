//! Mails as `.eml` files: to try things out, and for whoever hands them on.

use std::path::{Path, PathBuf};

use xm_store::records::Mail;

use super::{Letter, Outcome};
use crate::data::{DataError, make_private_dir, write_durably};

/// Writes a mail as `<milliseconds since 1970>-<id>.eml`: whole or not at all, readable by its owner alone, since it may
/// hold a token. The same mail gets the same name, so that a second try makes no second file.
///
/// # Errors
/// If the operating system says no.
pub fn write_eml(directory: &Path, mail: &Mail, bytes: &[u8]) -> Result<PathBuf, DataError> {
    make_private_dir(directory)?;
    let path = directory.join(format!("{:015}-{}.eml", mail.created.0, mail.id));
    write_durably(&path, bytes)?;
    Ok(path)
}

pub(super) async fn deliver(directory: &Path, mail: &Mail, letter: Letter) -> Outcome {
    let (directory, mail) = (directory.to_owned(), mail.clone());
    let written = tokio::task::spawn_blocking(move || write_eml(&directory, &mail, &letter.bytes)).await;
    match written {
        Ok(Ok(_)) => Outcome::Sent,
        Ok(Err(error)) => Outcome::Later(error.to_string()),
        Err(error) => Outcome::Later(error.to_string()),
    }
}
