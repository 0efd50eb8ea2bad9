//! How far the Presence's database has come, kept beside it: a replica that took over without the last commits, or a copy that
//! somebody put in its place, is known by having less. What is compared is `xm-store`'s, see `docs/DATABASE.md`, section 6.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use xm_store::sql::{Mark, SqlPresence};

use crate::data::{DataError, write_durably};

/// How often the mark is written while there are changes, and how soon after it shows that the database was put back the
/// server stops. A power cut can hide the loss of what was committed in this time before it.
const INTERVAL: Duration = Duration::from_secs(2);

/// Longer than any file of ours.
const BYTES_MAX: u64 = 256;

/// The file of a Presence's mark.
pub(crate) struct Witness {
    file: PathBuf,
    database: String,
}

impl Witness {
    /// The one in this data directory of the database that people call `database`.
    pub(crate) fn of(data: &Path, identity: impl std::fmt::Display, database: &str) -> Self {
        Self { file: data.join(format!("seen-{identity}")), database: database.to_owned() }
    }

    /// Compares the database as it was opened with what was seen of it before, and says if something is gone. The server goes
    /// on with what there is: nobody has anything better. Whether something is gone; then ids given out since must not come
    /// again, and after that [`keep`](Self::keep) lets the lower mark count.
    pub(crate) fn is_older(&self, now: Mark) -> bool {
        let Some(seen) = self.seen().filter(|seen| now < *seen) else { return false };
        tracing::error!(
            database = %self.database,
            had = %shown(seen),
            has = %shown(now),
            "the database was put back to an older state: the last changes to accounts and buddies, which users were told \
             were made, are gone. If that was not meant, stop the server and bring back the newest copy before more is \
             changed. Messages in the offline log that wait are kept"
        );
        true
    }

    /// The file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Keeps the mark, durably.
    pub(crate) fn keep(&self, mark: Mark) -> Result<(), DataError> {
        write_durably(&self.file, format!("{}\n", shown(mark)).as_bytes())
    }

    /// What was seen; nothing at the first start. A file that cannot be read is as good as none, and its loss is said.
    fn seen(&self) -> Option<Mark> {
        let mut text = String::new();
        let read = File::open(&self.file).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(file = %self.file.display(), %error, "it cannot be read and is made anew");
                return None;
            }
        }
        let mark = parsed(&text);
        if mark.is_none() {
            tracing::warn!(file = %self.file.display(), "it is damaged and is made anew");
        }
        mark
    }

    /// Keeps the marks of `store`; returns when it shows that its database was put back, with how.
    pub(crate) async fn watch(self: Arc<Self>, store: Arc<SqlPresence>) -> std::io::Error {
        let (mut kept, mut every) = (store.mark(), tokio::time::interval(INTERVAL));
        loop {
            every.tick().await;
            if let Some(why) = store.put_back() {
                return std::io::Error::other(format!("{}: {why}", self.database));
            }
            let (mark, witness) = (store.mark(), self.clone());
            if mark != kept {
                let written = tokio::task::spawn_blocking(move || witness.keep(mark)).await;
                if let Err(error) = written.unwrap_or(Ok(())) {
                    // A full disk: messages are refused for that, too, and it ends by itself.
                    tracing::warn!(%error, "what the database has had is not noted");
                }
                kept = mark;
            }
        }
    }
}

fn shown(mark: Mark) -> String {
    format!("epoch {} commits {}", mark.epoch, mark.changes)
}

fn parsed(text: &str) -> Option<Mark> {
    let (epoch, changes) = text.trim_end().strip_prefix("epoch ")?.split_once(" commits ")?;
    Some(Mark { epoch: epoch.parse().ok()?, changes: changes.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_as_written_and_anything_else_is_none() {
        let mark = Mark { epoch: 3, changes: u64::MAX };
        assert_eq!(parsed(&format!("{}\n", shown(mark))), Some(mark));
        for text in ["", "epoch 3", "epoch 3 commits", "epoch -1 commits 2", "epoch 3 commits 2 more", "3 2"] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_higher_epoch_is_further_whatever_the_commits() {
        assert!(Mark { epoch: 1, changes: 9 } < Mark { epoch: 2, changes: 0 });
    }
}
