//! The file of the next segment, made beside the work while there is room in the last one: its space is taken and flushed
//! by the time it is needed, and nobody waits for that.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use super::disk::{UNFINISHED, private_file, write_all_at};

/// Bytes flushed at a time: a flush of appends may wait for so many.
const PIECE: usize = 512 * 1024;

/// Makes one file at a time. It has no part in what is promised: whoever uses it writes and flushes as if it were new.
#[derive(Debug)]
pub(super) struct Spare {
    directory: PathBuf,
    size: usize,
    making: Option<JoinHandle<io::Result<File>>>,
}

impl Spare {
    /// For files of `size` bytes, none of which is made yet.
    pub(super) fn new(directory: &Path, size: usize) -> Self {
        Self { directory: directory.to_owned(), size, making: None }
    }

    /// Begins to make one, unless that was done.
    pub(super) fn begin(&mut self) {
        if self.making.is_none() {
            let (path, size) = (self.directory.join(UNFINISHED), self.size);
            let thread = std::thread::Builder::new().name("offline-log-next".into());
            // Without a thread there is no spare.
            self.making = thread.spawn(move || make(&path, size)).ok();
        }
    }

    /// The file, if one was begun and could be made; waits for it. Its name is [`UNFINISHED`], its content zeros.
    pub(super) fn take(&mut self) -> Option<File> {
        self.making.take()?.join().ok()?.ok()
    }

    /// Gives back the space of one that was begun.
    pub(super) fn give_up(&mut self) {
        if self.take().is_some() {
            // What stays is deleted at the next start.
            let _ = std::fs::remove_file(self.directory.join(UNFINISHED));
        }
    }
}

fn make(path: &Path, size: usize) -> io::Result<File> {
    let made = private_file(path).and_then(|file| {
        fill(&file, size)?;
        Ok(file)
    });
    if made.is_err() {
        // Also gives back the space of a part. Whoever needs a segment tries for himself, and says what is wrong.
        let _ = std::fs::remove_file(path);
    }
    made
}

fn fill(file: &File, size: usize) -> io::Result<()> {
    file.set_len(0)?;
    let zeros = vec![0; PIECE.min(size)];
    for at in (0..size).step_by(PIECE) {
        let piece = zeros.get(..size - at).unwrap_or(&zeros);
        write_all_at(file, piece, at as u64)?;
        file.sync_data()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_begun_is_waited_for_and_has_all_its_bytes() {
        for size in [1, PIECE, 2 * PIECE + 1] {
            let directory = tempfile::tempdir().unwrap();
            let mut spare = Spare::new(directory.path(), size);
            assert!(spare.take().is_none(), "none was begun");
            spare.begin();
            spare.begin();
            assert_eq!(spare.take().unwrap().metadata().unwrap().len(), size as u64);
            assert_eq!(std::fs::read(directory.path().join(UNFINISHED)).unwrap(), vec![0; size]);
            assert!(spare.take().is_none(), "it is taken once");
        }
    }

    #[test]
    fn what_another_one_left_is_not_in_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(UNFINISHED), [7; 100]).unwrap();
        let mut spare = Spare::new(directory.path(), 10);
        spare.begin();
        assert!(spare.take().is_some());
        assert_eq!(std::fs::read(directory.path().join(UNFINISHED)).unwrap(), [0; 10]);
    }

    #[test]
    fn one_that_is_given_up_or_cannot_be_made_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut spare = Spare::new(directory.path(), 10);
        spare.begin();
        spare.give_up();
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
        let mut nowhere = Spare::new(&directory.path().join("nowhere"), 10);
        nowhere.begin();
        assert!(nowhere.take().is_none());
        nowhere.give_up();
    }
}
