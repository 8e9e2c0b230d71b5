//! Whether two connections can be joined, and with what shifts. Pure.

use std::net::SocketAddr;

use proxy_common::translate::{Flow, FlowKey, Seen, side, stage};

use super::{
    Why,
    endpoint::{Info, Position, options},
};
use crate::kernel::translate::key;

/// Headers without options, in bytes: what a longest segment has beside it in the largest packet.
const HEADERS_V4: u32 = 20 + 20;
const HEADERS_V6: u32 = 40 + 20;

/// No server takes more at once from a stranger, whatever else its kernel says.
const MOST_AT_ONCE: u64 = 14_000;

/// One of the edge's two connections, at the moment at which they are joined.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub info: Info,
    pub position: Position,
    /// What the peer said at first.
    pub seen: Seen,
    /// By which packets to the peer leave.
    pub interface: u32,
}

/// A direction and what becomes of its packets.
pub type Direction = (FlowKey, Flow);

/// What a packet to or from there has beside its segment's bytes and options.
pub const fn headers(peer: SocketAddr) -> u32 {
    if peer.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 }
}

/// The longest segment that the peer and the way to it take.
pub fn longest(seen: &Seen, path: u32, peer: SocketAddr) -> u32 {
    let carried = path.saturating_sub(headers(peer));
    // Who doesn't say takes what everybody has to.
    let said = match seen.longest {
        0 if peer.is_ipv4() => 536,
        0 => 1220,
        said => said,
    };
    said.min(carried)
}

/// What can be known of the client before there is a connection to a server.
pub fn client(info: &Info, seen: Option<Seen>, first: usize) -> Result<Seen, Why> {
    if !info.is_established() {
        return Err(Why::ClientEnded);
    }
    if first as u64 > MOST_AT_ONCE {
        return Err(Why::TooMuchAtFirst);
    }
    if info.misplaced > 0 {
        return Err(Why::Misplaced);
    }
    seen.ok_or(Why::Unseen)
}

/// Joins them: `first` bytes are about to be sent to the server, as if the client had done it.
pub fn join(client: &Side, server: &Side, first: usize, now: u64) -> Result<[Direction; 2], Why> {
    let agreed = |info: &Info| {
        info.options & (options::TIME | options::SELECTIVE | options::SCALE | options::CONGESTION)
    };
    if !client.info.is_established() {
        return Err(Why::ClientEnded);
    }
    if !server.info.is_established() {
        return Err(Why::ServerEnded);
    }
    if client.info.misplaced > 0 || server.info.misplaced > 0 {
        return Err(Why::Misplaced);
    }
    if agreed(&client.info) != agreed(&server.info) {
        return Err(Why::Options);
    }
    // Whoever uses timestamps has sent one.
    let has_time = agreed(&client.info) & options::TIME != 0;
    if has_time && (client.seen.has_time == 0 || server.seen.has_time == 0) {
        return Err(Why::Options);
    }
    // What the edge has told one side it takes, the other one gets.
    let fits = |from: &Side, to: &Side| from.info.announced <= longest(&to.seen, to.info.path, to.peer);
    if !fits(client, server) || !fits(server, client) {
        return Err(Why::Longest);
    }
    let at_once = u64::from(server.info.window) * u64::from(server.info.longest_sent);
    if first as u64 > at_once.min(server.info.taken.into()).min(MOST_AT_ONCE) {
        return Err(Why::TooMuchAtFirst);
    }

    let [up, down] = [client, server].map(|side| side.position);
    // What the server expects after that.
    let next = up_to(down.sent, first);
    // The server's clock as the client is to see it goes on from the edge's own, and so the other way.
    let (client_time, server_time) =
        (down.time.wrapping_sub(client.seen.time), up.time.wrapping_sub(server.seen.time));
    let from_client = Flow {
        interface: server.interface,
        sequence: next.wrapping_sub(up.received),
        acknowledgement: down.received.wrapping_sub(up.sent),
        time: client_time,
        echo: server_time.wrapping_neg(),
        acked: up.sent,
        scale_from: client.info.scale_of_other(),
        scale_to: server.info.own_scale(),
        side: side::CLIENT,
        ..towards(server, now)
    };
    let from_server = Flow {
        interface: client.interface,
        sequence: up.sent.wrapping_sub(down.received),
        acknowledgement: up.received.wrapping_sub(next),
        time: server_time,
        echo: client_time.wrapping_neg(),
        acked: down.sent,
        scale_from: server.info.scale_of_other(),
        scale_to: client.info.own_scale(),
        side: side::SERVER,
        ..towards(client, now)
    };
    Ok([(key(client.peer, client.local), from_client), (key(server.peer, server.local), from_server)])
}

/// The number that follows so many bytes.
pub fn up_to(number: u32, bytes: usize) -> u32 {
    number.wrapping_add(bytes as u32)
}

fn towards(side: &Side, now: u64) -> Flow {
    let FlowKey { source, destination, ports } = key(side.local, side.peer);
    Flow { source, destination, ports, stage: stage::JOINED, begun: now, last: now, ..Flow::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u8 = options::TIME | options::SELECTIVE | options::SCALE;

    fn sides() -> [Side; 2] {
        let side = |local: &str, peer: &str, info, position| Side {
            local: local.parse().unwrap(),
            peer: peer.parse().unwrap(),
            info,
            position,
            seen: Seen { time: 1_000, has_time: 1, interface: 1, longest: 1460 },
            interface: 7,
        };
        let at = |sent, received, time| Position { sent, received, time };
        [
            side("198.51.100.1:443", "192.0.2.9:5000", Info::established(ALL, 7, 9), at(100, 600, 40)),
            side("10.0.0.1:20000", "10.0.0.11:8443", Info::established(ALL, 10, 8), at(u32::MAX, 300, 90)),
        ]
    }

    #[test]
    fn numbers_go_from_one_connection_into_the_other_and_back() {
        let [client, server] = sides();
        let [(up_key, up), (down_key, down)] = join(&client, &server, 11, 5).unwrap();
        assert_eq!(up_key, key(client.peer, client.local));
        assert_eq!((up.other_side(), down.other_side()), (down_key, up_key));
        // The server has 11 bytes from u32::MAX on; the client's next is 600.
        assert_eq!(600_u32.wrapping_add(up.sequence), 10);
        assert_eq!(10_u32.wrapping_add(down.acknowledgement), 600);
        assert_eq!(300_u32.wrapping_add(down.sequence), 100);
        assert_eq!(100_u32.wrapping_add(up.acknowledgement), 300);
        // Clocks go on where the edge's own would.
        assert_eq!(1_000_u32.wrapping_add(up.time), 90);
        assert_eq!(1_000_u32.wrapping_add(down.time), 40);
        assert_eq!(up.time.wrapping_add(down.echo), 0);
        assert_eq!(down.time.wrapping_add(up.echo), 0);
        assert_eq!((up.scale_from, up.scale_to), (7, 8));
        assert_eq!((down.scale_from, down.scale_to), (10, 9));
    }

    #[test]
    fn what_could_not_go_well_is_refused() {
        type Change = fn(&mut Side, &mut Side);
        let cases: [(Change, Why); 9] = [
            (|client, _| client.info.options = 0, Why::Options),
            (|_, server| server.info.options &= !options::SELECTIVE, Why::Options),
            (|client, _| client.info.options |= options::CONGESTION, Why::Options),
            (|_, server| server.seen.has_time = 0, Why::Options),
            (|_, server| server.seen.longest = 1400, Why::Longest),
            (|client, _| client.info.path = 1492, Why::Longest),
            (|client, _| client.info.misplaced = 1, Why::Misplaced),
            (|client, _| client.info.state = 8, Why::ClientEnded),
            (|_, server| server.info.taken = 10, Why::TooMuchAtFirst),
        ];
        for (change, why) in cases {
            let [mut client, mut server] = sides();
            change(&mut client, &mut server);
            assert_eq!(join(&client, &server, 11, 5).map(drop), Err(why));
        }
        let [client, server] = sides();
        assert_eq!(join(&client, &server, 14_001, 5).map(drop), Err(Why::TooMuchAtFirst));
    }

    #[test]
    fn neither_side_has_to_have_timestamps_if_the_other_has_none() {
        let [mut client, mut server] = sides();
        for side in [&mut client, &mut server] {
            side.info.options = options::SELECTIVE | options::SCALE;
            side.seen.has_time = 0;
        }
        assert!(join(&client, &server, 11, 5).is_ok());
    }

    #[test]
    fn the_longest_segment_is_what_the_peer_and_the_way_take() {
        let seen = |longest| Seen { longest, ..Seen::default() };
        let (v4, v6) = ("10.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
        assert_eq!(longest(&seen(1460), 1500, v4), 1460);
        assert_eq!(longest(&seen(1460), 1400, v4), 1360);
        assert_eq!(longest(&seen(1380), 9000, v6), 1380);
        assert_eq!(longest(&seen(9000), 1500, v6), 1440);
        assert_eq!((longest(&seen(0), 1500, v4), longest(&seen(0), 1500, v6)), (536, 1220));
    }
}
