//! The headers on the way to a port, as they lie on the wire.

use crate::frame::{Wire, Words};

pub mod ether_type {
    pub const IPV4: u16 = 0x0800;
    pub const IPV6: u16 = 0x86dd;
    pub const VLAN: u16 = 0x8100;
    pub const PROVIDER_VLAN: u16 = 0x88a8;
}

/// Numbers that stand in an IPv6 "next header" field and lead to another header.
pub mod extension {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = 51;
    pub const DESTINATION_OPTIONS: u8 = 60;
    pub const MOBILITY: u8 = 135;
    pub const HIP: u8 = 139;
    pub const SHIM6: u8 = 140;
}

#[repr(C)]
pub struct Ethernet {
    _destination: [u8; 6],
    _source: [u8; 6],
    ether_type: [u8; 2],
}

/// What follows an `ether_type` of VLAN: the tag, and the next `ether_type`.
#[repr(C)]
pub struct VlanTag {
    tag: [u8; 2],
    ether_type: [u8; 2],
}

#[repr(C)]
pub struct Ipv4 {
    version_and_length: u8,
    _service: u8,
    total_length: [u8; 2],
    _identification: [u8; 2],
    flags_and_fragment: [u8; 2],
    pub hops: u8,
    pub protocol: u8,
    _checksum: [u8; 2],
    pub source: Words<1>,
    pub destination: Words<1>,
}

#[repr(C)]
pub struct Ipv6 {
    version_class_flow: [u8; 4],
    payload_length: [u8; 2],
    pub next_header: u8,
    pub hops: u8,
    pub source: Words<4>,
    pub destination: Words<4>,
}

/// The common beginning of the extension headers.
#[repr(C)]
pub struct Extension {
    pub next_header: u8,
    length: u8,
}

#[repr(C)]
pub struct Ipv6Fragment {
    pub next_header: u8,
    _reserved: u8,
    offset_and_more: [u8; 2],
    _identification: [u8; 4],
}

/// The beginning that TCP and UDP share.
#[repr(C)]
pub struct Ports {
    source: [u8; 2],
    destination: [u8; 2],
}

/// The common beginning of ICMP's and ICMPv6's messages. In errors, the beginning of the packet that they are about follows.
#[repr(C)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    _checksum: [u8; 2],
    _rest: [u8; 4],
}

/// Where UDP has its checksum, and what of it an error always quotes.
#[repr(C)]
pub struct Udp {
    _ports: [u8; 4],
    _length: [u8; 2],
    checksum: [u8; 2],
}

/// The fixed part.
#[repr(C)]
pub struct Tcp {
    _ports: [u8; 4],
    sequence: [u8; 4],
    acknowledges: [u8; 4],
    length: u8,
    flags: u8,
    _window_checksum_urgent: [u8; 6],
}

impl Ethernet {
    #[inline(always)]
    pub fn ether_type(&self) -> u16 {
        u16::from_be_bytes(self.ether_type)
    }
}

impl VlanTag {
    /// Whether it gives a priority and names no VLAN. The host takes such a tag off, however many there are.
    #[inline(always)]
    pub fn is_priority(&self) -> bool {
        let [high, low] = self.tag;
        (high & 0x0f) | low == 0
    }

    #[inline(always)]
    pub fn ether_type(&self) -> u16 {
        u16::from_be_bytes(self.ether_type)
    }
}

impl Ipv4 {
    #[inline(always)]
    pub fn version(&self) -> u8 {
        self.version_and_length >> 4
    }

    /// In bytes, options included. Less than 20 is not a header; the caller's to find out.
    #[inline(always)]
    pub fn length(&self) -> usize {
        usize::from(self.version_and_length & 0x0f) * 4
    }

    /// Header and payload in bytes, by what the packet says. 0 says nothing: the kernel itself writes it when it
    /// has merged packets to more than 64 KiB.
    #[inline(always)]
    pub fn total_length(&self) -> usize {
        told(self.total_length)
    }

    /// Whether more fragments follow.
    #[inline(always)]
    pub fn has_more_fragments(&self) -> bool {
        self.flags_and_fragment[0] & 0x20 != 0
    }

    /// Whether this is a fragment that isn't the first: it has no ports.
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        let [high, low] = self.flags_and_fragment;
        (high & 0x1f) | low != 0
    }
}

impl Ipv6 {
    #[inline(always)]
    pub fn version(&self) -> u8 {
        self.version_class_flow[0] >> 4
    }

    /// What follows this header, in bytes, by what the packet says. 0 says nothing: jumbograms and what the kernel
    /// has merged to more than 64 KiB.
    #[inline(always)]
    pub fn payload_length(&self) -> usize {
        told(self.payload_length)
    }
}

/// A length of which 0 means that there is no bound.
#[inline(always)]
fn told(length: [u8; 2]) -> usize {
    match u16::from_be_bytes(length) {
        0 => usize::MAX,
        length => usize::from(length),
    }
}

impl Extension {
    /// In bytes, for all but the authentication and fragment headers.
    #[inline(always)]
    pub fn length(&self) -> usize {
        (usize::from(self.length) + 1) * 8
    }

    /// In bytes, for an authentication header, which counts otherwise.
    #[inline(always)]
    pub fn authentication_length(&self) -> usize {
        (usize::from(self.length) + 2) * 4
    }
}

impl Ipv6Fragment {
    #[inline(always)]
    pub fn has_more_fragments(&self) -> bool {
        self.offset_and_more[1] & 1 != 0
    }

    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        u16::from_be_bytes(self.offset_and_more) & 0xfff8 != 0
    }
}

impl Ports {
    #[inline(always)]
    pub fn source(&self) -> u16 {
        u16::from_be_bytes(self.source)
    }

    #[inline(always)]
    pub fn destination(&self) -> u16 {
        u16::from_be_bytes(self.destination)
    }
}

impl Udp {
    /// As it lies. 0: there is none.
    #[inline(always)]
    pub fn checksum(&self) -> u16 {
        u16::from_ne_bytes(self.checksum)
    }
}

impl Tcp {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;

    #[inline(always)]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    #[inline(always)]
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes(self.sequence)
    }

    #[inline(always)]
    pub fn acknowledges(&self) -> u32 {
        u32::from_be_bytes(self.acknowledges)
    }

    /// In bytes, options included. Less than 20 is not a header; the caller's to find out.
    #[inline(always)]
    pub fn length(&self) -> usize {
        usize::from(self.length >> 4) * 4
    }
}

const _: () = assert!(size_of::<Icmp>() == 8 && align_of::<Icmp>() == 1);
const _: () = assert!(size_of::<Udp>() == 8 && align_of::<Udp>() == 1);
const _: () = assert!(size_of::<Ethernet>() == 14 && align_of::<Ethernet>() == 1);
const _: () = assert!(size_of::<VlanTag>() == 4 && align_of::<VlanTag>() == 1);
const _: () = assert!(size_of::<Ipv4>() == 20 && align_of::<Ipv4>() == 1);
const _: () = assert!(size_of::<Ipv6>() == 40 && align_of::<Ipv6>() == 1);
const _: () = assert!(size_of::<Extension>() == 2 && align_of::<Extension>() == 1);
const _: () = assert!(size_of::<Ipv6Fragment>() == 8 && align_of::<Ipv6Fragment>() == 1);
const _: () = assert!(size_of::<Ports>() == 4 && align_of::<Ports>() == 1);
const _: () = assert!(size_of::<Tcp>() == 20 && align_of::<Tcp>() == 1);

// SAFETY: `repr(C)` of bytes and byte arrays: alignment 1 (asserted), no padding, every bit pattern valid.
unsafe impl Wire for Ethernet {}
// SAFETY: as above.
unsafe impl Wire for VlanTag {}
// SAFETY: as above.
unsafe impl Wire for Ipv4 {}
// SAFETY: as above.
unsafe impl Wire for Ipv6 {}
// SAFETY: as above.
unsafe impl Wire for Extension {}
// SAFETY: as above.
unsafe impl Wire for Ipv6Fragment {}
// SAFETY: as above.
unsafe impl Wire for Ports {}
// SAFETY: as above.
unsafe impl Wire for Tcp {}
// SAFETY: as above.
unsafe impl Wire for Icmp {}
// SAFETY: as above.
unsafe impl Wire for Udp {}
