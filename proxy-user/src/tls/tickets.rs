//! Session tickets: what a client shows to resume a session, sealed by a key that only this host has, or the hosts of its fleet
//! ([`crate::fleet::shared::keys`]).
//!
//! A key is used for six hours, and what it has sealed is taken for twelve. All workers share it, reloads keep it, and a daemon that
//! takes over goes on with it (rustls' own can't be given away). It is in memory alone: on a disk it would outlive what it protects.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac, rand,
};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

const USED_FOR: Duration = Duration::from_secs(6 * 3600);
const TAKEN_FOR: Duration = Duration::from_secs(12 * 3600);

/// A fleet's key is used for so much longer, if nobody makes another: the store may be away.
const GRACE: Duration = Duration::from_secs(3600);

/// So many keys before the one in use are still taken.
const MOST_BEFORE: usize = 4;

const NAME: usize = 16;
const SECRET: usize = 32;

/// Keys of one set of rules: a ticket carries the client's certificate, which must have been asked for by the same.
pub struct Tickets {
    keys: ArcSwap<Keys>,
    /// Held by whoever makes a new key.
    turn: Mutex<()>,
}

struct Keys {
    current: Arc<Key>,
    /// What they have sealed may still come. The latest first.
    before: Vec<Arc<Key>>,
}

struct Key {
    name: [u8; NAME],
    secret: [u8; SECRET],
    cipher: LessSafeKey,
    made: Instant,
    used_for: Duration,
}

/// A secret of the fleet, of which the keys of all its rules are made.
#[derive(Clone, PartialEq, Eq)]
pub struct Shared {
    pub secret: [u8; SECRET],
    pub age: Duration,
}

/// A key as it is told to a successor.
#[derive(Serialize, Deserialize)]
pub struct Told {
    name: [u8; NAME],
    secret: [u8; SECRET],
    age_seconds: u64,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("age", &self.age).finish_non_exhaustive()
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").field("age_seconds", &self.age_seconds).finish_non_exhaustive()
    }
}

// === impl Tickets ===

impl Tickets {
    /// With a new key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new() -> Result<Arc<Self>, rustls::Error> {
        let current = Key::new(Instant::now()).ok_or(rustls::Error::FailedToGetRandomBytes)?;
        let keys = Keys { current: Arc::new(current), before: Vec::new() };
        Ok(Arc::new(Self { keys: ArcSwap::from_pointee(keys), turn: Mutex::default() }))
    }

    /// The keys, the one in use first.
    pub fn told(&self) -> Vec<Told> {
        let keys = self.keys.load();
        let told = |key: &Arc<Key>| Told {
            name: key.name,
            secret: key.secret,
            age_seconds: key.made.elapsed().as_secs(),
        };
        std::iter::once(&keys.current).chain(&keys.before).map(told).collect()
    }

    /// Goes on with a predecessor's keys.
    pub fn resume(&self, told: &[Told]) {
        let now = Instant::now();
        let mut keys = told.iter().filter_map(|told| {
            let made = now.checked_sub(Duration::from_secs(told.age_seconds)).unwrap_or(now);
            Key::of(told.name, told.secret, made).map(Arc::new)
        });
        if let Some(current) = keys.next() {
            self.keys.store(Arc::new(Keys { current, before: keys.take(MOST_BEFORE).collect() }));
        }
    }

    /// Goes on with keys that the hosts of the fleet make of these secrets, the latest first; `rules` tells those of one set of rules
    /// from others. What was sealed until now is still taken. Costs little where nothing has changed.
    pub fn share(&self, shared: &[Shared], rules: &[u8]) {
        let now = Instant::now();
        let mut made = shared.iter().filter(|shared| shared.age < TAKEN_FOR).filter_map(|shared| {
            let begun = now.checked_sub(shared.age)?;
            Some(Arc::new(Key { used_for: USED_FOR + GRACE, ..Key::of_fleet(&shared.secret, rules, begun)? }))
        });
        let Some(first) = made.next() else { return };
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.keys.load_full();
        if known.current.name == first.name {
            return;
        }
        // One that is too old to seal is still good to open.
        let (current, mut before) =
            if first.is_old(now) { (known.current.clone(), vec![first]) } else { (first, Vec::new()) };
        before.extend(made);
        before.extend(std::iter::once(&known.current).chain(&known.before).cloned());
        before.retain(|key| key.name != current.name && now.saturating_duration_since(key.made) < TAKEN_FOR);
        let mut names = HashSet::new();
        before.retain(|key| names.insert(key.name));
        before.truncate(MOST_BEFORE);
        self.keys.store(Arc::new(Keys { current, before }));
    }

    fn seal(&self, message: &[u8], now: Instant) -> Option<Vec<u8>> {
        self.renew(now);
        self.keys.load().current.seal(message)
    }

    fn open(&self, ticket: &[u8], now: Instant) -> Option<Vec<u8>> {
        let (name, sealed) = ticket.split_at_checked(NAME)?;
        let keys = self.keys.load();
        let key = std::iter::once(&keys.current).chain(&keys.before).find(|key| key.name == name)?;
        (now.saturating_duration_since(key.made) < TAKEN_FOR).then(|| key.open(sealed)).flatten()
    }

    /// Makes a new key if the one in use is old. Without randomness it is used on.
    fn renew(&self, now: Instant) {
        if !self.keys.load().current.is_old(now) {
            return;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = self.keys.load_full();
        if let (true, Some(key)) = (keys.current.is_old(now), Key::new(now)) {
            let before = std::iter::once(&keys.current).chain(&keys.before).take(MOST_BEFORE).cloned();
            self.keys.store(Arc::new(Keys { current: Arc::new(key), before: before.collect() }));
        }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(TAKEN_FOR.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, Instant::now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, Instant::now())
    }
}

// === impl Key ===

impl Key {
    fn new(now: Instant) -> Option<Self> {
        let (mut name, mut secret) = ([0; NAME], [0; SECRET]);
        rand::fill(&mut name).ok()?;
        rand::fill(&mut secret).ok()?;
        Self::of(name, secret, now)
    }

    fn of(name: [u8; NAME], secret: [u8; SECRET], made: Instant) -> Option<Self> {
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &secret).ok()?);
        Some(Self { name, secret, cipher, made, used_for: USED_FOR })
    }

    /// The same on all hosts: two parts of what HMAC makes of the fleet's secret and the rules' name.
    fn of_fleet(secret: &[u8; SECRET], rules: &[u8], made: Instant) -> Option<Self> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let part = |what: &str| hmac::sign(&key, &[what.as_bytes(), &[0], rules].concat());
        let name = part("ticket name").as_ref()[..NAME].try_into().ok()?;
        Self::of(name, part("ticket key").as_ref().try_into().ok()?, made)
    }

    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.made) >= self.used_for
    }

    /// Its name, a nonce that is drawn by lot (of which there are enough for six hours), and what is sealed.
    fn seal(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = message.to_vec();
        let named = Aad::from(self.name);
        self.cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), named, &mut sealed).ok()?;
        Some([&self.name[..], &nonce, &sealed].concat())
    }

    fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let length = self.cipher.open_in_place(nonce, Aad::from(self.name), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &[u8] = b"a session";

    #[test]
    fn a_ticket_is_good_for_half_a_day_and_what_was_touched_is_good_for_nothing() {
        let (tickets, begun) = (Tickets::new().unwrap(), Instant::now());
        let ticket = tickets.seal(SESSION, begun).unwrap();
        assert!(!ticket.windows(SESSION.len()).any(|part| part == SESSION));
        assert_ne!(tickets.seal(SESSION, begun).unwrap(), ticket);
        assert_eq!(tickets.open(&ticket, begun).as_deref(), Some(SESSION));
        for at in [0, NAME, NAME + NONCE_LEN, ticket.len() - 1] {
            let mut touched = ticket.clone();
            touched[at] ^= 1;
            assert_eq!(tickets.open(&touched, begun), None, "byte {at}");
        }
        assert_eq!(tickets.open(&ticket[..NAME + 3], begun), None);
        assert_eq!(Tickets::new().unwrap().open(&ticket, begun), None, "another host's");

        // The key is renewed when it is next used; what it has sealed is still taken, until it is too old.
        let later = begun + USED_FOR;
        let second = tickets.seal(SESSION, later).unwrap();
        assert_ne!(second[..NAME], ticket[..NAME]);
        for ticket in [&ticket, &second] {
            assert_eq!(tickets.open(ticket, later).as_deref(), Some(SESSION));
        }
        assert_eq!(tickets.open(&ticket, begun + TAKEN_FOR), None);
        let third = tickets.seal(SESSION, later + USED_FOR).unwrap();
        assert_eq!(tickets.open(&second, later + USED_FOR).as_deref(), Some(SESSION));
        assert_eq!(tickets.open(&third, later + USED_FOR).as_deref(), Some(SESSION));
    }

    #[test]
    fn hosts_of_a_fleet_take_each_others_tickets_and_those_of_before() {
        let [one, other] = [(); 2].map(|()| Tickets::new().unwrap());
        let now = Instant::now();
        let own = one.seal(SESSION, now).unwrap();
        let shared =
            |byte: u8, hours: u64| Shared { secret: [byte; SECRET], age: Duration::from_secs(hours * 3600) };
        for tickets in [&one, &other] {
            tickets.share(&[shared(1, 0)], b"https 0");
        }
        let first = one.seal(SESSION, now).unwrap();
        assert_eq!(other.open(&first, now).as_deref(), Some(SESSION));
        assert_eq!(one.open(&own, now).as_deref(), Some(SESSION), "its own from before");
        // Other rules have other keys.
        let stranger = Tickets::new().unwrap();
        stranger.share(&[shared(1, 0)], b"https 7");
        assert_eq!(stranger.open(&first, now), None);
        // The next secret comes, and what was sealed with the last one is still taken, also by who joins only now.
        let joins = Tickets::new().unwrap();
        for tickets in [&one, &joins] {
            tickets.share(&[shared(2, 0), shared(1, 6)], b"https 0");
        }
        let second = one.seal(SESSION, now).unwrap();
        assert_ne!(second[..NAME], first[..NAME]);
        for ticket in [&first, &second] {
            assert_eq!(joins.open(ticket, now).as_deref(), Some(SESSION));
        }
        // Nobody makes another: for a while it is used on, and then each host has its own again.
        let mean = now + USED_FOR + GRACE + Duration::from_secs(1);
        assert_eq!(one.seal(SESSION, mean - Duration::from_secs(2)).unwrap()[..NAME], second[..NAME]);
        assert_eq!(joins.open(&one.seal(SESSION, mean).unwrap(), mean), None);
        // One that is old already is only good to open; what is far too old isn't.
        let late = Tickets::new().unwrap();
        late.share(&[shared(2, 8)], b"https 0");
        assert_ne!(late.seal(SESSION, now).unwrap()[..NAME], second[..NAME]);
        assert_eq!(late.open(&second, now).as_deref(), Some(SESSION));
        let later = Tickets::new().unwrap();
        later.share(&[shared(2, 12)], b"https 0");
        assert_eq!(later.open(&second, now), None);
    }

    #[test]
    fn a_successor_takes_the_tickets_of_its_predecessor() {
        let (before, now) = (Tickets::new().unwrap(), Instant::now());
        let old = before.seal(SESSION, now).unwrap();
        before.keys.store(Arc::new(Keys {
            current: Arc::new(Key::new(now).unwrap()),
            before: vec![before.keys.load().current.clone()],
        }));
        let new = before.seal(SESSION, now).unwrap();
        let text = serde_json::to_string(&before.told()).unwrap();
        let after = Tickets::new().unwrap();
        after.resume(&serde_json::from_str::<Vec<Told>>(&text).unwrap());
        for ticket in [&old, &new] {
            assert_eq!(after.open(ticket, now).as_deref(), Some(SESSION));
        }
        assert_eq!(after.seal(SESSION, now).unwrap()[..NAME], new[..NAME]);
        after.resume(&[]);
        assert_eq!(after.open(&new, now).as_deref(), Some(SESSION), "nothing was told");
    }
}
