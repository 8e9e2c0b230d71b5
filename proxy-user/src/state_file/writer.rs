//! Writes files in the state folder a moment later, by a thread that has nothing else to do: a disk that is busy takes its time
//! (a flush waits for what others write, too), and whoever gives out a configuration must not wait for it.
//!
//! For what a daemon could do without, since it can be had again. What must hold before somebody is answered (drains, blocks) is
//! written at once.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

type Work = Box<dyn FnOnce() + Send>;

/// The process's own.
pub static WRITER: Writer = Writer::new();

pub struct Writer {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    begun: AtomicBool,
}

struct Waiting {
    /// By the file that it writes.
    works: BTreeMap<PathBuf, Work>,
    /// One of them is being done.
    at_work: bool,
}

impl Writer {
    const fn new() -> Self {
        let waiting = Waiting { works: BTreeMap::new(), at_work: false };
        Self { waiting: Mutex::new(waiting), changed: Condvar::new(), begun: AtomicBool::new(false) }
    }

    /// Has `work` done soon, which writes the file `path`. What was to be written there and isn't yet, need not be any more.
    pub fn write(&'static self, path: PathBuf, work: impl FnOnce() + Send + 'static) {
        self.lock().works.insert(path, Box::new(work));
        if !self.begun.swap(true, Ordering::Relaxed) {
            let thread = std::thread::Builder::new().name("writer".to_owned());
            if thread.spawn(|| self.run()).is_err() {
                // Then it is done by whoever gives the next.
                self.begun.store(false, Ordering::Relaxed);
            }
        }
        self.changed.notify_all();
    }

    /// Waits until all of it is written, though not for ever. It blocks.
    pub fn settle(&self, within: Duration) {
        let end = Instant::now() + within;
        let mut waiting = self.lock();
        while waiting.at_work || !waiting.works.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn run(&self) {
        let mut waiting = self.lock();
        loop {
            match waiting.works.pop_first() {
                Some((_, work)) => {
                    waiting.at_work = true;
                    drop(waiting);
                    work();
                    waiting = self.lock();
                    waiting.at_work = false;
                    self.changed.notify_all();
                }
                None => waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    #[test]
    fn nobody_waits_for_the_disk_and_of_two_that_wait_the_later_is_written() {
        static OWN: Writer = Writer::new();
        let (go_on, busy) = mpsc::channel::<()>();
        let (tell, begun) = mpsc::channel();
        OWN.write("first".into(), move || {
            let _ = tell.send(());
            let _ = busy.recv();
        });
        begun.recv().unwrap();
        let written = Arc::<Mutex<Vec<u32>>>::default();
        for number in [1, 2] {
            let written = written.clone();
            OWN.write("second".into(), move || written.lock().unwrap().push(number));
        }
        OWN.settle(Duration::from_millis(1));
        assert!(written.lock().unwrap().is_empty(), "the disk is still busy with the first");
        drop(go_on);
        OWN.settle(Duration::from_secs(10));
        assert_eq!(*written.lock().unwrap(), [2]);
    }
}
