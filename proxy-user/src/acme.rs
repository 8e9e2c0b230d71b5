//! Certificates that Weir orders by itself from an ACME authority (RFC 8555), by HTTP-01 or TLS-ALPN-01.
//!
//! One task does it all, one order after the other ([`keeper`]): it waits until a name is due ([`schedule`]), orders
//! ([`order`]), writes the certificate to the state folder ([`store`]) and pins it to the [`Board`], where handshakes find
//! it. Challenges hang there too while an order is under way. Workers only look at the board; none waits for a lock that
//! is held for longer than a map takes. The hosts of a fleet that holds keys order together instead (`together`).

pub mod client;
pub mod keeper;
pub mod order;
pub mod schedule;
pub mod store;
#[cfg(feature = "etcd")]
pub mod together;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ServerConfig;

use crate::tls::{
    certificates::Certificate,
    names::{Choice, Shown},
    report,
    shelf::Shelf,
};

/// The protocol of TLS-ALPN-01 (RFC 8737).
pub const ALPN: &[u8] = b"acme-tls/1";

/// Where HTTP-01 looks (RFC 8555, section 8.3).
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// What workers and the status see of it.
#[derive(Debug, Default)]
pub struct Board {
    /// What isn't ordered, and is no configuration either.
    pub shelf: Shelf,
    certificates: ArcSwap<HashMap<Arc<str>, Kept>>,
    /// How many challenges hang here: mostly none, and then nobody looks further.
    waiting: AtomicUsize,
    challenges: Mutex<Challenges>,
    standing: Mutex<BTreeMap<Arc<str>, Standing>>,
}

#[derive(Debug, Clone)]
struct Kept {
    certificate: Arc<Certificate>,
    choice: Choice,
}

#[derive(Debug, Default)]
struct Challenges {
    /// By token.
    http: HashMap<String, String>,
    /// By name.
    alpn: HashMap<String, Arc<ServerConfig>>,
}

/// How it stands with a name.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Why the last order failed.
    pub error: Option<String>,
    /// When the next order is due.
    pub next: Option<Timestamp>,
}

/// A challenge that hangs on the board until this is dropped.
#[derive(Debug)]
pub struct Hanging {
    board: Arc<Board>,
    what: What,
}

#[derive(Debug)]
enum What {
    Http(String),
    Alpn(String),
}

// === impl Board ===

impl Board {
    /// The certificate for a name, as it is shown.
    pub fn choice(&self, name: &str) -> Option<Choice> {
        self.certificates.load().get(name).map(|kept| kept.choice.clone())
    }

    pub fn certificate(&self, name: &str) -> Option<Arc<Certificate>> {
        self.certificates.load().get(name).map(|kept| kept.certificate.clone())
    }

    /// From the next handshake on, `name` is shown this.
    pub fn pin(&self, name: &Arc<str>, certificate: Certificate) {
        let choice: Choice = [Shown::new(&certificate)].into();
        let kept = Kept { certificate: Arc::new(certificate), choice };
        self.certificates.rcu(|known| {
            let mut certificates = HashMap::clone(known);
            certificates.insert(name.clone(), kept.clone());
            certificates
        });
    }

    /// What isn't kept current any more isn't shown any more.
    pub fn keep_only(&self, names: &[Arc<str>]) {
        self.certificates.rcu(|known| {
            let mut certificates = HashMap::clone(known);
            certificates.retain(|name, _| names.contains(name));
            certificates
        });
        lock(&self.standing).retain(|name, _| names.contains(name));
    }

    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// The answer to a request of the authority's, if it is one.
    pub fn answer(&self, path: &str) -> Option<String> {
        if !self.is_waiting() {
            return None;
        }
        lock(&self.challenges).http.get(path.strip_prefix(WELL_KNOWN)?).cloned()
    }

    /// With what the authority is answered that asks for `name` by TLS-ALPN-01.
    pub fn challenge_config(&self, name: &str) -> Option<Arc<ServerConfig>> {
        lock(&self.challenges).alpn.get(name).cloned()
    }

    pub fn hang_http(self: &Arc<Self>, token: &str, answer: &str) -> Hanging {
        lock(&self.challenges).http.insert(token.to_owned(), answer.to_owned());
        self.hanging(What::Http(token.to_owned()))
    }

    pub fn hang_alpn(self: &Arc<Self>, name: &str, config: Arc<ServerConfig>) -> Hanging {
        lock(&self.challenges).alpn.insert(name.to_owned(), config);
        self.hanging(What::Alpn(name.to_owned()))
    }

    fn hanging(self: &Arc<Self>, what: What) -> Hanging {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Hanging { board: self.clone(), what }
    }

    pub fn stands(&self, name: &Arc<str>, standing: Standing) {
        lock(&self.standing).insert(name.clone(), standing);
    }

    pub fn standing(&self, name: &str) -> Standing {
        lock(&self.standing).get(name).cloned().unwrap_or_default()
    }

    /// What is to be said before it hurts.
    pub fn sentences(&self, now: SystemTime) -> Vec<String> {
        let failed = lock(&self.standing)
            .iter()
            .filter_map(|(name, standing)| {
                Some(format!("the certificate for `{name}` can't be ordered: {}", standing.error.as_ref()?))
            })
            .collect::<Vec<_>>();
        let certificates = self.certificates.load();
        let mut ageing: Vec<_> = certificates
            .values()
            // It is renewed long before: one that comes this near to its end has troubles.
            .filter_map(|kept| report::validity(&kept.certificate, Duration::from_secs(7 * 24 * 3600), now))
            .collect();
        ageing.sort();
        failed.into_iter().chain(ageing).collect()
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let mut challenges = lock(&self.board.challenges);
        match &self.what {
            What::Http(token) => drop(challenges.http.remove(token)),
            What::Alpn(name) => drop(challenges.alpn.remove(name)),
        }
        drop(challenges);
        self.board.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_answered_as_long_as_it_hangs() {
        let board = Arc::new(Board::default());
        let path = "/.well-known/acme-challenge/token";
        assert_eq!(board.answer(path), None);
        let hanging = board.hang_http("token", "token.thumb");
        assert_eq!(board.answer(path).as_deref(), Some("token.thumb"));
        for other in ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/token2", "/token", "/"] {
            assert_eq!(board.answer(other), None, "{other}");
        }
        drop(hanging);
        assert_eq!(board.answer(path), None);
        assert!(!board.is_waiting());
    }
}
