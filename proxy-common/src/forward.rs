//! Port passthrough in the kernel: what is forwarded, to which servers, and what came of it.
//!
//! User space writes services, servers and tables; `forward_tc` reads them. Whoever is to be reached behind an address and
//! port is a [`Service`]; which server gets a new flow stands in its [`Lookup`], by a hash of who asks. Flows
//! themselves are in `flow.rs`.
//!
//! A service is changed by replacing its table: one update of the outer map, and no packet sees half of it. A server keeps
//! its slot as long as flows may refer to it; a slot that is given to another server gets another `incarnation`, so that
//! flows of the one before don't take it for theirs.

mod counted;

use crate::scope::ScopeKey;

pub use counted::{ServerCounters, ServiceCounters, StopReason};

/// Keys of services: a service has one for each of its addresses.
pub const MAX_SERVICE_KEYS: usize = 1024;
/// Slots of services, the reserved one included: of counters, names and tables.
pub const MAX_SERVICES: usize = 256;
/// Slots of servers, the reserved one included.
pub const MAX_SERVERS: usize = 4096;
/// Slots of tables, the reserved one included.
pub const MAX_TABLES: usize = 2 * MAX_SERVICES;
/// Places in a table. A prime, so that each server's order of preference meets every place.
pub const PLACES: usize = 4093;

/// In a table: nobody. As a slot of services: what can't be said to be for one.
pub const NONE: u16 = 0;

/// An address, protocol and port that is forwarded, as the gate's scope has them.
pub type ServiceKey = ScopeKey;

/// What is reached there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The snapshot from which this came.
    pub generation: u64,
    /// Slot of its counters and name.
    pub slot: u16,
    /// Slot of its table. Another one for IPv6 than for IPv4: a server's address is of the same family as its client's.
    pub table: u16,
    /// Flags of [`service`].
    pub flags: u16,
    pub reserved: u16,
    /// In seconds: after so long without a packet an open flow is over.
    pub idle: u32,
    /// In seconds: flows end after so long. 0: never.
    pub lifetime: u32,
}

/// Flags of [`Service`].
pub mod service {
    /// Servers see the client's own address, and answer by way of us.
    pub const KEEP_SOURCE: u16 = 1;
    /// All flows of a client's address go to one server.
    pub const STICKY: u16 = 2;
    /// It takes no new flows, which go to the stack; those that are there stay. For a service that is no longer
    /// forwarded, until it has none left.
    pub const RETIRED: u16 = 4;
}

/// Which server gets a new flow: the one that stands at the place of its hash.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Lookup {
    pub generation: u64,
    /// Slots of servers, or [`NONE`].
    pub servers: [u16; PLACES],
    pub reserved: [u16; 3],
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Our own address towards it, of the same family. Not used where the client's is kept.
    pub source: [u8; 16],
    /// In the host's order.
    pub port: u16,
    /// A [`ServerState`].
    pub state: u16,
    /// Another one for each server that has had this slot.
    pub incarnation: u32,
    /// By which interface it is reached, where the host itself doesn't forward and so can't be asked.
    pub interface: u32,
    pub reserved: u32,
}

#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Nobody has this slot.
    Vacant = 0,
    /// New flows are for the tables to decide; those that are there stay.
    Serving = 1,
    /// It is dead: the next packet of a client is answered by a reset, and UDP flows find another server.
    Dead = 2,
}

/// What holds for all services.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub generation: u64,
    /// In nanoseconds.
    pub timeouts: Timeouts,
    /// The first of our own source ports, and how many there are. 0: nothing is forwarded unless the source is kept.
    pub first_port: u16,
    pub ports: u16,
    /// MSS options that ask for more are lowered to this. 0: only to what the interfaces carry.
    pub longest_segment: u16,
    /// Flags of [`settings`].
    pub flags: u16,
}

/// Flags of [`Settings`].
pub mod settings {
    /// Replies come in not only to our own source ports: a service keeps its clients' addresses, or flows are left that
    /// began with other ports. Otherwise packets for other ports aren't looked up among them.
    pub const REPLIES_ANYWHERE: u16 = 1;
    /// A server's packets are taken only by the interface that the route to it leads out of. Only where each interface that
    /// the program is attached to is one that routes name: no port of a bond or a bridge.
    pub const STRICT_PATH: u16 = 2;
}

/// After how long without a packet a flow is over, in nanoseconds. Open ones have their service's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// The handshake isn't done.
    pub opening: u64,
    /// One side has closed.
    pub half_closed: u64,
    /// Both have, and the last acknowledgement is outstanding.
    pub closing: u64,
    /// Both have, the server first: it remembers the flow, and takes nothing new from the same port (TIME_WAIT).
    pub time_wait: u64,
    /// Both have, the client first: the server has forgotten it.
    pub closed: u64,
    /// One side has reset it. Not at once: a stranger may have sent that, and then the flow goes on.
    pub reset: u64,
    /// UDP: the server hasn't answered.
    pub unanswered: u64,
}

/// Our own source ports are tried one after the other, beginning here; by server.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub next: u64,
}

const _: () = assert!(size_of::<Service>() == 8 + 4 * 2 + 2 * 4);
const _: () = assert!(size_of::<Lookup>() == 8 + (PLACES + 3) * 2);
const _: () = assert!(size_of::<Server>() == 32 + 2 + 2 + 4 + 4 + 4);
const _: () = assert!(size_of::<Timeouts>() == 7 * 8);
const _: () = assert!(size_of::<Settings>() == 8 + 7 * 8 + 8);
const _: () = assert!(size_of::<Cursor>() == 8);

// === impl Service ===

impl Service {
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

// === impl Settings ===

impl Settings {
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Whether a port is one of our own source ports.
    #[inline(always)]
    #[must_use]
    pub const fn is_ours(&self, port: u16) -> bool {
        port.wrapping_sub(self.first_port) < self.ports
    }
}

// === impl Lookup ===

impl Lookup {
    pub const EMPTY: Self = Self { generation: 0, servers: [NONE; PLACES], reserved: [0; 3] };

    /// The place of a hash.
    #[inline(always)]
    #[must_use]
    pub const fn place(hash: u32) -> usize {
        // Of the whole range of hashes an equal share each, without a division.
        ((hash as u64 * PLACES as u64) >> u32::BITS) as usize
    }
}

/// Which of a client's flows this is, as a number. The same on every edge host.
///
/// `client` holds the address's bytes in their order. Without the port where the service asks that all flows of an
/// address go to one server.
#[inline(always)]
#[must_use]
pub const fn hash(client: [u32; 4], port: u16) -> u32 {
    let mut mixed = 0x9e37_79b9_7f4a_7c15_u64 ^ port as u64;
    let mut at = 0;
    while at < 4 {
        mixed = (mixed ^ u32::from_be(client[at]) as u64).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^= mixed >> 32;
        at += 1;
    }
    (mixed.wrapping_mul(0xc4ce_b9fe_1a85_ec53) >> 32) as u32
}

// === impl Timeouts ===

impl Timeouts {
    pub const DEFAULT: Self = {
        const SECOND: u64 = 1_000_000_000;
        Self {
            opening: 10 * SECOND,
            half_closed: 300 * SECOND,
            closing: 60 * SECOND,
            time_wait: 61 * SECOND,
            closed: SECOND / 4,
            reset: 10 * SECOND,
            unanswered: 30 * SECOND,
        }
    };
}

// SAFETY: all of these are `repr(C)`, of integers and byte arrays only; the sizes asserted above show that nothing is
// padding, and every bit pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Service {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Lookup {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Server {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Settings {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Cursor {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_has_a_place_and_all_places_are_reached() {
        assert_eq!(Lookup::place(0), 0);
        assert_eq!(Lookup::place(u32::MAX), PLACES - 1);
    }

    #[test]
    fn clients_beside_each_other_are_spread() {
        let mut places = [0_u32; 8];
        for last in 0..8192_u32 {
            let client = [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), (0xc000_0200 + last).to_be()];
            places[Lookup::place(hash(client, 0)) * 8 / PLACES] += 1;
        }
        assert!(places.iter().all(|count| (900..1150).contains(count)), "{places:?}");
    }

    #[test]
    fn ports_of_one_client_are_spread() {
        let client = [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), 0xc000_0201_u32.to_be()];
        let mut places = [0_u32; 8];
        for port in 32_768..40_960_u16 {
            places[Lookup::place(hash(client, port)) * 8 / PLACES] += 1;
        }
        assert!(places.iter().all(|count| (900..1150).contains(count)), "{places:?}");
    }
}
