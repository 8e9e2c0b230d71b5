//! Programs at clsact, the ingress hook of kernels without tcx.
//!
//! There are no links there: a filter holds its program until it is deleted, whoever made it and whether or not
//! that one lives. Ours are known by their handles and names, one for each of our programs ([`Ours`]); setting one again
//! swaps the program in it from one packet to the next.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::{libc, net::if_::if_nameindex};

use super::netlink::{self, Message, attribute, word};

/// `struct tcmsg`: family and padding, interface, handle, parent, info.
const TCMSG: usize = 20;
const HANDLE_AT: usize = 8;
const INFO_AT: usize = 16;

/// The qdisc `clsact`, and its place.
const QDISC_HANDLE: u32 = 0xffff_0000;
const QDISC_PARENT: u32 = 0xffff_fff1;
/// Filters of incoming packets.
const INGRESS: u32 = 0xffff_fff2;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;

/// One of our programs, as its filters are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ours {
    handle: u32,
    name: &'static [u8],
    /// Lower ones are asked first. Where one is taken by filters of another kind, the next is tried.
    priorities: (u32, u32),
}

/// "weir"
pub const GATE: Ours = Ours { handle: 0x7765_6972, name: b"weir_gate\0", priorities: (1, 8) };
/// Behind the gate, which has to have let a packet in first.
pub const FORWARD: Ours = Ours { handle: 0x7765_6673, name: b"weir_forward\0", priorities: (9, 16) };

/// Behind both.
pub const TRANSLATE: Ours = Ours { handle: 0x7765_6974, name: b"weir_translate\0", priorities: (17, 24) };

/// A filter that holds a BPF program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    pub interface: u32,
    pub program_id: u32,
    priority: u32,
    /// Which of ours it is.
    pub ours: Option<Ours>,
}

/// The BPF filters of incoming packets, in the order in which they are asked.
pub fn filters(interface: u32) -> io::Result<Vec<Filter>> {
    let request = Message::new(&tcmsg(interface, 0, INGRESS, 0));
    let answers = match netlink::call(libc::RTM_GETTFILTER, libc::NLM_F_DUMP, &request) {
        // A kernel without any traffic control.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Vec::new(),
        answers => answers?,
    };
    Ok(answers.iter().filter_map(|answer| filter(interface, answer)).collect())
}

fn filter(interface: u32, answer: &Message) -> Option<Filter> {
    if answer.attribute(TCMSG, TCA_KIND)? != b"bpf\0" {
        return None;
    }
    let options = answer.attribute(TCMSG, TCA_OPTIONS)?;
    let program_id = word(attribute(options, TCA_BPF_ID)?, 0)?;
    let name = attribute(options, TCA_BPF_NAME).unwrap_or_default();
    let handle = answer.word(HANDLE_AT)?;
    let ours = [GATE, FORWARD, TRANSLATE].into_iter().find(|ours| ours.handle == handle && ours.name == name);
    Some(Filter { interface, program_id, priority: answer.word(INFO_AT)? >> 16, ours })
}

/// One of ours on an interface.
pub fn one(ours: Ours, interface: u32) -> io::Result<Option<Filter>> {
    Ok(filters(interface)?.into_iter().find(|filter| filter.ours == Some(ours)))
}

/// One of ours on all interfaces, with their names.
pub fn all(ours: Ours) -> io::Result<Vec<(String, Filter)>> {
    let mut found = Vec::new();
    for interface in &if_nameindex()? {
        let Some(filter) = one(ours, interface.index())? else { continue };
        found.push((interface.name().to_string_lossy().into_owned(), filter));
    }
    Ok(found)
}

/// Attaches where this one of ours isn't yet.
pub fn create(ours: Ours, interface: u32, program: BorrowedFd<'_>) -> io::Result<Filter> {
    let qdisc = Message::new(&tcmsg(interface, QDISC_HANDLE, QDISC_PARENT, 0)).with(TCA_KIND, b"clsact\0");
    match netlink::call(libc::RTM_NEWQDISC, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &qdisc) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
        _ => {}
    }
    let mut refused = io::Error::from_raw_os_error(libc::EBUSY);
    for priority in ours.priorities.0..=ours.priorities.1 {
        match set(ours, interface, priority, program, libc::NLM_F_CREATE | libc::NLM_F_EXCL) {
            Ok(()) => {
                let found = one(ours, interface)?;
                return found.ok_or_else(|| io::Error::other("the filter that was just made is not there"));
            }
            // Filters of another kind are there.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

impl Filter {
    /// From one packet to the next, without a moment in which none runs.
    pub fn replace_program(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        set(self.ours()?, self.interface, self.priority, program, 0)
    }

    fn ours(&self) -> io::Result<Ours> {
        self.ours.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is somebody else's"))
    }

    /// The qdisc stays: others may use it, and without filters it does nothing.
    pub fn delete(&self) -> io::Result<()> {
        let request = tcmsg(self.interface, self.ours()?.handle, INGRESS, info(self.priority));
        match netlink::call(libc::RTM_DELTFILTER, 0, &Message::new(&request).with(TCA_KIND, b"bpf\0")) {
            // It is gone, or its interface is.
            Err(error)
                if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

fn set(ours: Ours, interface: u32, priority: u32, program: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    let options = Message::default()
        .with(TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes())
        .with(TCA_BPF_NAME, ours.name)
        .with(TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes());
    let request = Message::new(&tcmsg(interface, ours.handle, INGRESS, info(priority)))
        .with(TCA_KIND, b"bpf\0")
        .with_nested(TCA_OPTIONS, &options);
    netlink::call(libc::RTM_NEWTFILTER, flags, &request).map(drop)
}

/// For packets of all protocols.
fn info(priority: u32) -> u32 {
    priority << 16 | u32::from((libc::ETH_P_ALL as u16).to_be())
}

fn tcmsg(interface: u32, handle: u32, parent: u32, info: u32) -> [u8; TCMSG] {
    let mut message = [0; TCMSG];
    for (at, word) in [0, interface, handle, parent, info].into_iter().enumerate() {
        message[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
    }
    message
}
