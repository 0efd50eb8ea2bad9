//! A thread of its own for a lane, with a runtime of its own: what it wakes and what wakes it does not move to another core.

use std::future::Future;
use std::io;

use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// Keeps a thread whose work has ended.
#[must_use = "the thread ends with its work, and with it what was opened there"]
pub struct OwnThread {
    _alive: oneshot::Sender<()>,
}

/// Runs `work` on a thread of its own, called `name` (at most 15 bytes are shown). The future resolves to what came of it;
/// dropped before, it ends the work and the thread.
///
/// What `work` spawns runs on that thread, too, and a connection that was opened there, to a database for example, needs it.
/// So it outlives the work: let [`OwnThread`] go when nobody uses such connections any more.
///
/// # Errors
/// If no thread is to be had. The future resolves to an error if there is no runtime for it, or `work` panicked.
pub fn on_own_thread(
    name: String,
    work: impl Future<Output = io::Result<()>> + Send + 'static,
) -> io::Result<(OwnThread, impl Future<Output = io::Result<()>> + Send + 'static)> {
    let (mut end, ended) = oneshot::channel();
    let (alive, released) = oneshot::channel();
    let live = move || {
        // Made here: where there is no thread for it, it could not be dropped by a caller who runs on another one.
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(end.send(Err(error))),
        };
        runtime.block_on(async move {
            let result = tokio::select! {
                result = work => result,
                () = end.closed() => return,
            };
            // Whoever waited may have gone in this moment.
            let _ = end.send(result);
            // Nothing is ever sent: it is dropped.
            let _ = released.await;
        });
    };
    std::thread::Builder::new().name(name).spawn(live)?;
    let ended = async move { ended.await.unwrap_or_else(|_| Err(io::Error::other("its thread panicked"))) };
    Ok((OwnThread { _alive: alive }, ended))
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::thread::ThreadId;

    use futures_util::future::join;
    use tokio::sync::mpsc;

    use super::*;

    fn current() -> ThreadId {
        std::thread::current().id()
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "what a driver under test would do")]
    async fn what_the_work_spawns_runs_on_its_thread_until_that_is_let_go() {
        let (told, mut tell) = mpsc::unbounded_channel();
        let (ask, mut asked) = mpsc::unbounded_channel::<()>();
        let work = async move {
            told.send(current()).unwrap();
            tokio::spawn(async move {
                while asked.recv().await.is_some() {
                    told.send(current()).unwrap();
                }
            });
            Ok(())
        };
        let (own, ended) = on_own_thread("own".into(), work).unwrap();
        ended.await.unwrap();
        let thread = tell.recv().await.unwrap();
        assert_ne!(thread, current());
        ask.send(()).unwrap();
        assert_eq!(tell.recv().await, Some(thread), "the work has ended, its thread has not");
        drop(own);
        assert_eq!(tell.recv().await, None, "it takes along what runs there");
    }

    #[tokio::test]
    async fn work_nobody_waits_for_any_more_ends() {
        let (alive, mut dropped) = mpsc::unbounded_channel::<()>();
        let work = async move {
            let _alive = alive;
            pending().await
        };
        let (_own, ended) = on_own_thread("unwanted".into(), work).unwrap();
        drop(ended);
        assert_eq!(dropped.recv().await, None);
    }

    #[tokio::test]
    async fn a_panic_is_told_and_stays_on_its_thread() {
        let (_own, panics) = on_own_thread("panics".into(), async { panic!("as the test wants") }).unwrap();
        let (_other, fine) = on_own_thread("fine".into(), async { Ok(()) }).unwrap();
        let (told, fine) = join(panics, fine).await;
        assert_eq!(told.unwrap_err().to_string(), "its thread panicked");
        fine.unwrap();
    }
}
