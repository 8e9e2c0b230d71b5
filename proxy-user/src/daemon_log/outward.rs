//! Events as messages for the journal or the host's syslog.

use std::{
    fmt::{self, Write as _},
    io,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    sync::Mutex,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use crate::{
    access_log::sink::{JOURNALD, SYSLOG, journald, syslog::message::Framer},
    config::model::{Facility, Syslog, SyslogFormat, Transport},
};

/// By which name Weir goes.
const TAG: &str = "weir";

pub struct Outward {
    socket: UnixDatagram,
    to: PathBuf,
    /// `None`: the journal's protocol.
    framer: Option<Mutex<Framer>>,
}

/// What an event says: its message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Outward {
    pub fn to_journald() -> io::Result<Self> {
        Ok(Self { socket: socket()?, to: JOURNALD.into(), framer: None })
    }

    pub fn to_syslog() -> io::Result<Self> {
        let syslog = Syslog {
            transport: Transport::Unix(SYSLOG.into()),
            format: SyslogFormat::Rfc3164,
            facility: Facility::Daemon,
            tag: TAG.to_owned(),
        };
        let framer = Framer::new(&syslog, true, TAG);
        Ok(Self { socket: socket()?, to: SYSLOG.into(), framer: Some(Mutex::new(framer)) })
    }

    fn datagram(&self, severity: u8, text: &str) -> Vec<u8> {
        match &self.framer {
            Some(framer) => {
                let mut framer = framer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let mut datagram = Vec::with_capacity(text.len() + 64);
                framer.now();
                // One line: a local daemon ends the message there.
                framer.write(severity, text.replace('\n', " ").as_bytes(), &mut datagram);
                datagram
            }
            None => {
                // With its length, since a message may have several lines.
                let mut datagram = b"MESSAGE\n".to_vec();
                datagram.extend_from_slice(&(text.len() as u64).to_le_bytes());
                datagram.extend_from_slice(text.as_bytes());
                datagram.extend_from_slice(b"\nPRIORITY=");
                datagram.extend_from_slice(&[b'0' + severity, b'\n']);
                datagram.extend_from_slice(b"SYSLOG_IDENTIFIER=weir\n");
                datagram
            }
        }
    }
}

fn socket() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl<S: Subscriber> Layer<S> for Outward {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let text = text.message + &text.fields;
        let datagram = self.datagram(severity(event.metadata().level()), &text);
        let sent = match &self.framer {
            Some(_) => self.socket.send_to(&datagram, &self.to).map(drop),
            None => journald::send(&self.socket, &self.to, &datagram),
        };
        if sent.is_err() {
            // Not the macro, which panics when stderr is gone.
            let _ = io::Write::write_all(&mut io::stderr(), format!("{text}\n").as_bytes());
        }
    }
}

/// As syslog counts them.
fn severity(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to memory can't fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    fn told(outward: impl FnOnce(PathBuf) -> Outward) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(outward(path));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(service = "app", lines = 2, "two\nlines");
        });
        let mut bytes = vec![0; 1024];
        let length = daemon.recv(&mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn the_journal_gets_severity_and_all_lines() {
        let bytes = told(|to| Outward { to, ..Outward::to_journald().unwrap() });
        let message = "two\nlines service=\"app\" lines=2";
        let mut expected = b"MESSAGE\n".to_vec();
        expected.extend_from_slice(&(message.len() as u64).to_le_bytes());
        expected.extend_from_slice(message.as_bytes());
        expected.extend_from_slice(b"\nPRIORITY=4\nSYSLOG_IDENTIFIER=weir\n");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_syslog_gets_one_line() {
        let bytes = told(|to| Outward { to, ..Outward::to_syslog().unwrap() });
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("<28>"), "{text}");
        let pid = std::process::id();
        assert!(text.ends_with(&format!(" weir[{pid}]: two lines service=\"app\" lines=2")), "{text}");
    }
}
