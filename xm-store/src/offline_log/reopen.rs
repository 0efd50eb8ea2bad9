//! A log that has stopped reads the disk again, by itself, until that works. Its lock stays with the process.
//!
//! After a flush that failed, nobody knows what the disk has: the pages may be marked as clean though they never got
//! there. So everything in memory is thrown away and read again, and the last batch is written once more (see
//! `recover.rs`). Nothing that was answered is taken back by this; what was not answered may have been stored.

use std::collections::{BTreeSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::committer::{Committer, End, Job, refuse};
use super::events::Event;
use super::recover::{Recovery, recover};
use super::segments;
use crate::error::{OpenError, StoreError};

/// The pause before the first try. A fault that passes at once costs no more than this.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Pauses double up to this: reading a large log again is work for a disk that may be struggling.
const PAUSE_MAX: Duration = Duration::from_secs(10);

impl Committer {
    /// Works until the log is dropped, whatever the disk does meanwhile; then leaves everything flushed.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let worked = std::panic::catch_unwind(AssertUnwindSafe(|| match self.shared.check_running() {
                Ok(()) => self.serve(jobs),
                Err(why) => self.reopen(jobs, &why),
            }));
            match worked {
                Ok(End::Dropped) => return self.stop(),
                Ok(End::Stopped) => {}
                // A bug; what it left in memory is not trusted, what is on disk is.
                Err(_) => self.shared.stop(&StoreError::Stopped("the thread that writes has panicked".into())),
            }
        }
    }

    /// Reads the disk again until that works; refuses calls meanwhile.
    fn reopen(&mut self, jobs: &Receiver<Job>, why: &StoreError) -> End {
        (self.watch)(Event::Stopped(why.clone()));
        let mut pause = PAUSE_MIN;
        loop {
            if let End::Dropped = refuse_for(pause, jobs, why) {
                return End::Dropped;
            }
            pause = (pause * 2).min(PAUSE_MAX);
            match self.read() {
                Ok(recovery) => {
                    self.shared.go_on();
                    (self.watch)(Event::Reopened(recovery));
                    return End::Stopped;
                }
                Err(error) => (self.watch)(Event::StillStopped(error, pause)),
            }
        }
    }

    /// Takes the state of the disk for its own. Levels that were raised and not yet written are kept.
    pub(super) fn read(&mut self) -> Result<Recovery, OpenError> {
        self.spare.give_up();
        let recovered = recover(&self.directory)?;
        let newest = recovered.segments.last().map_or(0, |segment| segment.number);
        if let Some(noted) = self.lock.newest().filter(|noted| *noted > newest) {
            return Err(segments::missing_newest(&self.directory, noted));
        }
        let mut report = recovered.report;
        *self.shared.files() = recovered.segments.iter().map(|one| (one.number, one.file.clone())).collect();
        let mut index = self.shared.index();
        let raised = index.levels(&self.unsaved);
        let outdated = std::mem::replace(&mut *index, recovered.index);
        let kept = raised.into_iter().filter(|(to, id, level, at)| index.settle(*to, *id, *level, *at));
        self.unsaved = kept.map(|(to, id, ..)| (to, id)).collect::<BTreeSet<_>>();
        drop(index);
        // Not while others wait for it: that takes as long as a walk through all of it.
        drop(outdated);
        self.segments = VecDeque::from(recovered.segments);
        self.batch = recovered.batch;
        self.is_open = false;
        self.doubt = recovered.doubt;
        let in_doubt = self.doubt.as_ref().map_or(0, |doubt| doubt.payloads.len());
        if in_doubt > 0 {
            match self.make_segment(0) {
                Ok(()) => report.rewritten = in_doubt,
                // What is there can be read; an append tries again.
                Err(error @ (StoreError::Full(_) | StoreError::Unavailable(_))) => self.note_full(&error),
                Err(error) => {
                    let path = self.directory.clone();
                    return Err(OpenError::Unreachable { path, why: error.to_string() });
                }
            }
        }
        Ok(report)
    }
}

/// Answers every call with `why` for that long.
fn refuse_for(pause: Duration, jobs: &Receiver<Job>, why: &StoreError) -> End {
    let until = Instant::now() + pause;
    loop {
        match jobs.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(job) => refuse(job, why),
            Err(RecvTimeoutError::Timeout) => return End::Stopped,
            Err(RecvTimeoutError::Disconnected) => return End::Dropped,
        }
    }
}
