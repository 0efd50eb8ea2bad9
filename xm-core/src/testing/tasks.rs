//! A small executor: work that waits, polled when it was woken, in the order of the wakes. One per server; dropping it
//! is what a crash does to such work.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

use crate::role::Task;

/// The tasks of one server.
#[derive(Default)]
pub(super) struct Tasks {
    tasks: BTreeMap<u64, Task>,
    last: u64,
    woken: Arc<Mutex<VecDeque<u64>>>,
}

struct WakeOne {
    task: u64,
    woken: Arc<Mutex<VecDeque<u64>>>,
}

impl Wake for WakeOne {
    fn wake(self: Arc<Self>) {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.task);
    }
}

impl Tasks {
    pub(super) fn spawn(&mut self, task: Task) {
        self.last += 1;
        self.tasks.insert(self.last, task);
        self.woken.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.last);
    }

    /// Polls whatever was woken; whether there was anything.
    pub(super) fn run_woken(&mut self) -> bool {
        let mut any = false;
        while let Some(number) = self.next_woken() {
            let Some(task) = self.tasks.get_mut(&number) else { continue };
            any = true;
            let waker = Waker::from(Arc::new(WakeOne { task: number, woken: self.woken.clone() }));
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                self.tasks.remove(&number);
            }
        }
        any
    }

    fn next_woken(&self) -> Option<u64> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Tasks that are not done.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }
}
