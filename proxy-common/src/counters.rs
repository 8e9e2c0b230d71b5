//! What the gate decided, by entrypoint: one field for each verdict, so that `bpftool map dump` names them.

use core::ops::{AddAssign, SubAssign};

use crate::verdict::DropReason;

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

impl Counters {
    #[inline(always)]
    #[must_use]
    pub const fn dropped(&self, reason: DropReason) -> &Tally {
        match reason {
            DropReason::NotListed => &self.not_listed,
            DropReason::Truncated => &self.truncated,
            DropReason::ExtensionHeaders => &self.extension_headers,
            DropReason::ListMissing => &self.list_missing,
            DropReason::Malformed => &self.malformed,
            DropReason::SplitHeader => &self.split_header,
            DropReason::VlanTags => &self.vlan_tags,
            DropReason::Blocked => &self.blocked,
            DropReason::PacketRate => &self.packet_rate,
            DropReason::ConnectionRate => &self.connection_rate,
            DropReason::BadCookie => &self.bad_cookie,
        }
    }

    #[inline(always)]
    pub const fn dropped_mut(&mut self, reason: DropReason) -> &mut Tally {
        match reason {
            DropReason::NotListed => &mut self.not_listed,
            DropReason::Truncated => &mut self.truncated,
            DropReason::ExtensionHeaders => &mut self.extension_headers,
            DropReason::ListMissing => &mut self.list_missing,
            DropReason::Malformed => &mut self.malformed,
            DropReason::SplitHeader => &mut self.split_header,
            DropReason::VlanTags => &mut self.vlan_tags,
            DropReason::Blocked => &mut self.blocked,
            DropReason::PacketRate => &mut self.packet_rate,
            DropReason::ConnectionRate => &mut self.connection_rate,
            DropReason::BadCookie => &mut self.bad_cookie,
        }
    }
}

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
