//! Erasing a user: no file of the log holds a body to or from him, and nobody else loses anything.

use super::*;

const EVE: UserId = UserId(66);
const AT: WallTime = WallTime(9);

/// A body that can be found in a file.
fn secret(number: u64, to: UserId, from: UserId) -> Parcel {
    let body = format!("<from {} to {}, number {number}>", from.0, to.0).into_bytes();
    Parcel { from, body, ..parcel(number) }
}

/// All bytes of all segments. Levels that follow their answers may make the log delete one meanwhile: what it held lies in a
/// later one by then.
fn on_disk(directory: &Path) -> Vec<u8> {
    loop {
        let numbers = segments::numbers(directory).unwrap();
        let read = numbers.iter().map(|number| std::fs::read(disk::segment_path(directory, *number)));
        match read.collect::<std::io::Result<Vec<_>>>() {
            Ok(all) => return all.concat(),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
        }
    }
}

fn holds(directory: &Path, text: &str) -> bool {
    on_disk(directory).windows(text.len()).any(|window| window == text.as_bytes())
}

async fn store(log: &OfflineLog, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let (to, from) = [(BOB, UserId(3)), (EVE, UserId(3)), (BOB, EVE)][number as usize % 3];
        log.append(to, vec![secret(number, to, from)]).await.unwrap();
    }
}

#[test]
fn after_an_erasure_no_segment_has_a_body_to_or_from_the_user() {
    let directory = scratch();
    let quotas = Quotas { messages: 10_000, bytes: 10_000_000, messages_per_sender: 10_000 };
    let log = OfflineLog::open(directory.path(), Options { quotas, ..small() }).unwrap();
    block_on(async {
        store(&log, 0..300).await;
        // Settled long ago, and still in a segment.
        let read: Vec<_> =
            (0..150).filter(|number| number % 3 == 1).map(|number| secret(number, EVE, UserId(3))).collect();
        let read: Vec<_> = read.iter().map(id).collect();
        assert_eq!(log.settle(EVE, &read, Level::Read, WallTime(1)).await.unwrap().len(), 50);
        assert!(holds(directory.path(), "from 66 ") && holds(directory.path(), "to 66,"));
        let erased = log.erase(EVE, AT).await.unwrap();
        assert_eq!(erased, Erased { to: 50, from: 100, quarantined: 0 });
        assert!(!holds(directory.path(), "from 66 ") && !holds(directory.path(), "to 66,"));
        assert_eq!(log.summary(EVE).await.unwrap().messages, 0);
        assert_eq!(log.summary(BOB).await.unwrap().messages, 100, "what is of others stays");
        assert_eq!(log.level(EVE, read[0]).await.unwrap(), Some(Level::Read));
        let refused = id(&secret(298, EVE, UserId(3)));
        assert_eq!(log.level(EVE, refused).await.unwrap(), Some(Level::Refused), "its sender can ask");
        assert_eq!(log.erase(EVE, AT).await.unwrap(), Erased::default(), "once is enough");
        store(&log, 300..301).await;
        log.shared.reading().assert_sums();
    });
    drop(log);
    let log = OfflineLog::open(directory.path(), Options { quotas, ..small() }).unwrap();
    assert_eq!((log.recovery().damage.len(), log.recovery().waiting), (0, 101));
    assert!(!holds(directory.path(), "from 66 ") && !holds(directory.path(), "to 66,"));
}

#[test]
fn an_erasure_says_that_quarantine_may_hold_more() {
    let directory = scratch();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    block_on(store(&log, 0..9));
    drop(log);
    let path = disk::segment_path(directory.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[HEADER_LEN + 5] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    let erased = block_on(log.erase(EVE, AT)).unwrap();
    assert_eq!(erased, Erased { to: 3, from: 3, quarantined: 1 });
    assert!(!holds(directory.path(), "from 66 ") && !holds(directory.path(), "to 66,"));
}
