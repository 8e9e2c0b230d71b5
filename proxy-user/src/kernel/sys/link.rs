//! Attachments of programs to interfaces.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use super::{BPF_OBJ_GET_INFO_BY_FD, GetInfo, bpf, bpf_fd, get, number, pin};

const BPF_LINK_CREATE: i32 = 28;
const BPF_LINK_UPDATE: i32 = 29;

const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_LINK_TYPE_XDP: u32 = 6;
const BPF_LINK_TYPE_TCX: u32 = 11;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// Without anything to be before: before everybody.
const BPF_F_BEFORE: u32 = 1 << 3;

/// Where a program hangs on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// XDP in the driver; never the generic kind.
    Xdp,
    TcxIngress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkInfo {
    /// `None`: a link of a kind that Weir doesn't make.
    pub kind: Option<LinkKind>,
    pub program_id: u32,
    /// 0 once the interface is gone.
    pub interface: u32,
}

impl LinkKind {
    pub(super) const fn attach_type(self) -> u32 {
        match self {
            Self::Xdp => BPF_XDP,
            Self::TcxIngress => BPF_TCX_INGRESS,
        }
    }
}

/// Whether this kernel has tcx. Only a kernel that knows it looks whether the interface exists.
pub fn has_tcx(program: BorrowedFd<'_>) -> bool {
    const NOBODYS: u32 = i32::MAX.unsigned_abs();
    let refused = Link::create(program, NOBODYS, LinkKind::TcxIngress).err();
    refused.and_then(|error| error.raw_os_error()) == Some(nix::libc::ENODEV)
}

/// An attachment. It ends when this and its pin, if it has one, are gone.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Link {
    pub fn create(program: BorrowedFd<'_>, interface: u32, kind: LinkKind) -> io::Result<Self> {
        let flags = match kind {
            LinkKind::Xdp => XDP_FLAGS_DRV_MODE,
            // First: a program that lets a packet in ends the round, and whoever comes after it is not asked.
            LinkKind::TcxIngress => BPF_F_BEFORE,
        };
        Self::create_with(program, interface, kind, flags)
    }

    /// At tcx, behind all that are there: the gate is asked before.
    pub fn create_last(program: BorrowedFd<'_>, interface: u32) -> io::Result<Self> {
        Self::create_with(program, interface, LinkKind::TcxIngress, 0)
    }

    fn create_with(program: BorrowedFd<'_>, interface: u32, kind: LinkKind, flags: u32) -> io::Result<Self> {
        #[repr(C)]
        struct Create {
            program: u32,
            interface: u32,
            attach_type: u32,
            flags: u32,
            /// For tcx: relative to nothing in particular, at any revision.
            position: [u32; 4],
        }
        let attach_type = kind.attach_type();
        let mut attr = Create { program: number(program), interface, attach_type, flags, position: [0; 4] };
        // SAFETY: LINK_CREATE returns a new descriptor, and reads nothing but the structure.
        unsafe { bpf_fd(BPF_LINK_CREATE, &mut attr) }.map(Self)
    }

    pub fn open(path: &Path) -> io::Result<Self> {
        let descriptor = get(path)?;
        // The kernel describes maps, programs and links by different structures, and all begin with a number.
        let what = std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
        if what.is_ok_and(|what| !is_link(&what.to_string_lossy())) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what is pinned there is no attachment"));
        }
        Ok(Self(descriptor))
    }

    /// From one packet to the next, without a moment in which none runs.
    pub fn replace_program(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        #[repr(C)]
        struct Update {
            link: u32,
            program: u32,
            flags: u32,
            expected: u32,
        }
        let mut attr =
            Update { link: number(self.0.as_fd()), program: number(program), flags: 0, expected: 0 };
        // SAFETY: LINK_UPDATE reads nothing but the structure.
        unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }.map(drop)
    }

    pub fn pin(&self, path: &Path) -> io::Result<()> {
        pin(self.0.as_fd(), path)
    }

    pub fn info(&self) -> io::Result<LinkInfo> {
        /// The beginning of `bpf_link_info`, as far as it is the same for the links that Weir makes. The union
        /// that follows the three numbers is aligned to 8.
        #[repr(C)]
        #[derive(Default)]
        struct Info {
            kind: u32,
            id: u32,
            program_id: u32,
            padding: u32,
            interface: u32,
            attach_type: u32,
        }
        let mut info = Info::default();
        let mut attr = GetInfo {
            descriptor: number(self.0.as_fd()),
            length: size_of::<Info>() as u32,
            info: (&raw mut info).addr() as u64,
        };
        // SAFETY: the kernel writes at most `length` bytes to `info`, which is as long and outlives the call;
        // it is made of integers, so whatever is written is valid.
        unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
        let kind = match info.kind {
            BPF_LINK_TYPE_XDP => Some(LinkKind::Xdp),
            BPF_LINK_TYPE_TCX => Some(LinkKind::TcxIngress),
            _ => None,
        };
        Ok(LinkInfo { kind, program_id: info.program_id, interface: info.interface })
    }
}

/// By the name that the kernel gives to the file: `anon_inode:bpf-link`, or with an underscore where it was made.
fn is_link(what: &str) -> bool {
    matches!(what.strip_prefix("anon_inode:"), Some("bpf-link" | "bpf_link" | "[bpf-link]" | "[bpf_link]"))
}
