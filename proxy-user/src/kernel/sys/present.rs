//! What is attached to an interface, whoever did it.

use std::io;

use nix::libc;

use super::{
    bpf,
    link::LinkKind,
    netlink::{self, Message, attribute, word},
};

const BPF_PROG_QUERY: i32 = 16;
/// More programs than anybody hangs on one interface.
const MANY: usize = 64;

/// `struct ifinfomsg`
const IFINFOMSG: usize = 16;
const IFLA_XDP: u16 = 43;
/// Of whatever mode; then of the driver's, the generic and the hardware's own, where more than one is there.
const IFLA_XDP_PROGRAMS: [u16; 4] = [4, 5, 6, 7];

/// The numbers of the XDP programs on an interface.
pub fn xdp(interface: u32) -> io::Result<Vec<u32>> {
    let mut request = [0; IFINFOMSG];
    request[4..8].copy_from_slice(&interface.to_ne_bytes());
    let answers = netlink::call(libc::RTM_GETLINK, 0, &Message::new(&request))?;
    let xdp = answers.first().and_then(|answer| answer.attribute(IFINFOMSG, IFLA_XDP)).unwrap_or_default();
    let mut programs: Vec<u32> = IFLA_XDP_PROGRAMS
        .iter()
        .filter_map(|kind| word(attribute(xdp, *kind)?, 0))
        .filter(|id| *id != 0)
        .collect();
    programs.sort_unstable();
    programs.dedup();
    Ok(programs)
}

/// The numbers of the tcx programs for an interface's incoming packets, in their order. An error where the kernel has
/// no tcx.
pub fn tcx(interface: u32) -> io::Result<Vec<u32>> {
    #[repr(C)]
    struct Query {
        interface: u32,
        attach_type: u32,
        flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        padding: u32,
        rest: [u64; 4],
    }
    let mut programs = [0_u32; MANY];
    let mut attr = Query {
        interface,
        attach_type: LinkKind::TcxIngress.attach_type(),
        flags: 0,
        attach_flags: 0,
        programs: (&raw mut programs).addr() as u64,
        count: MANY as u32,
        padding: 0,
        rest: [0; 4],
    };
    // SAFETY: the kernel writes at most `count` numbers to `programs`, which has room for them and outlives the
    // call, and a few words into the structure; all of it is integers.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr) }?;
    Ok(programs[..MANY.min(attr.count as usize)].to_vec())
}
