//! The gate: may this frame come in?
//!
//! What isn't for a guarded (local address, protocol, port) is never touched, and leaves after one lookup.
//! What can't be judged *for a guarded address* is dropped. Every packet is judged for itself: there is no
//! connection tracking, so a list that changes takes effect on connections that are open.

mod ipv4;
mod ipv6;

use proxy_common::{
    admission::ListId,
    scope::{Policy, ScopeKey},
    verdict::DropReason,
};

use crate::{
    frame::{Frame, TooShort, read},
    headers::{Ethernet, VlanTag, ether_type},
};

/// VLAN tags that are looked behind.
const VLAN_TAGS: usize = 2;

/// What the gate asks: maps in the kernel, plain tables in tests.
pub trait Tables {
    fn policy(&self, key: &ScopeKey) -> Option<Policy>;
    fn admits_v4(&self, admission: u32, source: SourceV4) -> Admits;
    fn admits_v6(&self, admission: u32, source: SourceV6) -> Admits;
}

/// A source address, as words that hold its bytes in their order.
pub type SourceV4 = [u32; 1];
pub type SourceV6 = [u32; 4];

/// What an entrypoint's allowlists say of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admits {
    Listed(ListId),
    NotListed,
    /// There are no such lists.
    NoLists,
}

/// The frame is for a guarded entrypoint and may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    pub entrypoint: u32,
    pub list: ListId,
}

/// Why the gate looked no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// IP of another version than its Ethernet type says, or a header shorter than a header: for the stack.
    NotAHeader,
    /// Neither TCP nor UDP.
    NotGuardable,
    /// A fragment without ports. Its first fragment is judged, and nothing is put together without it.
    LaterFragment,
    /// No guarded entrypoint has this address, protocol and port.
    NotGuarded,
    /// For this entrypoint (or for its address), and dropped.
    Dropped { entrypoint: u32, reason: DropReason },
}

/// Judges one frame.
#[inline(always)]
pub fn judge(frame: &impl Frame, tables: &impl Tables) -> Result<Admitted, Stop> {
    // A frame too short to have an address is for nobody.
    let ethernet: &Ethernet = read(frame, 0)?;
    let mut ether_type = ethernet.ether_type();
    let mut offset = size_of::<Ethernet>();

    for _ in 0..VLAN_TAGS {
        if ether_type != ether_type::VLAN && ether_type != ether_type::PROVIDER_VLAN {
            break;
        }
        let tag: &VlanTag = read(frame, offset)?;
        ether_type = tag.ether_type();
        offset += size_of::<VlanTag>();
    }

    match ether_type {
        ether_type::IPV4 => ipv4::judge(frame, offset, tables),
        ether_type::IPV6 => ipv6::judge(frame, offset, tables),
        _ => Err(Stop::NotIp),
    }
}

/// What the lists say becomes the verdict.
#[inline(always)]
fn admit(policy: Policy, admits: Admits) -> Result<Admitted, Stop> {
    let entrypoint = policy.entrypoint;
    match admits {
        Admits::Listed(list) => Ok(Admitted { entrypoint, list }),
        Admits::NotListed => Err(Stop::Dropped { entrypoint, reason: DropReason::NotListed }),
        Admits::NoLists => Err(Stop::Dropped { entrypoint, reason: DropReason::ListMissing }),
    }
}

/// A key of an IPv4 address, given as the word that holds its bytes in their order.
#[inline(always)]
fn key_v4(address: [u32; 1], protocol: u8, port: u16) -> ScopeKey {
    key_v6(mapped(address), protocol, port)
}

/// An IPv4 address in its IPv6 form.
#[inline(always)]
fn mapped([address]: [u32; 1]) -> [u32; 4] {
    [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), address]
}

#[inline(always)]
fn key_v6(address: [u32; 4], protocol: u8, port: u16) -> ScopeKey {
    ScopeKey::new(octets(address), protocol, port)
}

#[inline(always)]
fn octets(address: [u32; 4]) -> [u8; 16] {
    // SAFETY: four words are sixteen bytes, and any bytes are an address.
    unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(address) }
}

/// The port can't be read: dropped if the address is guarded at any.
#[inline(always)]
fn unreadable(tables: &impl Tables, address: [u32; 4], reason: DropReason) -> Stop {
    match tables.policy(&ScopeKey::whole(octets(address))) {
        Some(policy) => Stop::Dropped { entrypoint: policy.entrypoint, reason },
        None => Stop::NotGuarded,
    }
}

impl From<TooShort> for Stop {
    #[inline(always)]
    fn from(_: TooShort) -> Self {
        Self::NotAHeader
    }
}

#[cfg(test)]
mod tests;
