//! Memory back to the system. The allocator keeps freed objects for the thread that freed them, and a slab goes back only
//! whole: after a crowd has left, a few objects would hold megabytes.

use std::time::Duration;

use tikv_jemalloc_ctl::{Access, AsName};

/// How often: a crowd leaves seldom, and to fill the cache again takes some microseconds.
const INTERVAL: Duration = Duration::from_secs(20);

/// Whether a thread has a cache; switching it off empties it.
const CACHE: &[u8] = b"thread.tcache.enabled\0";

/// Empties the cache of the thread this runs on, again and again, until `stopped` is ready.
pub(crate) async fn give_back(stopped: impl Future<Output = ()>) {
    let mut stopped = std::pin::pin!(stopped);
    while tokio::time::timeout(INTERVAL, &mut stopped).await.is_err() {
        empty_cache();
    }
}

fn empty_cache() {
    if let Err(error) = [false, true].into_iter().try_for_each(|on| CACHE.name().write(on)) {
        tracing::debug!(%error, "the allocator keeps what this thread freed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_can_be_switched_off_and_has_one_again_once_it_was_emptied() {
        let has_one = || Access::<bool>::read(CACHE.name()).unwrap();
        CACHE.name().write(false).unwrap();
        assert!(!has_one());
        empty_cache();
        assert!(has_one());
    }
}
