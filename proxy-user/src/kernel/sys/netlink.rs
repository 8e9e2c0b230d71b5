//! Questions to the kernel's routing netlink, each on a socket of its own.

use std::{io, os::fd::AsRawFd};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt,
        socket, sockopt,
    },
};

/// `struct nlmsghdr`
const HEADER: usize = 16;

/// A request or an answer: a fixed structure, then attributes.
#[derive(Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    pub fn new(fixed: &[u8]) -> Self {
        Self(fixed.to_vec())
    }

    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend((value.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    #[must_use]
    pub fn with_nested(self, kind: u16, inner: &Self) -> Self {
        self.with(kind | NESTED, &inner.0)
    }

    /// Four bytes of the fixed structure.
    pub fn word(&self, at: usize) -> Option<u32> {
        word(&self.0, at)
    }

    /// An attribute behind a fixed structure of so many bytes.
    pub fn attribute(&self, fixed: usize, kind: u16) -> Option<&[u8]> {
        attribute(self.0.get(fixed..)?, kind)
    }
}

const NESTED: u16 = 1 << 15;

/// Finds one attribute among many.
pub fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [l0, l1, k0, k1, ..] = *bytes {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(4..length)?;
        if u16::from_ne_bytes([k0, k1]) & !NESTED == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
    None
}

pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Sends a request and gathers what is answered. `flags` beside NLM_F_REQUEST; with NLM_F_DUMP many may answer.
pub fn call(kind: u16, flags: i32, message: &Message) -> io::Result<Vec<Message>> {
    let protocol = SockProtocol::NetlinkRoute;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    // Nobody waits for ever for a kernel that forgot to answer.
    setsockopt(&socket, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(5, 0))?;
    let dumps = flags & libc::NLM_F_DUMP == libc::NLM_F_DUMP;
    let flags = libc::NLM_F_REQUEST | flags | if dumps { 0 } else { libc::NLM_F_ACK };
    let mut request = Vec::new();
    request.extend((HEADER as u32 + message.0.len() as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend((flags as u16).to_ne_bytes());
    request.extend(1_u32.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend(&message.0);
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;

    let mut answers = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let (Some(length), Some(kind)) = (word(rest, 0), rest.get(4..6)) {
            let kind = u16::from_ne_bytes([kind[0], kind[1]]);
            let body = rest.get(HEADER..length as usize).ok_or(io::ErrorKind::InvalidData)?;
            match i32::from(kind) {
                libc::NLMSG_ERROR => match word(body, 0).map(u32::cast_signed) {
                    Some(0) => return Ok(answers),
                    Some(code) => return Err(io::Error::from_raw_os_error(-code)),
                    None => return Err(io::ErrorKind::InvalidData.into()),
                },
                libc::NLMSG_DONE => return Ok(answers),
                _ => answers.push(Message(body.to_vec())),
            }
            rest = rest.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found_again() {
        let inner = Message::default().with(7, b"gate\0").with(8, &1_u32.to_ne_bytes());
        let message = Message::new(&[0; 20]).with(1, b"bpf\0").with_nested(2, &inner);
        let options = message.attribute(20, 2).unwrap();
        assert_eq!(message.attribute(20, 1), Some(&b"bpf\0"[..]));
        assert_eq!(attribute(options, 7), Some(&b"gate\0"[..]));
        assert_eq!(attribute(options, 8).and_then(|value| word(value, 0)), Some(1));
        assert_eq!(attribute(options, 9), None);
    }

    #[test]
    fn attributes_that_are_cut_off_are_none() {
        assert_eq!(attribute(&[12, 0, 1, 0, 5], 1), None);
        assert_eq!(attribute(&[0, 0, 2, 0, 5, 5, 5, 5], 1), None);
    }
}
