//! The gate: may this frame come in?
//!
//! What isn't for a guarded (local address, protocol, port) is never touched, and leaves after one lookup.
//! What can't be judged *for a guarded address* is dropped. Every packet is judged for itself: there is no
//! connection tracking, so a list that changes takes effect on connections that are open.

mod ipv4;
mod ipv6;
mod protection;

use proxy_common::{
    admission::ListId,
    limit::SourceKey,
    scope::{Policy, ScopeKey, protect},
    syn_flood::Unproved,
    verdict::DropReason,
};

use self::protection::Sender;
use crate::{
    frame::{Frame, TooShort, read},
    handshake::Place,
    headers::{Ethernet, Ipv4, Ipv6, VlanTag, ether_type},
};

/// VLAN tags that are looked behind.
const VLAN_TAGS: usize = 2;

/// What the gate asks: maps in the kernel, plain tables in tests.
pub trait Tables {
    fn policy(&self, key: &ScopeKey) -> Option<Policy>;
    fn admits_v4(&self, admission: u32, source: SourceV4) -> Admits;
    fn admits_v6(&self, admission: u32, source: SourceV6) -> Admits;
    /// Whether the source is a CDN's.
    fn is_cdn(&self, source: Source) -> bool;
    /// Whether somebody has blocked the source; if so, that is counted.
    fn blocked(&self, source: Source, is_cdn: bool) -> bool;
    /// Takes what the source sends off what it may.
    fn spend(&self, source: SourceKey, opens: bool) -> Result<(), DropReason>;

    /// One more connection is asked for. Whether that has to be proved.
    fn opening(&self, _: Policy) -> bool {
        false
    }

    /// Whether handshakes have to be proved.
    fn is_flooded(&self, _: Policy) -> bool {
        false
    }

    /// Keeps a step of a handshake for the program that has it proved. A verdict that carried it along would be too much
    /// for the verifier: the compiler looks into it before it asks what it is.
    fn keep(&self, _: &Unproved) {}
}

/// A source address, as words that hold its bytes in their order.
pub type SourceV4 = [u32; 1];
pub type SourceV6 = [u32; 4];

/// A source address of either family, as words that hold its bytes in their order; IPv4 in its IPv6 form.
pub type Source = [u32; 4];

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
    /// Ends before it has a destination address: for nobody.
    NotAHeader,
    /// Neither TCP nor UDP.
    NotGuardable,
    /// A fragment without ports. Its first fragment is judged, and nothing is put together without it.
    LaterFragment,
    /// No guarded entrypoint has this address, protocol and port.
    NotGuarded,
    /// For this entrypoint (or for its address), and dropped.
    Dropped { entrypoint: u32, reason: DropReason },
    /// For this entrypoint (or for its address), and dropped if it weren't shadowed.
    Shadowed { entrypoint: u32, reason: DropReason },
    /// It may come in, but is a step of a handshake that has to be proved: [`Tables::keep`] has the rest.
    Unproved { entrypoint: u32 },
    /// Likewise, if its entrypoint weren't shadowed.
    UnprovedInRehearsal { entrypoint: u32 },
}

/// Judges one frame.
#[inline(always)]
pub fn judge(frame: &impl Frame, tables: &impl Tables) -> Result<Admitted, Stop> {
    // A frame too short to have an address is for nobody.
    let Tagged { ether_type, offset, has_priority_tag } = behind_tags(frame)?;
    match ether_type {
        ether_type::IPV4 => ipv4::judge(frame, offset, tables),
        ether_type::IPV6 => ipv6::judge(frame, offset, tables),
        ether_type::VLAN | ether_type::PROVIDER_VLAN => {
            let tag: &VlanTag = read(frame, offset)?;
            Err(too_many_tags(tables, has_priority_tag || tag.is_priority()))
        }
        _ => Err(Stop::NotIp),
    }
}

/// More tags than are looked behind. If each names a VLAN, the packet is for an interface made for that nesting. But
/// tags that name none are taken off by the host however many there are, and what is behind them could be for
/// anybody.
#[inline(always)]
fn too_many_tags(tables: &impl Tables, has_priority_tag: bool) -> Stop {
    match tables.policy(&ScopeKey::ANYTHING) {
        Some(policy) if has_priority_tag => stopped(policy, DropReason::VlanTags),
        _ => Stop::NotIp,
    }
}

/// Where a frame comes from. Asked again, and only for rehearsals: a verdict that carried it along would cost every
/// packet something. `::` where it can't be said.
#[inline(always)]
pub fn source(frame: &impl Frame) -> Source {
    let Ok(Tagged { ether_type, offset, .. }) = behind_tags(frame) else { return UNKNOWN_SOURCE };
    match ether_type {
        ether_type::IPV4 => read::<Ipv4>(frame, offset).map_or(UNKNOWN_SOURCE, |ip| mapped(ip.source.read())),
        ether_type::IPV6 => read::<Ipv6>(frame, offset).map_or(UNKNOWN_SOURCE, |ip| ip.source.read()),
        _ => UNKNOWN_SOURCE,
    }
}

pub(crate) const UNKNOWN_SOURCE: Source = [0; 4];

/// What is behind the VLAN tags that are looked behind.
pub(crate) struct Tagged {
    pub ether_type: u16,
    pub offset: usize,
    /// One of the tags names no VLAN.
    has_priority_tag: bool,
}

#[inline(always)]
pub(crate) fn behind_tags(frame: &impl Frame) -> Result<Tagged, TooShort> {
    let ethernet: &Ethernet = read(frame, 0)?;
    let (offset, ether_type) = (size_of::<Ethernet>(), ethernet.ether_type());
    let mut behind = Tagged { ether_type, offset, has_priority_tag: false };
    for _ in 0..VLAN_TAGS {
        if behind.ether_type != ether_type::VLAN && behind.ether_type != ether_type::PROVIDER_VLAN {
            break;
        }
        let tag: &VlanTag = read(frame, behind.offset)?;
        behind.has_priority_tag |= tag.is_priority();
        behind.ether_type = tag.ether_type();
        behind.offset += size_of::<VlanTag>();
    }
    Ok(behind)
}

/// Who may come in, does, unless it is blocked, has something to prove, or sends too much. `listed`: what the
/// entrypoint's lists say of it, if it has any.
#[inline(always)]
fn admit(
    frame: &impl Frame,
    tables: &impl Tables,
    policy: Policy,
    listed: Admits,
    sender: &Sender,
) -> Result<Admitted, Stop> {
    let list = match listed {
        Admits::Listed(list) => list,
        Admits::NotListed => return Err(stopped(policy, DropReason::NotListed)),
        Admits::NoLists => return Err(stopped(policy, DropReason::ListMissing)),
    };
    if policy.has(!protect::OPEN) {
        protection::judge(frame, tables, policy, sender)?;
    }
    Ok(Admitted { entrypoint: policy.entrypoint.into(), list })
}

/// Dropped, unless this is only a rehearsal.
#[inline(always)]
pub(crate) fn stopped(policy: Policy, reason: DropReason) -> Stop {
    let entrypoint = policy.entrypoint.into();
    if policy.shadow == 0 {
        Stop::Dropped { entrypoint, reason }
    } else {
        Stop::Shadowed { entrypoint, reason }
    }
}

/// A key of an IPv4 address, given as the word that holds its bytes in their order.
#[inline(always)]
#[must_use]
pub fn key_v4(address: [u32; 1], protocol: u8, port: u16) -> ScopeKey {
    key_v6(mapped(address), protocol, port)
}

/// An IPv4 address in its IPv6 form.
#[inline(always)]
pub(crate) fn mapped([address]: [u32; 1]) -> [u32; 4] {
    [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), address]
}

/// As [`key_v4`].
#[inline(always)]
#[must_use]
pub fn key_v6(address: [u32; 4], protocol: u8, port: u16) -> ScopeKey {
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
        Some(policy) => stopped(policy, reason),
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
