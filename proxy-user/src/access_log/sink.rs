//! Where the lines of a log end up: one thread that owns the file or the socket, behind a bounded queue.
//!
//! A sink knows nothing of requests: it takes whole lines, each with a severity before it where its [`Place`] wants one.

mod file;
pub mod journald;
mod stdout;
pub mod syslog;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use crate::config::model::{AccessLog, AccessLogTarget};

/// Where the host's own daemons listen.
pub const JOURNALD: &str = "/run/systemd/journal/socket";
pub const SYSLOG: &str = "/dev/log";

/// Chunks (of some 64 KiB) that may wait for their place: up to 8 MiB, then lines are dropped and counted.
const QUEUE: usize = 128;

/// After a failure the next try comes so late, then twice as late, and so on.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A place to which nothing is written is looked at so often.
const LOOK: Duration = Duration::from_secs(60);

/// When the daemon ends, it waits no longer for what is still to be written.
const SETTLE: Duration = Duration::from_secs(5);

/// Lines that were dropped are told no more often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A running log.
#[derive(Debug)]
pub struct Sink {
    /// Each line begins with `<6>` or `<4>`: as syslog counts severities.
    pub takes_severities: bool,
    queue: SyncSender<Order>,
    state: Arc<State>,
    thread: Thread,
}

/// What the sink and its thread both know.
#[derive(Debug, Default)]
struct State {
    dropped: AtomicU64,
    /// Nobody waits for a place any more that can't be reached.
    hurry: AtomicBool,
    /// Why the place takes nothing just now.
    failing: Mutex<Option<String>>,
}

#[derive(Debug)]
enum Order {
    Write(Vec<u8>),
    Reopen,
    /// Answers when everything before it is written.
    Settle(SyncSender<()>),
}

/// What takes lines. On the sink's own thread, so it may wait.
trait Place: Send {
    /// # Errors
    /// With what stopped it, and where.
    fn write(&mut self, lines: &[u8]) -> Result<(), Stopped>;

    /// Begins anew, where that means something.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Nothing was written for [`LOOK`].
    fn rest(&mut self) {}

    /// Whether what failed is worth another try after a while.
    fn comes_back(&self) -> bool {
        false
    }
}

/// A place takes no more.
#[derive(Debug)]
struct Stopped {
    /// So many bytes, all of whole lines, are done with.
    done: usize,
    error: io::Error,
}

/// Hands over an order to say when all before it is done, and waits for that, but no longer than `limit`.
pub fn settle<T>(queue: &SyncSender<T>, order: impl FnOnce(SyncSender<()>) -> T, limit: Duration) {
    let until = Instant::now() + limit;
    let (done, settled) = sync_channel(1);
    let mut order = order(done);
    while let Err(TrySendError::Full(back)) = queue.try_send(order) {
        if Instant::now() >= until {
            return;
        }
        order = back;
        thread::sleep(Duration::from_millis(5));
    }
    let _ = settled.recv_timeout(until.saturating_duration_since(Instant::now()));
}

impl Sink {
    /// Opens the log.
    ///
    /// # Errors
    /// When a file can't be opened for appending. A log that is elsewhere may be out of reach for now.
    pub fn open(log: &AccessLog) -> io::Result<Self> {
        let (place, takes_severities): (Box<dyn Place>, bool) = match &log.to {
            AccessLogTarget::Stdout => (Box::new(stdout::Stdout), false),
            AccessLogTarget::File { path, rotate } => (Box::new(file::LogFile::open(path, *rotate)?), false),
            AccessLogTarget::Journald(path) => (Box::new(journald::Journald::new(path, &log.name)?), true),
            AccessLogTarget::Syslog(syslog) => (Box::new(syslog::Syslog::new(syslog, &log.name)?), true),
        };
        let (queue, orders) = sync_channel(QUEUE);
        let state = Arc::new(State::default());
        let writer =
            Writer { name: log.name.to_string(), place, state: state.clone(), told: Told::default() };
        let thread =
            thread::Builder::new().name("access-log".into()).spawn(move || writer.follow(&orders))?;
        Ok(Self { takes_severities, queue, state, thread: thread.thread().clone() })
    }

    /// Takes whole lines. Never waits: what finds no room is dropped and counted.
    pub fn take(&self, lines: Vec<u8>) {
        if let Err(
            TrySendError::Full(Order::Write(lines)) | TrySendError::Disconnected(Order::Write(lines)),
        ) = self.queue.try_send(Order::Write(lines))
        {
            self.state.drop_lines(&lines);
        }
    }

    /// Opens the file anew, after a log rotation moved it away.
    pub fn reopen(&self) {
        // A full queue or an ended thread: the next rotation asks again.
        let _ = self.queue.try_send(Order::Reopen);
    }

    /// Waits until everything handed over so far is written, but not for a place that can't be reached.
    pub fn settle(&self) {
        self.state.hurry.store(true, Ordering::Relaxed);
        self.thread.unpark();
        settle(&self.queue, Order::Settle, SETTLE);
    }

    /// Lines that were dropped because their place could not keep up, or could not be reached.
    pub fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }

    /// Why nothing is written just now.
    pub fn failing(&self) -> Option<String> {
        self.state.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Sink {
    /// Its thread goes when it has written what waits, or can't.
    fn drop(&mut self) {
        self.state.hurry.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

// === impl State ===

impl State {
    fn drop_lines(&self, lines: &[u8]) {
        self.dropped.fetch_add(count(lines), Ordering::Relaxed);
    }

    fn fails(&self, why: Option<String>) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// The sink's thread.
struct Writer {
    name: String,
    place: Box<dyn Place>,
    state: Arc<State>,
    told: Told,
}

/// Of dropped lines.
#[derive(Default)]
struct Told {
    count: u64,
    at: Option<Instant>,
}

impl Writer {
    fn follow(mut self, orders: &Receiver<Order>) {
        let mut failing = false;
        loop {
            let order = match orders.recv_timeout(LOOK) {
                Ok(order) => order,
                Err(RecvTimeoutError::Timeout) => {
                    self.place.rest();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            match order {
                Order::Write(lines) => {
                    self.write(&lines, &mut failing);
                    self.tell_of_dropped();
                }
                Order::Reopen => {
                    if let Err(error) = self.place.reopen() {
                        tracing::error!(log = self.name, %error, "the access log can't be reopened");
                    }
                }
                Order::Settle(done) => {
                    let _ = done.send(());
                }
            }
        }
    }

    /// Writes all of it, or waits until that is possible; meanwhile the queue fills, and workers drop what finds no room.
    fn write(&mut self, mut lines: &[u8], failing: &mut bool) {
        let mut wait = FIRST_WAIT;
        while let Err(Stopped { done, error }) = self.place.write(lines) {
            lines = &lines[done..];
            if !*failing {
                // Once, not for each line: a full disk must not fill the daemon's log too.
                tracing::error!(log = self.name, %error, "the access log can't be written");
                *failing = true;
            }
            self.state.fails(Some(error.to_string()));
            if !self.place.comes_back() || self.state.hurry.load(Ordering::Relaxed) {
                self.state.drop_lines(lines);
                return;
            }
            thread::park_timeout(wait);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        if *failing {
            tracing::info!(log = self.name, "the access log is written again");
            self.state.fails(None);
            *failing = false;
        }
    }

    fn tell_of_dropped(&mut self) {
        let dropped = self.state.dropped.load(Ordering::Relaxed);
        if dropped == self.told.count || self.told.at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return;
        }
        let lines = dropped - self.told.count;
        tracing::warn!(
            log = self.name,
            lines,
            "lines of the access log were dropped: its place can't keep up"
        );
        self.told = Told { count: dropped, at: Some(Instant::now()) };
    }
}

/// The lines among `chunk`, without their ends and severities.
fn each_line(chunk: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = &chunk[at..];
        let length = memchr::memchr(b'\n', rest)?;
        at += length + 1;
        let (severity, text) = match &rest[..length] {
            [b'<', severity @ b'0'..=b'7', b'>', text @ ..] => (severity - b'0', text),
            text => (INFO, text),
        };
        Some(Line { severity, text, end: at })
    })
}

struct Line<'a> {
    severity: u8,
    text: &'a [u8],
    /// Where the next one begins.
    end: usize,
}

/// As syslog counts severities.
const INFO: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        access_log::format::tests::log,
        config::model::{AccessLogFormat, Facility, Rotate, Syslog, SyslogFormat, Transport},
    };
    use std::{
        io::{BufRead, BufReader, Read},
        net::{TcpListener, UdpSocket},
        os::unix::net::UnixDatagram,
        path::Path,
    };

    fn open_at(to: AccessLogTarget) -> Sink {
        Sink::open(&AccessLog { to, ..log(AccessLogFormat::Json) }).unwrap()
    }

    fn file(path: &Path, rotate: Option<Rotate>) -> Sink {
        open_at(AccessLogTarget::File { path: path.to_owned(), rotate })
    }

    fn syslog(transport: Transport, format: SyslogFormat) -> Sink {
        let tag = "weir".to_owned();
        open_at(AccessLogTarget::Syslog(Syslog { transport, format, facility: Facility::Local0, tag }))
    }

    #[test]
    fn after_a_rotation_lines_go_to_the_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let sink = file(&path, None);
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
    fn a_log_that_rotates_by_itself_keeps_so_many_old_files_and_loses_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let sink = file(&path, Some(Rotate { size: Some(10), age: None, keep: 2 }));
        for line in ["one-----\n", "two-----\n", "three---\n", "four----\n"] {
            sink.take(line.as_bytes().to_vec());
        }
        sink.settle();
        let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).ok();
        assert_eq!(text("access.log").as_deref(), Some("four----\n"));
        assert_eq!(text("access.log.1").as_deref(), Some("three---\n"));
        assert_eq!(text("access.log.2").as_deref(), Some("two-----\n"));
        assert_eq!(text("access.log.3"), None);
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_an_error() {
        let to = AccessLogTarget::File { path: "/nonexistent/access.log".into(), rotate: None };
        assert!(Sink::open(&AccessLog { to, ..log(AccessLogFormat::Json) }).is_err());
    }

    #[test]
    fn journald_gets_each_line_with_its_severity() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let sink = open_at(AccessLogTarget::Journald(path));
        sink.take(b"<6>well\n<4>badly\n".to_vec());
        let received = || {
            let mut bytes = [0; 1024];
            let length = journald.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        assert_eq!(received(), "MESSAGE=well\nPRIORITY=6\nSYSLOG_IDENTIFIER=weir\nWEIR_LOG=access\n");
        assert!(received().starts_with("MESSAGE=badly\nPRIORITY=4\n"));
    }

    #[test]
    fn a_local_syslog_gets_what_local_daemons_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let sink = syslog(Transport::Unix(path), SyslogFormat::Rfc3164);
        sink.take(b"<6>well\n".to_vec());
        let mut bytes = [0; 1024];
        let length = daemon.recv(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let pid = std::process::id();
        assert!(text.starts_with("<134>"), "{text}");
        assert!(text.ends_with(&format!(" weir[{pid}]: well")), "{text}");
    }

    #[test]
    fn over_udp_a_message_is_a_datagram() {
        let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = daemon.local_addr().unwrap().port();
        let sink = syslog(Transport::Udp { host: "127.0.0.1".into(), port }, SyslogFormat::Rfc5424);
        sink.take(b"<4>one\n<6>two\n".to_vec());
        let mut bytes = [0; 1024];
        for (severity, text) in [("<132>1 ", "one"), ("<134>1 ", "two")] {
            let length = daemon.recv(&mut bytes).unwrap();
            let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
            assert!(message.starts_with(severity), "{message}");
            assert!(message.ends_with(&format!(" weir {} access - {text}", std::process::id())), "{message}");
        }
    }

    #[test]
    fn over_tcp_messages_are_counted_and_a_new_connection_follows_a_broken_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sink = syslog(Transport::Tcp { host: "127.0.0.1".into(), port }, SyslogFormat::Rfc5424);
        for text in ["first", "second"] {
            sink.take(format!("<6>{text}\n").into_bytes());
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            let mut length = Vec::new();
            stream.read_until(b' ', &mut length).unwrap();
            let length: usize = std::str::from_utf8(&length).unwrap().trim().parse().unwrap();
            let mut message = vec![0; length];
            stream.read_exact(&mut message).unwrap();
            assert!(String::from_utf8(message).unwrap().ends_with(text), "{text}");
            // The connection closes here, as when a daemon is restarted.
        }
        assert_eq!(sink.dropped(), 0);
    }

    #[test]
    fn a_place_that_is_out_of_reach_is_told_and_holds_nobody_up() {
        // Nothing listens there any more when the listener is gone.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let sink = syslog(Transport::Tcp { host: "127.0.0.1".into(), port }, SyslogFormat::Rfc5424);
        sink.take(b"<6>one\n<6>two\n".to_vec());
        let begun = Instant::now();
        sink.settle();
        assert!(begun.elapsed() < SETTLE, "{:?}", begun.elapsed());
        assert_eq!(sink.dropped(), 2);
        assert!(sink.failing().is_some_and(|why| why.contains("refused")), "{:?}", sink.failing());
    }

    #[test]
    fn lines_know_their_severity() {
        let lines: Vec<_> = each_line(b"<4>a\n<9>b\nc\nrest")
            .map(|line| (line.severity, String::from_utf8_lossy(line.text).into_owned()))
            .collect();
        assert_eq!(lines, [(4, "a".into()), (6, "<9>b".into()), (6, "c".into())]);
    }
}
