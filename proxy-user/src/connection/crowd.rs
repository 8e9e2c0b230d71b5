//! How many connections an entrypoint has, in all and of each client: counted at accept, by all workers together.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{config::model::Limits, hygiene::Fault};

/// Clients are counted in so many parts, each with a lock of its own: workers that accept at once rarely meet.
const PARTS: usize = 16;

#[derive(Debug, Default)]
pub struct Crowd {
    all: AtomicU32,
    clients: [Mutex<HashMap<Client, u32>>; PARTS],
    hasher: RandomState,
}

/// A connection's place in the crowd, until dropped.
#[derive(Debug)]
pub struct Place {
    crowd: Arc<Crowd>,
    client: Option<Client>,
}

/// An IPv4 address, or the /64 that one subscriber of IPv6 has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Client(u64, bool);

impl Client {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u64::from(u32::from(address)), false),
            IpAddr::V6(address) => Self((u128::from(address) >> 64) as u64, true),
        }
    }
}

impl Crowd {
    /// A place for one more connection; `of_many` for a peer that brings the connections of many clients.
    ///
    /// # Errors
    /// With the limit that is reached.
    pub fn enter(self: &Arc<Self>, peer: IpAddr, of_many: bool, limits: &Limits) -> Result<Place, Fault> {
        let mut place = Place { crowd: self.clone(), client: None };
        // The place is counted already: its drop takes it back.
        let before = self.all.fetch_add(1, Ordering::Relaxed);
        if limits.connections.is_some_and(|most| before >= most) {
            return Err(Fault::Connections);
        }
        if let (Some(most), false) = (limits.connections_per_client, of_many) {
            let client = Client::of(peer);
            let mut part = self.part(client).lock().unwrap_or_else(PoisonError::into_inner);
            let count = part.entry(client).or_insert(0);
            if *count >= most {
                return Err(Fault::ClientConnections);
            }
            *count += 1;
            place.client = Some(client);
        }
        Ok(place)
    }

    /// Connections now.
    pub fn size(&self) -> u32 {
        self.all.load(Ordering::Relaxed)
    }

    fn part(&self, client: Client) -> &Mutex<HashMap<Client, u32>> {
        // Keyed anew for each process: nobody can aim all his addresses at one part.
        &self.clients[self.hasher.hash_one(client) as usize % PARTS]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.all.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client else { return };
        let mut part = self.crowd.part(client).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = part.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                part.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn limits(connections: u32, per_client: u32) -> Limits {
        let text = format!(
            "[entrypoint.web]\nbind = '127.0.0.1:80'\n\
             limits = {{ connections = {connections}, connections_per_client = {per_client} }}\n\
             [service.app]\nservers = '10.0.0.1:80'\n[[route]]\nservice = 'app'\n"
        );
        config::load_text("weir.toml".as_ref(), &text).unwrap().config.entrypoints[0].limits.clone()
    }

    #[test]
    fn a_client_has_so_many_places_and_gets_them_back() {
        let (crowd, limits) = (Arc::new(Crowd::default()), limits(0, 2));
        let enter = |address: &str| crowd.enter(address.parse().unwrap(), false, &limits);
        let one = enter("192.0.2.1").unwrap();
        let _two = enter("::ffff:192.0.2.1").unwrap();
        assert_eq!(enter("192.0.2.1").unwrap_err(), Fault::ClientConnections);
        let other = enter("192.0.2.2").unwrap();
        assert_eq!(crowd.size(), 3, "who is refused has no place");
        drop(one);
        let _again = enter("192.0.2.1").unwrap();
        drop(other);
        let counted: usize = crowd.clients.iter().map(|part| part.lock().unwrap().len()).sum();
        assert_eq!(counted, 1, "who is gone is forgotten");
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one_client() {
        let (crowd, limits) = (Arc::new(Crowd::default()), limits(0, 1));
        let enter = |address: &str| crowd.enter(address.parse().unwrap(), false, &limits);
        let _one = enter("2001:db8::1").unwrap();
        assert_eq!(enter("2001:db8::ffff").unwrap_err(), Fault::ClientConnections);
        let _other = enter("2001:db8:0:1::1").unwrap();
    }

    #[test]
    fn peers_that_bring_many_clients_count_only_in_all() {
        let (crowd, limits) = (Arc::new(Crowd::default()), limits(2, 1));
        let enter = || crowd.enter("192.0.2.1".parse().unwrap(), true, &limits);
        let (_one, _two) = (enter().unwrap(), enter().unwrap());
        assert_eq!(enter().unwrap_err(), Fault::Connections);
    }
}
