//! Tests of the journal on disk.

use super::*;
use crate::client::journal::Received;
use crate::messages::chat::Content;
use crate::sample::{Sample, Sampler};
use crate::types::{MsgId, UserId, WallTime};

const OWNER: &str = "ann";

fn received(n: u64) -> Entry {
    let text = Content { id: id(n), ..Content::sample(&mut Sampler::new(n)) };
    Entry::Received(Received { from: UserId(1), at: WallTime(n), from_store: false, text })
}

fn id(n: u64) -> MsgId {
    MsgId(u128::from(n).to_be_bytes())
}

/// A journal of five batches of two texts each; the file and where each batch ends.
fn five_batches(path: &Path) -> (Vec<u8>, Vec<usize>) {
    let mut journal = FileJournal::open(path, OWNER).unwrap();
    let ends = (0..5).map(|n| {
        journal.append(&[received(2 * n), received(2 * n + 1)]).unwrap();
        fs::metadata(path).unwrap().len() as usize
    });
    let ends = ends.collect();
    (fs::read(path).unwrap(), ends)
}

/// How many of the texts 0, 1, 2, … came back; there must be no hole in them.
fn texts_of(journal: &mut FileJournal) -> u64 {
    let remembered = journal.recover().unwrap();
    let count = remembered.waiting().count() as u64;
    assert!((0..count).all(|n| remembered.has_shown(UserId(1), id(n))), "a hole in {count} texts");
    count
}

#[test]
fn a_file_cut_at_any_byte_gives_back_every_whole_batch_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, ends) = five_batches(&dir.path().join("whole"));
    let path = dir.path().join("cut");
    for cut in 0..=bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let mut journal = FileJournal::open(&path, OWNER).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count() as u64;
        assert_eq!(texts_of(&mut journal), 2 * whole, "cut at {cut}");
        journal.append(&[received(2 * whole)]).unwrap();
        drop(journal);
        let mut journal = FileJournal::open(&path, OWNER).unwrap();
        assert_eq!(texts_of(&mut journal), 2 * whole + 1, "cut at {cut}, then appended and opened again");
    }
}

#[test]
fn a_last_batch_of_which_some_sectors_never_reached_the_disk_is_dropped_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, ends) = five_batches(&dir.path().join("whole"));
    let path = dir.path().join("torn");
    for at in ends[3]..ends[4] {
        let mut torn = bytes.clone();
        torn[at] = !torn[at];
        fs::write(&path, &torn).unwrap();
        assert_eq!(texts_of(&mut FileJournal::open(&path, OWNER).unwrap()), 8, "byte {at}");
    }
}

#[test]
fn damage_in_the_middle_keeps_the_rest_and_is_told_and_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, ends) = five_batches(&dir.path().join("whole"));
    let path = dir.path().join("damaged");
    for at in ends[1]..ends[2] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        let remembered = FileJournal::open(&path, OWNER).unwrap().recover().unwrap();
        assert_eq!(remembered.waiting().count(), 8, "byte {at}");
        assert!(remembered.damage().contains("damaged at byte"), "{}", remembered.damage());
        assert_eq!(fs::read(path.with_file_name("damaged.damaged-6")).unwrap(), damaged);
        let again = FileJournal::open(&path, OWNER).unwrap().recover().unwrap();
        assert_eq!((again.waiting().count(), again.damage()), (8, ""));
    }
}

#[test]
fn a_journal_of_somebody_else_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ann");
    let (bytes, _) = five_batches(&path);
    assert!(matches!(FileJournal::open(&path, "bob"), Err(JournalError::NotOurs { .. })));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    fs::write(&path, "dear diary").unwrap();
    assert!(matches!(FileJournal::open(&path, OWNER), Err(JournalError::NotOurs { .. })));
}

#[test]
fn a_journal_is_open_once_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ann");
    let first = FileJournal::open(&path, OWNER).unwrap();
    assert!(matches!(FileJournal::open(&path, OWNER), Err(JournalError::InUse(_))));
    drop(first);
    assert!(FileJournal::open(&path, OWNER).is_ok());
}

#[test]
fn a_journal_that_has_grown_is_rewritten_and_remembers_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ann");
    let mut journal = FileJournal::open(&path, OWNER).unwrap();
    let mut largest = 0;
    for first in (0..70_000).step_by(100) {
        let texts = (first..first + 100).map(received);
        let taken = (first..first + 100).map(|n| Entry::Taken(UserId(1), id(n)));
        journal.append(&texts.chain(taken).collect::<Vec<_>>()).unwrap();
        largest = largest.max(fs::metadata(&path).unwrap().len());
    }
    let len = fs::metadata(&path).unwrap().len();
    assert!(len < largest, "never rewritten: {len} bytes");
    drop(journal);
    let remembered = FileJournal::open(&path, OWNER).unwrap().recover().unwrap();
    assert_eq!(remembered.waiting().count(), 0);
    assert!((60_000..70_000).all(|n| remembered.has_shown(UserId(1), id(n))));
}

#[cfg(unix)]
#[test]
fn nobody_else_on_the_machine_can_read_a_journal() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ann");
    let _journal = FileJournal::open(&path, OWNER).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn after_a_failed_write_nothing_more_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ann");
    let mut journal = FileJournal::open(&path, OWNER).unwrap();
    // A file opened for reading refuses the write as a full or broken disk would.
    let writable = core::mem::replace(&mut journal.file, File::open(&path).unwrap());
    assert!(matches!(journal.append(&[received(0)]), Err(JournalError::Io { .. })));
    journal.file = writable;
    assert!(matches!(journal.append(&[received(0)]), Err(JournalError::Failed(_))));
}
