//! Where a TCP segment stands in the making of a connection, and whether that has to be proved.
//!
//! Under a flood of SYNs the gate answers each itself, with a cookie in its sequence number and without remembering
//! anything, and looks for that cookie in what comes to listeners without a connection. This is the part that decides
//! which segments that concerns; `syn_ack.rs` makes the answer, and the kernel's own functions make the cookies.

use proxy_common::{
    scope::{Policy, protect},
    verdict::DropReason,
};

use crate::{
    frame::{Frame, read},
    gate::{Admits, Stop, Tables, stopped},
    headers::Tcp,
};

/// What a segment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Asks for a connection: SYN alone.
    Opening,
    /// Anything that refers to what the other side has sent. It may be the last step of a handshake, also with data.
    Answering,
}

/// A segment that has to be proved, and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub place: Place,
    pub step: Step,
}

/// The headers of an admitted TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether by IPv6.
    pub is_v6: bool,
    /// Where the IP header begins in the frame.
    pub network: usize,
    /// Where the TCP header does.
    pub transport: usize,
    /// Of the first of several fragments.
    pub has_more_fragments: bool,
}

// === impl Place ===

impl Place {
    /// The same, of which the verifier doesn't know how we came by it. It follows each way through the headers by itself,
    /// and would follow each of them through all that comes now, as long as it sees a difference.
    #[inline(always)]
    pub(crate) fn forgotten(self) -> Self {
        const MORE: u16 = 1 << 15;
        let more = if self.has_more_fragments { MORE } else { 0 };
        let (network, transport) = (forgotten(self.network as u16), forgotten(self.transport as u16 | more));
        Self {
            network: network.into(),
            transport: (transport & !MORE).into(),
            has_more_fragments: transport & MORE != 0,
            ..self
        }
    }
}

/// The verifier knows what it has seen being stored, and forgets it when a part is read from the middle of that. As one
/// number: put together from bytes, it would have no bounds on Linux 6.1.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn forgotten(number: u16) -> u16 {
    let mut spot = 0_u64;
    let parts = (&raw mut spot).cast::<u16>();
    // SAFETY: a local variable of four such parts.
    unsafe {
        core::ptr::write_volatile(&raw mut spot, u64::from(number) << 16);
        core::ptr::read_volatile(parts.add(1))
    }
}

#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
fn forgotten(number: u16) -> u16 {
    number
}

/// Lets a segment through that needs no proof.
#[inline(always)]
pub(crate) fn unproved(
    frame: &impl Frame,
    tables: &impl Tables,
    policy: Policy,
    place: Place,
    lists_cdn: impl FnOnce(u32) -> Admits,
) -> Result<(), Stop> {
    let Ok(tcp) = read::<Tcp>(frame, place.transport) else {
        // The stack throws a segment away that ends before its header does. Of a fragment it would get the flags
        // later, and these could be a SYN's.
        return match place.has_more_fragments && tables.is_flooded(policy) {
            true => Err(stopped(policy, DropReason::SplitHeader)),
            false => Ok(()),
        };
    };
    let step = match tcp.flags() & (Tcp::FIN | Tcp::SYN | Tcp::RST | Tcp::ACK) {
        Tcp::SYN => Step::Opening,
        flags if flags & (Tcp::SYN | Tcp::RST | Tcp::ACK) == Tcp::ACK => Step::Answering,
        // No listener makes a connection of these.
        _ => return Ok(()),
    };
    let has_to_be_proved = match step {
        Step::Opening => tables.opening(policy),
        Step::Answering => tables.is_flooded(policy),
    };
    // A CDN proves nothing unless that is asked for.
    let spares_cdn = policy.cdn != Policy::NO_CDN && !policy.has(protect::SYN_COOKIES_OF_CDN);
    if !has_to_be_proved || (spares_cdn && matches!(lists_cdn(policy.cdn.into()), Admits::Listed(_))) {
        return Ok(());
    }
    Err(Stop::Unproved { policy, segment: Segment { place, step } })
}
