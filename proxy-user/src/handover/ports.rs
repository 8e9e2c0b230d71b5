//! Local ports for connections that are handed to the kernel: own ones, which the host itself gives to nobody, and each used
//! again as late as possible. A server keeps an ended connection in mind for a minute; a new one from the same port would meet
//! it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

/// For how long a port isn't used again for the same server: as long as TIME_WAIT.
pub const REST: Duration = Duration::from_secs(60);

/// Each server has all of them to itself, since a connection is known by both of its ends.
#[derive(Debug)]
pub struct Ports {
    range: RangeInclusive<u16>,
    pools: HashMap<SocketAddr, Pool>,
}

#[derive(Debug)]
struct Pool {
    /// Where in the range it began.
    first: usize,
    /// So many from there on were given out.
    given: usize,
    /// Rested, or resting since then; the longest first.
    resting: VecDeque<(u16, Instant)>,
    in_use: HashSet<u16>,
}

impl Ports {
    #[must_use]
    pub fn of(range: RangeInclusive<u16>) -> Self {
        Self { range, pools: HashMap::new() }
    }

    #[must_use]
    pub const fn range(&self) -> &RangeInclusive<u16> {
        &self.range
    }

    /// One for a connection to this server. `start`: any number, to begin at. `None`: all are in use, or were a moment ago.
    pub fn take(&mut self, server: SocketAddr, now: Instant, start: usize) -> Option<u16> {
        let all = self.range.len();
        let pool = self.pools.entry(server).or_insert_with(|| Pool::begun_at(start, all));
        while pool.given < all {
            let port = self.range.start() + ((pool.first + pool.given) % all) as u16;
            pool.given += 1;
            if pool.in_use.insert(port) {
                return Some(port);
            }
        }
        let (port, since) = *pool.resting.front()?;
        if now.saturating_duration_since(since) < REST {
            return None;
        }
        pool.resting.pop_front();
        pool.in_use.insert(port);
        Some(port)
    }

    /// One that a predecessor has given out.
    pub fn occupy(&mut self, server: SocketAddr, port: u16, start: usize) {
        if self.range.contains(&port) {
            let all = self.range.len();
            self.pools.entry(server).or_insert_with(|| Pool::begun_at(start, all)).in_use.insert(port);
        }
    }

    pub fn give_back(&mut self, server: SocketAddr, port: u16, now: Instant) {
        if let Some(pool) = self.pools.get_mut(&server)
            && pool.in_use.remove(&port)
        {
            pool.resting.push_back((port, now));
        }
    }

    /// Forgets servers that nothing goes to any more.
    pub fn tidy(&mut self, now: Instant) {
        self.pools.retain(|_, pool| {
            let last = pool.resting.back();
            !pool.in_use.is_empty()
                || last.is_some_and(|(_, since)| now.saturating_duration_since(*since) < REST)
        });
    }
}

impl Pool {
    fn begun_at(start: usize, all: usize) -> Self {
        Self { first: start % all.max(1), given: 0, resting: VecDeque::new(), in_use: HashSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 11], port))
    }

    #[test]
    fn every_port_is_used_once_before_any_is_used_again_and_then_the_longest_rested() {
        let now = Instant::now();
        let mut ports = Ports::of(20_000..=20_003);
        let taken: Vec<_> = (0..4).map(|_| ports.take(server(1), now, 2).unwrap()).collect();
        assert_eq!(taken, [20_002, 20_003, 20_000, 20_001]);
        assert_eq!(ports.take(server(1), now, 0), None);
        ports.give_back(server(1), 20_000, now);
        ports.give_back(server(1), 20_003, now + Duration::from_secs(1));
        assert_eq!(ports.take(server(1), now + REST - Duration::from_millis(1), 0), None);
        assert_eq!(ports.take(server(1), now + REST, 0), Some(20_000));
        assert_eq!(ports.take(server(1), now + REST, 0), None);
    }

    #[test]
    fn servers_do_not_share_ports() {
        let now = Instant::now();
        let mut ports = Ports::of(20_000..=20_000);
        assert_eq!(ports.take(server(1), now, 0), Some(20_000));
        assert_eq!(ports.take(server(2), now, 0), Some(20_000));
    }

    #[test]
    fn what_a_predecessor_has_given_out_is_not_given_out_again() {
        let now = Instant::now();
        let mut ports = Ports::of(20_000..=20_001);
        ports.occupy(server(1), 20_000, 0);
        ports.occupy(server(1), 9, 0);
        assert_eq!(ports.take(server(1), now, 0), Some(20_001));
        assert_eq!(ports.take(server(1), now, 0), None);
        ports.give_back(server(1), 20_000, now);
        assert_eq!(ports.take(server(1), now + REST, 0), Some(20_000));
    }

    #[test]
    fn a_server_is_forgotten_when_its_ports_have_rested() {
        let now = Instant::now();
        let mut ports = Ports::of(20_000..=20_001);
        let port = ports.take(server(1), now, 0).unwrap();
        ports.tidy(now + REST * 2);
        assert_eq!(ports.pools.len(), 1);
        ports.give_back(server(1), port, now);
        ports.tidy(now);
        assert_eq!(ports.pools.len(), 1);
        ports.tidy(now + REST);
        assert!(ports.pools.is_empty());
    }
}
