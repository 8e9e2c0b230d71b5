//! Where the lines of the access log end up: one thread that owns the file, behind a bounded queue.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use crate::config::model::{AccessLog, AccessLogFormat, AccessLogTarget};

/// Chunks (of some 64 KiB) that may wait for the disk: up to 8 MiB, then lines are dropped and counted.
const QUEUE: usize = 128;

/// A running access log.
#[derive(Debug)]
pub struct Sink {
    pub format: AccessLogFormat,
    queue: SyncSender<Order>,
    dropped: AtomicU64,
}

#[derive(Debug)]
enum Order {
    Write(Vec<u8>),
    Reopen,
    /// Answers when everything before it is written.
    Settle(SyncSender<()>),
}

impl Sink {
    /// Opens the log; `None` when it is off.
    ///
    /// # Errors
    /// When the file can't be opened for appending.
    pub fn open(log: &AccessLog) -> io::Result<Option<Self>> {
        let target = match &log.to {
            AccessLogTarget::Off => return Ok(None),
            AccessLogTarget::Stdout => Target::Stdout,
            AccessLogTarget::File(path) => Target::File { file: append_to(path)?, path: path.clone() },
        };
        let (queue, orders) = sync_channel(QUEUE);
        thread::Builder::new().name("access-log".into()).spawn(move || write_all(&orders, target))?;
        Ok(Some(Self { format: log.format, queue, dropped: AtomicU64::new(0) }))
    }

    /// Takes whole lines. Never waits: what finds no room is dropped and counted.
    pub fn take(&self, lines: Vec<u8>) {
        if let Err(
            TrySendError::Full(Order::Write(lines)) | TrySendError::Disconnected(Order::Write(lines)),
        ) = self.queue.try_send(Order::Write(lines))
        {
            let count = lines.iter().filter(|byte| **byte == b'\n').count();
            self.dropped.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// Opens the file anew, after a log rotation moved it away.
    pub fn reopen(&self) {
        // A full queue or an ended thread: the next rotation asks again.
        let _ = self.queue.try_send(Order::Reopen);
    }

    /// Waits until everything handed over so far is written.
    pub fn settle(&self) {
        let (done, settled) = sync_channel(1);
        if self.queue.send(Order::Settle(done)).is_ok() {
            let _ = settled.recv();
        }
    }

    /// Lines that were dropped because the disk could not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

enum Target {
    Stdout,
    File { file: File, path: PathBuf },
}

impl Target {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().write_all(lines).and_then(|()| io::stdout().flush()),
            Self::File { file, .. } => file.write_all(lines),
        }
    }
}

fn write_all(orders: &Receiver<Order>, mut target: Target) {
    let mut failing = false;
    for order in orders {
        match order {
            Order::Write(lines) => {
                let outcome = target.write(&lines);
                if let (Err(error), false) = (&outcome, failing) {
                    // Once, not for each line: a full disk must not fill the daemon's log too.
                    tracing::error!(%error, "the access log can't be written");
                }
                failing = outcome.is_err();
            }
            Order::Reopen => {
                if let Target::File { file, path } = &mut target {
                    match append_to(path) {
                        Ok(opened) => *file = opened,
                        Err(error) => {
                            tracing::error!(%error, path = %path.display(), "the access log can't be reopened");
                        }
                    }
                }
            }
            Order::Settle(done) => {
                let _ = done.send(());
            }
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Sink {
        let log = AccessLog { to: AccessLogTarget::File(path.to_owned()), format: AccessLogFormat::Json };
        Sink::open(&log).unwrap().unwrap()
    }

    #[test]
    fn after_a_rotation_lines_go_to_the_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let sink = open(&path);
        sink.take(b"one\n".to_vec());
        sink.settle();
        std::fs::rename(&path, &rotated).unwrap();
        sink.take(b"two\n".to_vec());
        sink.reopen();
        sink.take(b"three\n".to_vec());
        sink.settle();
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(sink.dropped(), 0);
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_an_error() {
        let log = AccessLog {
            to: AccessLogTarget::File("/nonexistent/access.log".into()),
            format: AccessLogFormat::Json,
        };
        assert!(Sink::open(&log).is_err());
    }
}
