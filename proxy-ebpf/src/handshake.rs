//! Where a TCP segment stands in the making of a connection, and whether that has to be proved.
//!
//! Under a flood of SYNs the gate answers each itself, with a cookie in its sequence number and without remembering
//! anything, and looks for that cookie in what comes to listeners without a connection. This is the part that decides
//! which segments that concerns; `syn_ack.rs` makes the answer, and the kernel's own functions make the cookies.

use proxy_common::{scope::Policy, verdict::DropReason};

use crate::{
    frame::{Frame, read},
    gate::{Stop, Tables, stopped},
    headers::Tcp,
    verifier::forgotten,
};

/// What a segment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Asks for a connection: SYN alone.
    Opening,
    /// Anything that refers to what the other side has sent. It may be the last step of a handshake, also with data.
    Answering,
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
    /// It ends, by its own length, before the fixed part of a TCP header would. What lies behind that is padding.
    pub is_cut: bool,
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
        const CUT: u16 = 1 << 14;
        let more = if self.has_more_fragments { MORE } else { 0 };
        let cut = if self.is_cut { CUT } else { 0 };
        let network = forgotten(self.network as u16);
        let transport = forgotten(self.transport as u16 | more | cut);
        Self {
            network: network.into(),
            transport: (transport & !(MORE | CUT)).into(),
            is_cut: transport & CUT != 0,
            has_more_fragments: transport & MORE != 0,
            ..self
        }
    }
}

/// What stands in the place of flags that can't be read: the rest of a first fragment's header comes in another, which
/// isn't judged, and could be a SYN's. A number and no `Option`: the compiler may look into an empty one before it asks
/// whether it is, and then the verifier sees something that isn't a number.
pub(crate) const UNREADABLE: u8 = 0x80 | Tcp::SYN;

/// Those of TCP's flags that tell the steps of a handshake apart, or [`UNREADABLE`].
#[inline(always)]
pub(crate) fn flags(frame: &impl Frame, place: Place) -> u8 {
    if place.is_cut {
        return UNREADABLE;
    }
    let known = |tcp: &Tcp| tcp.flags() & (Tcp::FIN | Tcp::SYN | Tcp::RST | Tcp::ACK);
    read::<Tcp>(frame, place.transport).map_or(UNREADABLE, known)
}

/// Which step of a handshake a segment is that has to be proved, if it is one.
#[inline(always)]
pub(crate) fn unproved(
    tables: &impl Tables,
    policy: Policy,
    place: Place,
    flags: u8,
) -> Result<Option<Step>, Stop> {
    if flags == UNREADABLE {
        // The stack throws a segment away that ends before its header does. Of a fragment it would get the flags later.
        return match place.has_more_fragments && tables.is_flooded(policy) {
            true => Err(stopped(policy, DropReason::SplitHeader)),
            false => Ok(None),
        };
    }
    let has_to_be_proved = match flags {
        Tcp::SYN => tables.opening(policy).then_some(Step::Opening),
        // In a rehearsal nobody got a cookie, so nobody can have one.
        flags if flags & (Tcp::SYN | Tcp::RST | Tcp::ACK) == Tcp::ACK && policy.shadow == 0 => {
            tables.is_flooded(policy).then_some(Step::Answering)
        }
        // No listener makes a connection of these.
        _ => None,
    };
    Ok(has_to_be_proved)
}
