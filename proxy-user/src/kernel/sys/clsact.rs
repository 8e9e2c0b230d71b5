//! Programs at clsact, the ingress hook of kernels without tcx.
//!
//! There are no links there: a filter holds its program until it is deleted, whoever made it and whether or not
//! that one lives. Ours is known by its handle and name; setting it again swaps the program in it from one packet
//! to the next.

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

/// "weir"
const HANDLE: u32 = 0x7765_6972;

/// What a filter of ours is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Gate,
    /// Behind the gate.
    Translate,
}

/// A filter that holds a BPF program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    pub interface: u32,
    pub program_id: u32,
    priority: u32,
    /// The gate's.
    pub ours: bool,
    /// `None`: somebody else's.
    role: Option<Role>,
}

impl Role {
    const ALL: [Self; 2] = [Self::Gate, Self::Translate];

    const fn name(self) -> &'static [u8] {
        match self {
            Self::Gate => b"weir_gate\0",
            Self::Translate => b"weir_translate\0",
        }
    }

    /// Lower ones are asked first. Where one is taken by filters of another kind, the next is tried.
    const fn priorities(self) -> std::ops::RangeInclusive<u32> {
        match self {
            Self::Gate => 1..=8,
            Self::Translate => 25..=32,
        }
    }
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
    let is_named = answer.word(HANDLE_AT)? == HANDLE;
    let role = Role::ALL.into_iter().find(|role| is_named && name == role.name());
    let ours = role == Some(Role::Gate);
    Some(Filter { interface, program_id, priority: answer.word(INFO_AT)? >> 16, ours, role })
}

/// The gate's on an interface.
pub fn ours(interface: u32) -> io::Result<Option<Filter>> {
    of(Role::Gate, interface)
}

/// Ours on an interface, in this role.
pub fn of(role: Role, interface: u32) -> io::Result<Option<Filter>> {
    Ok(filters(interface)?.into_iter().find(|filter| filter.role == Some(role)))
}

/// The gate's on all interfaces, with their names.
pub fn all_ours() -> io::Result<Vec<(String, Filter)>> {
    all_of(Role::Gate)
}

/// Ours on all interfaces in this role, with their names.
pub fn all_of(role: Role) -> io::Result<Vec<(String, Filter)>> {
    let mut found = Vec::new();
    for interface in &if_nameindex()? {
        let Some(filter) = of(role, interface.index())? else { continue };
        found.push((interface.name().to_string_lossy().into_owned(), filter));
    }
    Ok(found)
}

/// Attaches the gate where none of ours is yet.
pub fn create(interface: u32, program: BorrowedFd<'_>) -> io::Result<Filter> {
    create_as(Role::Gate, interface, program)
}

/// Attaches in this role where none of ours is yet.
pub fn create_as(role: Role, interface: u32, program: BorrowedFd<'_>) -> io::Result<Filter> {
    let qdisc = Message::new(&tcmsg(interface, QDISC_HANDLE, QDISC_PARENT, 0)).with(TCA_KIND, b"clsact\0");
    match netlink::call(libc::RTM_NEWQDISC, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &qdisc) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
        _ => {}
    }
    let mut refused = io::Error::from_raw_os_error(libc::EBUSY);
    for priority in role.priorities() {
        match set(role, interface, priority, program, libc::NLM_F_CREATE | libc::NLM_F_EXCL) {
            Ok(()) => {
                let found = of(role, interface)?;
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
        let role = self.role.unwrap_or(Role::Gate);
        set(role, self.interface, self.priority, program, 0)
    }

    /// The qdisc stays: others may use it, and without filters it does nothing.
    pub fn delete(&self) -> io::Result<()> {
        let request = tcmsg(self.interface, HANDLE, INGRESS, info(self.priority));
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

fn set(role: Role, interface: u32, priority: u32, program: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    let options = Message::default()
        .with(TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes())
        .with(TCA_BPF_NAME, role.name())
        .with(TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes());
    let request = Message::new(&tcmsg(interface, HANDLE, INGRESS, info(priority)))
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
