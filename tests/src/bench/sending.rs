//! Packets that a socket sends, as fast as it can: what lists are swapped under.

use std::os::fd::AsRawFd;

use anyhow::ensure;
use nix::{
    libc,
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use proxy_common::flood::checksum;

use super::gate::v4;

/// Sent with one system call.
const BATCH: usize = 64;

/// The second one, if there is one: the first usually serves interrupts.
pub(super) fn stay_on_a_core() -> anyhow::Result<usize> {
    let core = 1.min(std::thread::available_parallelism()?.get() - 1);
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &cores)?;
    Ok(core)
}

/// Sends so many packets, these over and over, as long as `go_on` (which is told how many were sent) says so.
pub(super) fn send(
    interface: &str,
    packets: &mut [Vec<u8>],
    count: usize,
    mut go_on: impl FnMut(usize) -> bool,
) -> anyhow::Result<()> {
    // SAFETY: a plain system call with constants.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(socket >= 0, "a packet socket: {}", std::io::Error::last_os_error());
    // SAFETY: new and ours.
    let socket = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(socket) };
    let one: libc::c_int = 1;
    // SAFETY: the kernel reads the four bytes of `one`.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const one).cast(),
            4,
        )
    };
    ensure!(set == 0, "bypass the queue: {}", std::io::Error::last_os_error());
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0x0800_u16.to_be(),
        sll_ifindex: nix::net::if_::if_nametoindex(interface)? as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    let mut parts: Vec<libc::iovec> = packets
        .iter_mut()
        .map(|packet| libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| libc::mmsghdr {
            msg_hdr: libc::msghdr {
                msg_name: (&raw const address).cast_mut().cast(),
                msg_namelen: size_of::<libc::sockaddr_ll>() as u32,
                msg_iov: part,
                msg_iovlen: 1,
                msg_control: std::ptr::null_mut(),
                msg_controllen: 0,
                msg_flags: 0,
            },
            msg_len: 0,
        })
        .collect();
    let (mut sent, different) = (0, messages.len());
    while sent < count && go_on(sent) {
        let from = sent % different;
        let batch = &mut messages[from..(from + BATCH.min(count - sent)).min(different)];
        // SAFETY: the messages point to packets and an address that outlive the call.
        let now = unsafe { libc::sendmmsg(socket.as_raw_fd(), batch.as_mut_ptr(), batch.len() as u32, 0) };
        ensure!(now > 0, "sending: {}", std::io::Error::last_os_error());
        sent += now as usize;
    }
    Ok(())
}

/// From the sender's end of a veth pair to the other.
pub(super) fn packet(source: std::net::Ipv4Addr, port: u16) -> Vec<u8> {
    let mut packet = v4(&source.to_string(), port);
    packet[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    packet[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    let checksum = checksum(sum(&packet));
    packet[24..26].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Of the 16-bit words of a packet's IPv4 header.
pub(super) fn sum(packet: &[u8]) -> u32 {
    packet[14..34].chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum()
}
