//! What the daemon and the program `translate_tc` say to each other of connections that were handed to the kernel: two TCP
//! connections, one with a client and one with a server, that the edge has opened itself and then joined, so that packets go
//! from one into the other by having their numbers shifted.

/// Directions of flows: two for each connection that is handed over, and one for each that is about to be.
pub const MAX_FLOWS: usize = 131_072;

/// Connections whose handshake is remembered, until they are handed over or forgotten.
pub const MAX_SEEN: usize = 65_536;

/// Words of the set of local ports at which the program looks at packets.
pub const PORT_WORDS: usize = 65_536 / 64;

/// For how many nanoseconds a held flow is held: whoever holds it is done long before, or dead.
pub const HELD_FOR: u64 = 2_000_000_000;

/// What became of a flow.
pub mod stage {
    /// Its payload is dropped, while the daemon reads how far the connection is.
    pub const HELD: u32 = 1;
    /// Its packets are translated.
    pub const JOINED: u32 = 2;
}

/// Who sends what goes in a flow's direction.
pub mod side {
    pub const CLIENT: u8 = 1;
    pub const SERVER: u8 = 2;
}

/// What has been seen of a flow.
pub mod seen {
    /// This side has announced its end.
    pub const FIN: u32 = 1 << 0;
    /// The other side has announced its end.
    pub const PEER_FIN: u32 = 1 << 1;
    /// And this side has acknowledged that.
    pub const PEER_FIN_ACKED: u32 = 1 << 2;
    /// A reset was the last that was seen of the connection.
    pub const RESET: u32 = 1 << 3;
    /// It came from this side.
    pub const SENT_RESET: u32 = 1 << 4;
    /// This side announced its end before the other did.
    pub const ENDED_FIRST: u32 = 1 << 5;
}

/// A direction of a connection, as its packets name it. IPv4 addresses are mapped (`::ffff:a.b.c.d`).
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    pub source: [u8; 16],
    pub destination: [u8; 16],
    /// The source's, then the destination's, as they stand in a TCP header.
    pub ports: [u8; 4],
}

/// What becomes of packets of a direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// How its packets are named from here on.
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub ports: [u8; 4],
    /// The interface that they leave by.
    pub interface: u32,
    /// One of [`stage`].
    pub stage: u32,
    /// Of [`seen`].
    pub seen: u32,
    /// What is added to sequence numbers.
    pub sequence: u32,
    /// To acknowledgements, selective ones included.
    pub acknowledgement: u32,
    /// To timestamps.
    pub time: u32,
    /// To echoed timestamps.
    pub echo: u32,
    /// The highest acknowledgement of this side, in the numbers that it uses.
    pub acked: u32,
    /// What this side has to acknowledge when it has all from the other.
    pub peer_end: u32,
    /// By how much this side means its windows to be shifted.
    pub scale_from: u8,
    /// And by how much the other side shifts them.
    pub scale_to: u8,
    /// One of [`side`]: whose packets these are.
    pub side: u8,
    pub reserved: u8,
    /// In seconds: after so long without a packet it is over. 0: it isn't said.
    pub idle: u32,
    /// In seconds: it is over after so long. 0: never.
    pub lifetime: u32,
    pub unused: u32,
    /// Whose server it goes to: a hash of the service's name ([`service`]), for whoever takes over.
    pub service: u64,
    /// By the monotonic clock.
    pub begun: u64,
    pub last: u64,
    pub packets: u64,
    /// Of payload.
    pub bytes: u64,
}

/// What a handshake's first packet from somebody said.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub time: u32,
    /// Whether it had a timestamp at all.
    pub has_time: u32,
    /// The interface that it came by.
    pub interface: u32,
    /// The longest segment that it takes, without options. 0: it didn't say.
    pub longest: u32,
}

/// What the program counts, for all flows together.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that went from one connection into the other.
    pub translated: u64,
    /// Packets with selective acknowledgements among them.
    pub selective: u64,
    /// Dropped while their flow was held; they are sent again.
    pub held: u64,
    /// Dropped, for being parts of packets.
    pub fragments: u64,
    /// Dropped, since their headers can't be read.
    pub unreadable: u64,
    /// Dropped, at the end of their time to live.
    pub expired: u64,
    /// Too long for the interface that they would have left by, and answered by an ICMP error.
    pub too_long: u64,
    /// ICMP errors that were sent on to whom they are about.
    pub errors: u64,
}

const _: () = assert!(size_of::<FlowKey>() == 16 + 16 + 4);
const _: () = assert!(size_of::<Flow>() == 2 * 16 + 4 + 9 * 4 + 4 + 3 * 4 + 8 + 4 * 8);
const _: () = assert!(size_of::<Seen>() == 16);
const _: () = assert!(size_of::<Tally>() == 8 * 8);

impl FlowKey {
    /// The other direction of the same connection.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        let [a, b, c, d] = self.ports;
        Self { source: self.destination, destination: self.source, ports: [c, d, a, b] }
    }
}

impl Flow {
    /// The other side's direction, as its packets are named when they come.
    #[inline(always)]
    #[must_use]
    pub const fn other_side(&self) -> FlowKey {
        FlowKey { source: self.source, destination: self.destination, ports: self.ports }.reversed()
    }

    /// Whether the other side has ended, and this one knows.
    #[inline(always)]
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.seen & seen::PEER_FIN_ACKED != 0
    }
}

/// What a flow's entry says of the service that it goes to (FNV-1a).
#[must_use]
pub const fn service(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// The word of the set of ports that a port is in, and its bit there.
#[inline(always)]
#[must_use]
pub const fn port_bit(port: u16) -> (u32, u64) {
    ((port >> 6) as u32, 1 << (port & 63))
}

// SAFETY: `repr(C)`, integers and bytes only, sizes asserted above show that nothing is padding, and every bit
// pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for FlowKey {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Flow {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Seen {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Tally {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_side_is_who_packets_are_sent_to() {
        let key = |source: u8, destination: u8, ports| FlowKey {
            source: [source; 16],
            destination: [destination; 16],
            ports,
        };
        let flow = Flow { source: [1; 16], destination: [2; 16], ports: [0, 3, 0, 4], ..Flow::default() };
        assert_eq!(flow.other_side(), key(2, 1, [0, 4, 0, 3]));
        assert_eq!(flow.other_side().reversed(), key(1, 2, [0, 3, 0, 4]));
    }

    #[test]
    fn every_port_has_a_bit_of_its_own() {
        let all: u64 = (0..=u16::MAX)
            .map(|port| u64::from(port_bit(port).0) * 64 + port_bit(port).1.ilog2() as u64)
            .sum();
        assert_eq!(all, (0..=u64::from(u16::MAX)).sum());
        assert_eq!(port_bit(443), (6, 1 << 59));
    }
}
