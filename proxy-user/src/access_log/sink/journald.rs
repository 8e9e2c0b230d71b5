//! A log in systemd's journal, by its native protocol: a datagram of fields for each line.
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>

use std::{
    io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::SndBuf};

use super::{Place, Stopped, each_line};

/// As systemd's own library asks for; the kernel gives what it allows.
const BUFFER: usize = 8 << 20;

/// The journal may be busy for so long.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Journald {
    socket: UnixDatagram,
    path: PathBuf,
    /// What follows each message and its severity.
    fields: String,
    datagram: Vec<u8>,
}

impl Journald {
    pub fn new(path: &Path, log: &str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        setsockopt(&socket, SndBuf, &BUFFER)?;
        let fields = format!("SYSLOG_IDENTIFIER=weir\nWEIR_LOG={log}\n");
        Ok(Self { socket, path: path.to_owned(), fields, datagram: Vec::new() })
    }
}

impl Place for Journald {
    fn write(&mut self, lines: &[u8]) -> Result<(), Stopped> {
        let mut done = 0;
        for line in each_line(lines) {
            self.datagram.clear();
            self.datagram.extend_from_slice(b"MESSAGE=");
            self.datagram.extend_from_slice(line.text);
            self.datagram.extend_from_slice(b"\nPRIORITY=");
            self.datagram.extend_from_slice(&[b'0' + line.severity, b'\n']);
            self.datagram.extend_from_slice(self.fields.as_bytes());
            self.socket.send_to(&self.datagram, &self.path).map_err(|error| Stopped { done, error })?;
            done = line.end;
        }
        Ok(())
    }

    fn comes_back(&self) -> bool {
        true
    }
}
