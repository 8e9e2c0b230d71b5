//! Gives a packet other ends.
//!
//! A checksum may be finished, still be the sender's offloaded sum (CHECKSUM_PARTIAL, where only the pseudo-header counts so
//! far), or be the network card's sum over everything. The kernel's helpers know which, and are told which part of a
//! change lies in the pseudo-header; [`Edit`] is those helpers.

use proxy_common::scope::UDP;

use super::{Address, Ends, NETWORK, Packet, checksum::Difference};

/// Of the IPv4 header.
pub const HOPS_V4: usize = NETWORK + 8;
pub const CHECKSUM_V4: usize = NETWORK + 10;
pub const ADDRESSES_V4: usize = NETWORK + 12;
/// Of the IPv6 header.
pub const HOPS_V6: usize = NETWORK + 7;
pub const ADDRESSES_V6: usize = NETWORK + 8;
/// Of the transport header.
pub const CHECKSUM_TCP: usize = 16;
pub const CHECKSUM_UDP: usize = 6;

/// The packet can't be written to: it is shared and there is no memory for another, or too short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// Where in a transport checksum's sum a change lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// In the addresses, which it covers without lying behind it.
    PseudoHeader,
    /// In what it is the checksum of.
    Message,
}

/// A packet that can be changed.
pub trait Edit {
    fn store<T: Copy>(&mut self, offset: usize, value: &T) -> Result<(), Refused>;

    /// Changes the checksum of an IPv4 header.
    fn header_checksum(&mut self, offset: usize, by: Difference) -> Result<(), Refused>;

    /// Changes a transport checksum. `may_be_absent`: 0 says that there is none, and then none is made.
    fn checksum(
        &mut self,
        offset: usize,
        by: Difference,
        part: Part,
        may_be_absent: bool,
    ) -> Result<(), Refused>;

    /// The sum over the whole packet has changed, and nothing in the packet makes up for it.
    fn total(&mut self, by: Difference);
}

/// Gives a packet these ends, and takes a hop off it.
#[inline(always)]
pub fn translate(edit: &mut impl Edit, packet: &Packet, to: &Ends) -> Result<(), Refused> {
    // 1. The transport checksum: addresses, then ports.
    let from = Ends::of(&packet.key);
    let addresses = addresses(&from, to);
    let is_udp = packet.key.protocol == UDP as u16;
    let checksum = packet.transport + if is_udp { CHECKSUM_UDP } else { CHECKSUM_TCP };
    edit.checksum(checksum, addresses, Part::PseudoHeader, is_udp)?;
    edit.checksum(checksum, Difference::word(from.ports(), to.ports()), Part::Message, is_udp)?;

    // 2. The IP header.
    header(edit, packet.is_v6, packet.hops, addresses, to)?;

    // 3. The ports.
    edit.store(packet.transport, &to.ports())
}

/// What the new addresses add to a sum.
#[inline(always)]
pub fn addresses(from: &Ends, to: &Ends) -> Difference {
    Difference::words(&from.source, &to.source).and(Difference::words(&from.destination, &to.destination))
}

/// Gives an IP header these addresses, and takes a hop off it. `by`: what they add to its sum.
#[inline(always)]
pub fn header(edit: &mut impl Edit, is_v6: bool, hops: u8, by: Difference, to: &Ends) -> Result<(), Refused> {
    let left = hops.wrapping_sub(1);
    if is_v6 {
        let hop = Difference::word(u32::from_ne_bytes([0, hops, 0, 0]), u32::from_ne_bytes([0, left, 0, 0]));
        edit.store(HOPS_V6, &left)?;
        edit.store::<[Address; 2]>(ADDRESSES_V6, &[to.source, to.destination])?;
        // The transport checksum has made up for the addresses, but the helper takes them for a part of the packet that
        // has a checksum of its own, as with IPv4.
        edit.total(by.and(hop));
    } else {
        let hop = Difference::word(u32::from_ne_bytes([hops, 0, 0, 0]), u32::from_ne_bytes([left, 0, 0, 0]));
        edit.header_checksum(CHECKSUM_V4, by.and(hop))?;
        edit.store(HOPS_V4, &left)?;
        edit.store(ADDRESSES_V4, &[to.source[3], to.destination[3]])?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
