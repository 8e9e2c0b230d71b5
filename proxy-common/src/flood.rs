//! The flood that benchmarks send: frames that tell the program that sends them what to do with them.
//!
//! What droppers look at is a TCP header's ports, and the IPv4 header. The sequence numbers are free to carry orders.

/// The program that sends them gives each one of so many sources: a power of two.
pub const SOURCES: u32 = 4096;

/// Where in a frame (Ethernet, IPv4 without options, TCP) the words stand that the program reads or writes.
pub const CHECKSUM: usize = 14 + 10;
pub const SOURCE: usize = 14 + 12;
/// The sequence number: the interface that the frame leaves by, in the machine's own order.
pub const INTERFACE: usize = 14 + 20 + 4;
/// The acknowledged number: what the 16-bit words of the IPv4 header add up to without the source and the
/// checksum, in the machine's own order.
pub const SUM: usize = 14 + 20 + 8;
/// No frame is shorter.
pub const LENGTH: usize = 14 + 20 + 20;

/// One of the sources: all over the address space, but neither loopback nor multicast, which the stack refuses
/// before an ipset sees them.
#[inline(always)]
#[must_use]
pub const fn source(number: u32) -> u32 {
    /// From 1.0.0.0 to 223.255.255.255, without 127.0.0.0/8.
    const ADDRESSES: u64 = 222 << 24;
    // Multiples of the golden section lie evenly, however many they are. Of this number close to it none of them is
    // one of Cloudflare's.
    let spread = number.wrapping_mul(0x9e37_98f1) as u64;
    let address = (1 << 24) + ((spread * ADDRESSES) >> 32);
    (if address < 127 << 24 { address } else { address + (1 << 24) }) as u32
}

/// An IPv4 header's checksum, of the sum of its other words.
#[inline(always)]
#[must_use]
pub const fn checksum(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
