//! The file of the next segment, made beside the work while there is room in the last one: its space is taken and flushed
//! by the time it is needed. Whoever needs it earlier waits for its zeros, as he would without it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use super::disk::{UNFINISHED, private_file, write_all_at};

/// Bytes flushed at a time: a flush of appends may wait for so many.
const PIECE: usize = 512 * 1024;

/// How the thread goes on: a piece and a flush after the other, without any more flushes, or not at all.
const GENTLY: u8 = 0;
const AT_ONCE: u8 = 1;
const NOT: u8 = 2;

/// Makes one file at a time. It has no part in what is promised: whoever uses it writes and flushes as if it were new. The
/// thread ends before this does, so it works under the lock of its log.
#[derive(Debug)]
pub(super) struct Spare {
    directory: PathBuf,
    size: usize,
    making: Option<Making>,
}

#[derive(Debug)]
struct Making {
    thread: JoinHandle<io::Result<File>>,
    how: Arc<AtomicU8>,
}

impl Spare {
    /// For files of `size` bytes, none of which is made yet.
    pub(super) fn new(directory: &Path, size: usize) -> Self {
        Self { directory: directory.to_owned(), size, making: None }
    }

    /// Begins to make one, unless that was done.
    pub(super) fn begin(&mut self) {
        if self.making.is_some() {
            return;
        }
        let (path, size, how) = (self.directory.join(UNFINISHED), self.size, Arc::new(AtomicU8::new(GENTLY)));
        let told = how.clone();
        let thread = std::thread::Builder::new().name("offline-log-new".into());
        // Without a thread there is no spare.
        let thread = thread.spawn(move || make(&path, size, &told)).ok();
        self.making = thread.map(|thread| Making { thread, how });
    }

    /// The file, if one was begun and could be made. Its name is [`UNFINISHED`], its content zeros, not all of them flushed.
    pub(super) fn take(&mut self) -> Option<File> {
        self.end(AT_ONCE)
    }

    /// Gives back the space of one that was begun.
    pub(super) fn give_up(&mut self) {
        if self.end(NOT).is_some() {
            // What stays is deleted at the next start.
            let _ = std::fs::remove_file(self.directory.join(UNFINISHED));
        }
    }

    fn end(&mut self, how: u8) -> Option<File> {
        let making = self.making.take()?;
        making.how.store(how, Ordering::Relaxed);
        making.thread.join().ok()?.ok()
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.give_up();
    }
}

fn make(path: &Path, size: usize, how: &AtomicU8) -> io::Result<File> {
    let made = private_file(path).and_then(|file| {
        file.set_len(0)?;
        fill(&file, size, how, File::sync_data)?;
        Ok(file)
    });
    if made.is_err() {
        // Also gives back the space of a part. Whoever needs a segment tries for himself, and says what is wrong.
        let _ = std::fs::remove_file(path);
    }
    made
}

fn fill(file: &File, size: usize, how: &AtomicU8, mut sync: impl FnMut(&File) -> io::Result<()>) -> io::Result<()> {
    let zeros = vec![0; PIECE.min(size)];
    for at in (0..size).step_by(PIECE) {
        let piece = zeros.get(..size - at).unwrap_or(&zeros);
        write_all_at(file, piece, at as u64)?;
        match how.load(Ordering::Relaxed) {
            GENTLY => sync(file)?,
            AT_ONCE => {}
            _ => return Err(io::ErrorKind::Interrupted.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 4 * PIECE + 1;

    #[test]
    fn one_that_was_begun_is_waited_for_and_has_all_its_bytes() {
        for size in [1, PIECE, LARGE] {
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
    fn one_that_is_given_up_or_dropped_or_cannot_be_made_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut spare = Spare::new(directory.path(), LARGE);
        spare.begin();
        spare.give_up();
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
        spare.begin();
        drop(spare);
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
        let mut nowhere = Spare::new(&directory.path().join("nowhere"), 10);
        nowhere.begin();
        assert!(nowhere.take().is_none());
    }

    #[test]
    fn nobody_who_needs_it_or_does_not_want_it_any_more_waits_for_its_flushes() {
        // It is told with the second flush: none follows.
        for (told, written, is_made) in [(GENTLY, LARGE, true), (AT_ONCE, LARGE, true), (NOT, 3 * PIECE, false)] {
            let file = tempfile::tempfile().unwrap();
            let (how, mut flushes) = (AtomicU8::new(GENTLY), 0);
            let made = fill(&file, LARGE, &how, |_| {
                flushes += 1;
                if flushes == 2 {
                    how.store(told, Ordering::Relaxed);
                }
                Ok(())
            });
            assert_eq!(made.is_ok(), is_made);
            assert_eq!(file.metadata().unwrap().len(), written as u64);
            assert_eq!(flushes, if told == GENTLY { 5 } else { 2 });
        }
    }
}
