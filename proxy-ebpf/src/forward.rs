//! Port passthrough: a client's packet becomes one for a server, and a server's one for a client.
//!
//! This is what can be said of a packet by looking at it, and how it is changed. Which flow it belongs to, and whom that
//! leads to, is for the program to find out in its maps (`passthrough` beside `main.rs`).
//!
//! A packet is known by its way ([`FlowKey`]). An ICMP error is known by the packet that it is about, and goes where that
//! one came from: outside it is translated like a reply to it, inside like the packet itself, backwards.
//!
//! Only what stands directly behind an IPv4 header (with any options) or a bare IPv6 header is forwarded. Fragments and
//! IPv6 extension headers have no place here: the first fragment of a datagram is refused, so the others never become
//! one, and behind extension headers nothing is looked for.

pub mod checksum;
pub mod mss;
pub mod options;
pub mod parse;
pub mod quote;
pub mod reset;
pub mod rewrite;
pub mod too_big;

use proxy_common::{
    flow::{FlowKey, Segment},
    forward::StopReason,
};

/// Where the IP header begins: a tag of a VLAN isn't in the frame any more where we are, and a packet that has one is for
/// the VLAN's own interface.
pub const NETWORK: usize = 14;
/// Where the transport header begins, without options.
pub const TRANSPORT_V4: usize = NETWORK + 20;
pub const TRANSPORT_V6: usize = NETWORK + 40;

/// An address as words that hold its bytes in their order; IPv4 in its IPv6 form.
pub type Address = [u32; 4];

/// What a frame is, as far as passthrough is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A TCP segment or UDP datagram.
    Packet,
    /// An ICMP error about one.
    Error,
    /// Nothing that could be forwarded.
    Other,
    /// It can't be said: the rest may lie in another piece of memory, or there is none.
    Short,
}

/// A TCP segment or UDP datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    pub key: FlowKey,
    pub is_v6: bool,
    pub hops: u8,
    /// Where the transport header begins.
    pub transport: usize,
    /// From the IP header on, by the IP header. 0 says nothing: it is longer than that can tell.
    pub length: usize,
    /// The headers in it.
    pub headers: usize,
    /// Why it can't be forwarded, should it be for us.
    pub fault: Fault,
    /// Of TCP.
    pub segment: Segment,
}

/// What can't be forwarded of what is seen. Nothing wrong is 0, as in memory that nobody has written to yet.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None = 0,
    Fragment = 1,
    Malformed = 2,
}

/// An ICMP error about a packet that was forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quote {
    pub is_v6: bool,
    pub hops: u8,
    /// Where the ICMP header begins.
    pub icmp: usize,
    /// Where the header of the packet that it is about does.
    pub network: usize,
    pub transport: usize,
    /// Who says so.
    pub from: Address,
    /// That packet's way, backwards: how a reply to it would come in.
    pub key: FlowKey,
    /// The checksum of that packet, where it is one that is always quoted (UDP's). 0: there is none.
    pub checksum: u16,
}

/// Both ends that a packet gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    pub source: Address,
    pub destination: Address,
    pub source_port: u16,
    pub destination_port: u16,
}

// === impl Packet ===

impl Packet {
    #[inline(always)]
    #[must_use]
    pub const fn is_tcp(&self) -> bool {
        self.key.is_tcp()
    }

    /// Whether it asks for a connection.
    #[inline(always)]
    #[must_use]
    pub const fn opens(&self) -> bool {
        !self.is_tcp() || (self.segment.syn && !self.segment.ack)
    }
}

// === impl Fault ===

impl Fault {
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> Option<StopReason> {
        match self {
            Self::None => None,
            Self::Fragment => Some(StopReason::Fragment),
            Self::Malformed => Some(StopReason::Malformed),
        }
    }
}

// === impl Ends ===

impl Ends {
    /// As they are.
    #[inline(always)]
    #[must_use]
    pub const fn of(key: &FlowKey) -> Self {
        Self {
            source: words(key.source),
            destination: words(key.destination),
            source_port: key.source_port,
            destination_port: key.destination_port,
        }
    }

    /// The ports as they lie in a header.
    #[inline(always)]
    #[must_use]
    pub const fn ports(&self) -> u32 {
        let [a, b] = self.source_port.to_be_bytes();
        let [c, d] = self.destination_port.to_be_bytes();
        u32::from_ne_bytes([a, b, c, d])
    }

    #[inline(always)]
    #[must_use]
    pub const fn backwards(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

#[inline(always)]
#[must_use]
pub const fn octets(address: Address) -> [u8; 16] {
    // SAFETY: four words are sixteen bytes, and any bytes are an address.
    unsafe { core::mem::transmute::<Address, [u8; 16]>(address) }
}

#[inline(always)]
#[must_use]
pub const fn words(address: [u8; 16]) -> Address {
    // SAFETY: as for octets.
    unsafe { core::mem::transmute::<[u8; 16], Address>(address) }
}

#[cfg(test)]
mod tests;
