//! Daemons before this one whose connections have not ended yet: what they count is added to what this one counts, and the status
//! tells of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use super::{Downwards, Upwards, counters, heir::Predecessor, wire::Line};
use crate::worker::Running;

/// Those that are still there.
#[derive(Debug, Default)]
pub struct Lineage(Mutex<Vec<Elder>>);

/// One of them.
#[derive(Debug)]
struct Elder {
    told: Told,
    line: Arc<Line>,
}

/// For people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub version: String,
    pub connections: usize,
    /// Until it ends, whatever is still open.
    pub seconds_left: u64,
}

impl Lineage {
    /// Listens to a predecessor until it has ended.
    pub fn follow(self: &Arc<Self>, predecessor: Predecessor, running: Running) {
        let Predecessor { line, version, counted, .. } = predecessor;
        counters::add(&running.load(), &counted);
        let line = Arc::new(line);
        let told = Told { version, connections: 0, seconds_left: 0 };
        self.lock().push(Elder { told, line: line.clone() });
        let lineage = self.clone();
        let begun = thread::Builder::new().name("predecessor".to_owned()).spawn(move || {
            lineage.listen(&line, &running);
        });
        if let Err(error) = begun {
            tracing::warn!(%error, "what the daemon before still counts is lost");
        }
    }

    /// Those whose connections haven't ended.
    pub fn told(&self) -> Vec<Told> {
        self.lock().iter().map(|elder| elder.told.clone()).collect()
    }

    /// Log files were moved away.
    pub fn reopen_logs(&self) {
        for elder in self.lock().iter() {
            // It may be ending just now.
            let _ = elder.line.say(&Upwards::ReopenLogs, &[]);
        }
    }

    fn listen(&self, line: &Arc<Line>, running: &Running) {
        loop {
            match line.hear(None) {
                Ok(Some((Downwards::Counted { counts, connections, seconds_left }, _))) => {
                    counters::add(&running.load(), &counts);
                    for elder in self.lock().iter_mut().filter(|elder| Arc::ptr_eq(&elder.line, line)) {
                        elder.told.connections = connections;
                        elder.told.seconds_left = seconds_left;
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "what a daemon before says is not understood");
                    break;
                }
            }
        }
        self.lock().retain(|elder| !Arc::ptr_eq(&elder.line, line));
        tracing::info!("the daemon before has ended");
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Elder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
