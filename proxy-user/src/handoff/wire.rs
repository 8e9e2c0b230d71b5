//! How two daemons speak: frames of JSON over a socket between them, with file descriptors beside. It blocks: whoever uses it has a
//! thread for it, or nothing else to do.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Serialize, de::DeserializeOwned};

/// The kernel takes 253 in one message.
const AT_A_TIME: usize = 64;

/// What is longer is none of ours.
const LONGEST: usize = 256 << 20;
const MOST: usize = 1 << 16;

/// One end.
#[derive(Debug)]
pub struct Line(UnixStream);

impl Line {
    /// Both ends of a new one.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn pair() -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self(ours), theirs))
    }

    pub fn of(socket: UnixStream) -> Self {
        Self(socket)
    }

    /// # Errors
    /// When nobody is at the other end, or doesn't listen for too long.
    pub fn say(&self, word: &impl Serialize, beside: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(word)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?.to_be_bytes();
        let count = u32::try_from(beside.len()).map_err(io::Error::other)?.to_be_bytes();
        self.0.set_write_timeout(Some(Duration::from_secs(10)))?;
        let mut stream = &self.0;
        stream.write_all(&[&length[..], &count[..], &text].concat())?;
        for some in beside.chunks(AT_A_TIME) {
            let raw: Vec<RawFd> = some.iter().map(AsRawFd::as_raw_fd).collect();
            // A byte of its own for each batch: the kernel never gives out two of them at once.
            let rights = [ControlMessage::ScmRights(&raw)];
            sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(b"+")], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        }
        Ok(())
    }

    /// What the other end says next; `None`: it has gone. `until`: waits no longer.
    ///
    /// # Errors
    /// When it says nothing in time (`TimedOut`), or what nobody can understand.
    pub fn hear<W: DeserializeOwned>(&self, until: Option<Instant>) -> io::Result<Option<(W, Vec<OwnedFd>)>> {
        let mut head = [0; 8];
        if !self.read(&mut head, until)? {
            return Ok(None);
        }
        let [a, b, c, d, e, f, g, h] = head;
        let (length, count) =
            (u32::from_be_bytes([a, b, c, d]) as usize, u32::from_be_bytes([e, f, g, h]) as usize);
        if length > LONGEST || count > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "that is no word of a daemon's"));
        }
        let mut text = vec![0; length];
        if !self.read(&mut text, until)? {
            return Ok(None);
        }
        let mut beside = Vec::with_capacity(count);
        while beside.len() < count {
            let came = self.descriptors(until)?;
            if came.is_empty() {
                return Ok(None);
            }
            beside.extend(came);
        }
        let word = serde_json::from_slice(&text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some((word, beside)))
    }

    /// Whether all of it came before the other end went.
    fn read(&self, mut into: &mut [u8], until: Option<Instant>) -> io::Result<bool> {
        while !into.is_empty() {
            self.wait(until)?;
            match (&self.0).read(into) {
                Ok(0) => return Ok(false),
                Ok(read) => into = &mut into[read..],
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => late(error)?,
            }
        }
        Ok(true)
    }

    fn descriptors(&self, until: Option<Instant>) -> io::Result<Vec<OwnedFd>> {
        let mut space = nix::cmsg_space!([RawFd; AT_A_TIME]);
        loop {
            self.wait(until)?;
            let mut byte = [0];
            let mut into = [IoSliceMut::new(&mut byte)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let came = match recvmsg::<()>(self.0.as_raw_fd(), &mut into, Some(&mut space), flags) {
                Ok(came) => came,
                Err(error) => {
                    late(error.into())?;
                    continue;
                }
            };
            let mut all = Vec::new();
            for message in came.cmsgs()? {
                if let ControlMessageOwned::ScmRights(raw) = message {
                    // SAFETY: the kernel has just made these descriptors for this process, and nobody else knows of them.
                    all.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
                }
            }
            return Ok(all);
        }
    }

    fn wait(&self, until: Option<Instant>) -> io::Result<()> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.0.set_read_timeout(left)
    }
}

/// A read that was interrupted is tried again; one that took too long says so.
fn late(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_secs(5))
    }

    #[test]
    fn words_arrive_with_what_is_beside_them_however_much_it_is() {
        let (ours, theirs) = Line::pair().unwrap();
        let theirs = Line::of(theirs);
        let files: Vec<_> = (0..AT_A_TIME + 7)
            .map(|number| {
                let mut file = tempfile::tempfile().unwrap();
                write!(file, "{number}").unwrap();
                file
            })
            .collect();
        let beside: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let long = "x".repeat(1 << 20);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                ours.say(&"first", &[]).unwrap();
                ours.say(&long, &beside).unwrap();
                ours.say(&"last", &beside[..1]).unwrap();
            });
            let (word, beside) = theirs.hear::<String>(soon()).unwrap().unwrap();
            assert_eq!((word.as_str(), beside.len()), ("first", 0));
            let (word, beside) = theirs.hear::<String>(soon()).unwrap().unwrap();
            assert_eq!((word.len(), beside.len()), (1 << 20, AT_A_TIME + 7));
            for (number, descriptor) in beside.into_iter().enumerate() {
                let mut text = String::new();
                let mut file = std::fs::File::from(descriptor);
                io::Seek::rewind(&mut file).unwrap();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(text, number.to_string());
            }
            let (word, beside) = theirs.hear::<String>(soon()).unwrap().unwrap();
            assert_eq!((word.as_str(), beside.len()), ("last", 1));
        });
    }

    #[test]
    fn silence_nonsense_and_the_end_are_told_apart() {
        let (ours, theirs) = Line::pair().unwrap();
        let theirs = Line::of(theirs);
        let at_once = Some(Instant::now() + Duration::from_millis(20));
        let late = theirs.hear::<String>(at_once).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        ours.say(&7, &[]).unwrap();
        assert_eq!(theirs.hear::<String>(soon()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        (&ours.0).write_all(&[0xff; 8]).unwrap();
        assert_eq!(theirs.hear::<String>(soon()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        // In the middle of a word.
        (&ours.0).write_all(&[0, 0, 0, 9, 0, 0, 0, 0, b'"']).unwrap();
        drop(ours);
        assert!(theirs.hear::<String>(soon()).unwrap().is_none());
    }
}
