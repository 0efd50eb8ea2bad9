//! The log on disk passes the conformance suite, with real files closed and opened again.
#![cfg(all(feature = "testing", feature = "offline-log"))]

use std::sync::Arc;

use xm_store::Offline;
use xm_store::offline_log::{OfflineLog, Options};
use xm_store::testing::{Open, opener};

fn log(options: Options) -> Open<dyn Offline> {
    let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    opener(move || {
        let (directory, options) = (directory.clone(), options.clone());
        async move {
            let log = OfflineLog::open(directory.path(), options).expect("it opens");
            assert_eq!(log.recovery().damage, []);
            assert_eq!(log.recovery().torn_bytes, 0, "it was closed in order");
            Arc::new(log) as Arc<dyn Offline>
        }
    })
}

xm_store::suite!(offline, usual, log(Options::default()));
// Segments so small that every case rotates and compacts.
xm_store::suite!(offline, tiny_segments, log(Options { segment_bytes: 2_000, ..Options::default() }));
