//! What the gate decided, by entrypoint: one field for each verdict, so that `bpftool map dump` names them.

use core::ops::{AddAssign, SubAssign};

use crate::{numbered::counted_by, verdict::DropReason};

/// Packets and the bytes in them, Ethernet header included.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub packets: u64,
    pub bytes: u64,
}

/// One CPU's share for one entrypoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub passed: Tally,
    pub not_listed: Tally,
    pub truncated: Tally,
    pub extension_headers: Tally,
    pub list_missing: Tally,
    pub malformed: Tally,
    pub split_header: Tally,
    pub vlan_tags: Tally,
    pub blocked: Tally,
    pub packet_rate: Tally,
    pub connection_rate: Tally,
    pub bad_cookie: Tally,
    /// Neither passed nor dropped: SYNs that the gate answered itself.
    pub challenged: Tally,
}

const _: () = assert!(size_of::<Counters>() == (2 + DropReason::ALL.len()) * size_of::<Tally>());

counted_by!(DropReason, Counters: dropped, dropped_mut {
    NotListed => not_listed,
    Truncated => truncated,
    ExtensionHeaders => extension_headers,
    ListMissing => list_missing,
    Malformed => malformed,
    SplitHeader => split_header,
    VlanTags => vlan_tags,
    Blocked => blocked,
    PacketRate => packet_rate,
    ConnectionRate => connection_rate,
    BadCookie => bad_cookie,
});

// === impl Tally ===

impl Tally {
    #[inline(always)]
    pub const fn count(&mut self, bytes: u64) {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes);
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

impl SubAssign for Tally {
    /// Not below nothing: what is taken off may have been counted a moment before what it is taken off from.
    fn sub_assign(&mut self, other: Self) {
        self.packets = self.packets.saturating_sub(other.packets);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

impl SubAssign for Counters {
    fn sub_assign(&mut self, other: Self) {
        self.passed -= other.passed;
        self.challenged -= other.challenged;
        for reason in DropReason::ALL {
            *self.dropped_mut(reason) -= *other.dropped(reason);
        }
    }
}

/// Sums the shares of several CPUs.
impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.challenged += other.challenged;
        for reason in DropReason::ALL {
            *self.dropped_mut(reason) += *other.dropped(reason);
        }
    }
}

// SAFETY: `repr(C)`, pairs of `u64` only, so nothing is padding and every bit pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Counters {}
