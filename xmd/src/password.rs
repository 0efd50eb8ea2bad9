//! Passwords in files: the first line of a file that its owner alone can read.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Longer than any password.
const BYTES_MAX: usize = 1_024;

/// Reads the password in `file`, which `key` of the configuration names.
///
/// # Errors
/// What is wrong with the file, and the way out.
pub(crate) fn read(file: &Path, key: &str) -> Result<String, String> {
    let name = file.display();
    let read = || Ok::<_, std::io::Error>((file.metadata()?.mode(), std::fs::read_to_string(file)?));
    let (mode, text) = read().map_err(|error| format!("cannot read {name}: {error}; see {key}"))?;
    if mode & 0o077 != 0 {
        return Err(format!("{name} can be read by others (mode {:04o}); `chmod 600` it", mode & 0o777));
    }
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() || password.len() > BYTES_MAX {
        return Err(format!("the first line of {name} is no password; see {key}"));
    }
    Ok(password.to_owned())
}
