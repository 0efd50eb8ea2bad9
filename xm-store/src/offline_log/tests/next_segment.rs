//! The space of a segment is taken before it is needed.

use std::sync::atomic::AtomicUsize;

use super::*;

static LONGEST: AtomicUsize = AtomicUsize::new(0);

fn measured_write(file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    LONGEST.fetch_max(bytes.len(), Ordering::SeqCst);
    disk::write_all_at(file, bytes, at)
}

#[test]
fn only_the_first_append_waits_for_the_space_of_a_whole_segment() {
    let directory = scratch();
    let calls = disk::Calls { write: measured_write, ..disk::Calls::REAL };
    let log = OfflineLog::open_with(directory.path(), small(), Box::new(|_| {}), calls).unwrap();
    block_on(append(&log, 1..2));
    assert_eq!(LONGEST.swap(0, Ordering::SeqCst), small().segment_bytes);
    block_on(append(&log, 2..400));
    let longest = LONGEST.load(Ordering::SeqCst);
    assert!(longest < small().segment_bytes / 4, "{longest} bytes in one write");
    let files = directory.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    assert!(files.filter(|name| name.to_str().and_then(disk::segment_number).is_some()).count() > 3);
    drop(log);
    assert!(!directory.path().join(disk::UNFINISHED).exists(), "one that is not needed any more is deleted");
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    assert_eq!(numbers(&block_on(waiting(&log))), (1..400).collect::<Vec<_>>());
}
