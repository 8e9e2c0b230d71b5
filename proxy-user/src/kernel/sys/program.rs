//! Programs that are loaded already: opened by their pins, and tried out.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use super::{BPF_OBJ_GET_INFO_BY_FD, GetInfo, bpf, get, number};

const BPF_PROG_TEST_RUN: i32 = 10;

/// A loaded program.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    pub fn open(path: &Path) -> io::Result<Self> {
        get(path).map(Self)
    }

    /// The kernel's number of it.
    pub fn id(&self) -> io::Result<u32> {
        /// The beginning of `bpf_prog_info`.
        #[repr(C)]
        #[derive(Default)]
        struct Info {
            kind: u32,
            id: u32,
        }
        let mut info = Info::default();
        let mut attr = GetInfo {
            descriptor: number(self.0.as_fd()),
            length: size_of::<Info>() as u32,
            info: (&raw mut info).addr() as u64,
        };
        // SAFETY: the kernel writes at most `length` bytes to `info`, which is as long and outlives the call;
        // it is made of integers, so whatever is written is valid.
        unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map(|_| info.id)
    }

    /// Runs it once on a packet, which is on no interface; gives what it returns. What it has made of the packet is
    /// in `after`, as far as that has room, and the rest of `after` is as it was.
    pub fn try_out(&self, packet: &[u8], after: &mut [u8]) -> io::Result<u32> {
        #[repr(C)]
        #[derive(Default)]
        struct TestRun {
            program: u32,
            returned: u32,
            size_in: u32,
            size_out: u32,
            data_in: u64,
            data_out: u64,
            repeat: u32,
            duration: u32,
        }
        let mut attr = TestRun {
            program: number(self.0.as_fd()),
            size_in: packet.len() as u32,
            size_out: after.len() as u32,
            data_in: packet.as_ptr().addr() as u64,
            // To nowhere, the kernel gives only the size.
            data_out: if after.is_empty() { 0 } else { after.as_mut_ptr().addr() as u64 },
            repeat: 1,
            ..TestRun::default()
        };
        // SAFETY: the kernel reads `size_in` bytes of the packet and writes at most `size_out` bytes to `after`, and
        // both live longer than the call.
        unsafe { bpf(BPF_PROG_TEST_RUN, &mut attr) }?;
        Ok(attr.returned)
    }
}
