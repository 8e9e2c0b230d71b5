//! A log in systemd's journal, by its native protocol: a datagram of fields for each line. What is too long for a datagram is
//! handed over as a file in memory that nobody can change any more.
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>

use std::{
    fs::File,
    io::{self, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg, setsockopt, sockopt::SndBuf},
    },
};

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
            send(&self.socket, &self.path, &self.datagram).map_err(|error| Stopped { done, error })?;
            done = line.end;
        }
        Ok(())
    }

    fn comes_back(&self) -> bool {
        true
    }
}

/// Has the journal take an entry, of whatever length.
pub fn send(socket: &UnixDatagram, journal: &Path, entry: &[u8]) -> io::Result<()> {
    match socket.send_to(entry, journal) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EMSGSIZE | nix::libc::ENOBUFS)) => {
            hand_over(socket, journal, entry)
        }
        Err(error) => Err(error),
    }
}

fn hand_over(socket: &UnixDatagram, journal: &Path, entry: &[u8]) -> io::Result<()> {
    let file = memfd_create("weir-log", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = File::from(file);
    file.write_all(entry)?;
    // The journal takes nothing that could change while it reads.
    let seals =
        SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    let files = [file.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&files)];
    let to = UnixAddr::new(journal)?;
    sendmsg(socket.as_raw_fd(), &[], &rights, MsgFlags::MSG_NOSIGNAL, Some(&to))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{IoSliceMut, Read as _, Seek as _},
        os::fd::{FromRawFd as _, OwnedFd},
    };

    use nix::sys::socket::{ControlMessageOwned, recvmsg};

    use super::*;

    /// What a journal gets: what is in the datagram, or else in the file that comes with it.
    fn received(journal: &UnixDatagram) -> (Vec<u8>, Option<SealFlag>) {
        let mut bytes = vec![0; 1 << 16];
        let mut space = nix::cmsg_space!([i32; 1]);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let got =
            recvmsg::<()>(journal.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty()).unwrap();
        let length = got.bytes;
        let file = got.cmsgs().unwrap().find_map(|message| match message {
            ControlMessageOwned::ScmRights(files) => files.first().copied(),
            _ => None,
        });
        let Some(file) = file else {
            bytes.truncate(length);
            return (bytes, None);
        };
        assert_eq!(length, 0, "a file comes alone");
        // SAFETY: the kernel has just made it for this process, and nobody else knows of it.
        let mut file = File::from(unsafe { OwnedFd::from_raw_fd(file) });
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS).unwrap();
        let mut text = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut text).unwrap();
        (text, Some(SealFlag::from_bits_truncate(seals)))
    }

    #[test]
    fn an_entry_of_any_length_reaches_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        setsockopt(&socket, SndBuf, &(64 << 10)).unwrap();
        let short = b"MESSAGE=short\nPRIORITY=6\n".to_vec();
        send(&socket, &path, &short).unwrap();
        assert_eq!(received(&journal), (short, None));

        let long = [&b"MESSAGE="[..], &vec![b'x'; 1 << 20], b"\nPRIORITY=6\n"].concat();
        send(&socket, &path, &long).unwrap();
        let (text, seals) = received(&journal);
        assert!(text == long, "{} bytes of {}", text.len(), long.len());
        assert!(seals.is_some_and(|seals| seals.contains(SealFlag::F_SEAL_WRITE)), "{seals:?}");
    }

    #[test]
    fn without_a_journal_there_is_an_error() {
        let socket = UnixDatagram::unbound().unwrap();
        assert!(send(&socket, Path::new("/nowhere/socket"), &vec![b'x'; 1 << 20]).is_err());
    }
}
