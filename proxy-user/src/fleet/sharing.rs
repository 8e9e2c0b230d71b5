//! What stands sealed in the fleet's store, as this host knows it: certificates from operators go to the shelf where handshakes look,
//! challenges of whoever orders one go to the board, and what is ordered together is [`crate::acme::together`]'s.
//!
//! A [`mirror`](super::mirror) follows the store. What can't be opened or read takes nothing away: what it was before stays in use,
//! and why is said where other certificates are complained of.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::seal::FleetKeys;
use crate::{
    acme::{Board, Hanging, order::Challenge},
    config::model::{Config, ProviderSource},
    state_file,
    store::{
        address::StoreAddress,
        layout::{CERTIFICATES, CHALLENGES_ALPN, CHALLENGES_HTTP},
    },
    tls::certificates::{self, Certificate, Certificates},
};

/// A host that has never heard of its store waits so long for its certificates before it serves.
const FIRST: Duration = Duration::from_secs(2);

/// The layout of what is kept on disk.
pub const KEPT_VERSION: u32 = 1;

/// Sealed values, by their keys below the store's prefix.
pub type Entries = BTreeMap<String, Arc<str>>;

/// What is known of the store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    pub entries: Entries,
    /// Whether the store itself has said so since the daemon began.
    pub heard: bool,
    /// Why the store can't be asked.
    pub away: Option<String>,
}

/// What it takes to have a part in what hosts share.
#[derive(Debug, Clone)]
pub struct Shared {
    pub address: StoreAddress,
    pub keys: Arc<FleetKeys>,
    /// What this host is called.
    pub host: Arc<str>,
    /// The provider whose store it is.
    pub provider: Arc<str>,
    /// Where is kept what was known.
    pub kept: PathBuf,
    pub known: watch::Receiver<Known>,
}

/// The part of the control side that keeps this going.
#[derive(Debug)]
pub struct Sharing {
    board: Arc<Board>,
    at_work: Option<AtWork>,
}

#[derive(Debug)]
struct AtWork {
    shared: Shared,
    task: JoinHandle<()>,
}

/// Puts what came where it is looked for.
pub struct Taker {
    board: Arc<Board>,
    keys: Arc<FleetKeys>,
    address: StoreAddress,
    provider: Arc<str>,
    /// Certificates as they were read last, with what they were read from.
    read: BTreeMap<String, (Arc<str>, Certificate)>,
    /// What the entries on the shelf were.
    shelved: Option<Entries>,
    hanging: HashMap<String, Hanging>,
}

/// As it is kept on disk.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    pub version: u32,
    /// Values are bound to it.
    pub prefix: String,
    pub entries: BTreeMap<String, String>,
}

// === impl Sharing ===

impl Sharing {
    pub fn new(board: Arc<Board>) -> Self {
        Self { board, at_work: None }
    }

    /// Follows the store that `config` names, if it holds the keys and wants anything of it. What was kept of it is in use when
    /// this returns.
    pub fn follow(&mut self, config: &Config) -> Option<Shared> {
        let Some(wanted) = wanted(config) else {
            self.at_work = None;
            self.board.shelf.put(Certificates::default());
            return None;
        };
        let same = |at_work: &&AtWork| at_work.shared.same_as(&wanted);
        if let Some(at_work) = self.at_work.as_ref().filter(same) {
            return Some(at_work.shared.clone());
        }
        self.at_work = None;
        let entries = remembered(&wanted);
        let mut taker = Taker::new(self.board.clone(), &wanted);
        taker.take(&entries);
        let (tell, known) = watch::channel(Known { entries, ..Known::default() });
        let shared = Shared { known, ..wanted };
        let task = tokio::spawn(follow_store(shared.clone(), taker, tell));
        self.at_work = Some(AtWork { shared: shared.clone(), task });
        Some(shared)
    }

    /// Until something is there to show; not for long, and not at all where something was kept.
    pub async fn first_word(&self) {
        let Some(at_work) = &self.at_work else { return };
        let mut known = at_work.shared.known.clone();
        let something = |known: &Known| known.heard || !known.entries.is_empty();
        if timeout(FIRST, known.wait_for(something)).await.is_err() {
            tracing::warn!(
                "the fleet's store has not answered yet, and no certificate of it was kept: they come when it does"
            );
        }
    }

    /// Ends it; what hangs and lies where it was put stays there.
    pub fn end(&mut self) {
        self.at_work = None;
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// Whether both would do the same.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        let Self { address, keys, host, provider, kept, known: _ } = self;
        *address == other.address
            && *keys == other.keys
            && *host == other.host
            && *provider == other.provider
            && *kept == other.kept
    }

    /// Opens what stands under a key.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn open(&self, key: &str, sealed: &str) -> Result<Vec<u8>, String> {
        open(&self.keys, &self.address, key, sealed)
    }
}

fn open(keys: &FleetKeys, address: &StoreAddress, key: &str, sealed: &str) -> Result<Vec<u8>, String> {
    let path = address.key(key);
    keys.open(&path, sealed.as_bytes()).map_err(|fault| format!("`{path}` in the fleet's store {fault}"))
}

/// What is wanted of which store; `None`: nothing.
fn wanted(config: &Config) -> Option<Shared> {
    let fleet = config.fleet.as_ref()?;
    let keys = fleet.keys.clone()?;
    let mut entrypoints = config.entrypoints.iter().filter_map(|entrypoint| entrypoint.tls.as_ref());
    if !entrypoints.any(|tls| tls.store || !tls.acme.is_empty()) {
        return None;
    }
    let provider = config.providers.iter().find(|provider| provider.name == fleet.store)?;
    let ProviderSource::Etcd(etcd) = &provider.source else { return None };
    Some(Shared {
        address: etcd.address.clone(),
        keys,
        host: fleet.host.clone(),
        provider: provider.name.clone(),
        kept: config.state.dir.join("fleet").join("sealed.json"),
        known: watch::channel(Known::default()).1,
    })
}

/// What an earlier daemon knew.
fn remembered(shared: &Shared) -> Entries {
    match state_file::read(&shared.kept, KEPT_VERSION, |kept: &Kept| kept.version) {
        Ok(Some(kept)) if kept.prefix == shared.address.prefix => {
            kept.entries.into_iter().map(|(key, sealed)| (key, sealed.into())).collect()
        }
        Ok(_) => Entries::new(),
        Err(why) => {
            let aside = state_file::set_aside(&shared.kept);
            tracing::error!("{why}: the certificates of the fleet are read from its store anew; {aside}");
            Entries::new()
        }
    }
}

#[cfg(feature = "etcd")]
async fn follow_store(shared: Shared, taker: Taker, tell: watch::Sender<Known>) {
    super::mirror::Mirror { shared, taker, tell }.run().await;
}

/// Without etcd no configuration has a fleet.
#[cfg(not(feature = "etcd"))]
async fn follow_store(_: Shared, _: Taker, tell: watch::Sender<Known>) {
    tell.closed().await;
}

// === impl Taker ===

impl Taker {
    fn new(board: Arc<Board>, shared: &Shared) -> Self {
        Self {
            board,
            keys: shared.keys.clone(),
            address: shared.address.clone(),
            provider: shared.provider.clone(),
            read: BTreeMap::new(),
            shelved: None,
            hanging: HashMap::new(),
        }
    }

    /// From now on this is what there is.
    pub fn take(&mut self, entries: &Entries) {
        let below = |prefix: &str| {
            let these = entries.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
            these.map(|(key, sealed)| (key.clone(), sealed.clone())).collect::<Entries>()
        };
        let certificates = below(CERTIFICATES);
        if self.shelved.as_ref() != Some(&certificates) {
            self.shelve(&certificates);
            self.shelved = Some(certificates);
        }
        self.hanging.retain(|key, _| entries.contains_key(key));
        for (key, sealed) in below(CHALLENGES_HTTP).into_iter().chain(below(CHALLENGES_ALPN)) {
            if self.hanging.contains_key(&key) {
                continue;
            }
            match self.hang(&key, &sealed) {
                Ok(hanging) => _ = self.hanging.insert(key, hanging),
                Err(why) => {
                    tracing::warn!("this host can't answer for another that orders a certificate: {why}");
                }
            }
        }
    }

    fn shelve(&mut self, entries: &Entries) {
        let mut shelf = Certificates::default();
        let mut read = BTreeMap::new();
        for (key, sealed) in entries {
            let before = self.read.remove(key).or_else(|| self.on_the_shelf(key));
            let outcome = match &before {
                Some((same, certificate)) if same == sealed => Ok(certificate.clone()),
                _ => self.certificate(key, sealed),
            };
            match (outcome, before) {
                (Ok(certificate), _) => {
                    shelf.entries.push(certificate.clone());
                    read.insert(key.clone(), (sealed.clone(), certificate));
                }
                (Err(why), Some((known, certificate))) => {
                    shelf.entries.push(Certificate { stale: Some(why), ..certificate.clone() });
                    read.insert(key.clone(), (known, certificate));
                }
                (Err(why), None) => shelf.left_out.push(why),
            }
        }
        let default = self.file(&format!("{CERTIFICATES}default"));
        shelf.default_first(|entry| entry.file == default);
        if !(entries.is_empty() && self.shelved.is_none()) {
            tracing::info!(
                certificates = shelf.entries.len(),
                unusable = shelf.left_out.len(),
                "the certificates of the fleet's store are in use"
            );
        }
        self.read = read;
        self.board.shelf.put(shelf);
    }

    /// With other keys than before it begins anew, but what is shown stays.
    fn on_the_shelf(&self, key: &str) -> Option<(Arc<str>, Certificate)> {
        let (held, file) = (self.board.shelf.held(), self.file(key));
        let known = held.certificates.entries.iter().find(|entry| entry.file == file)?;
        Some(("".into(), Certificate { stale: None, ..known.clone() }))
    }

    /// What it is called where files have their paths.
    fn file(&self, key: &str) -> PathBuf {
        PathBuf::from(format!("{}:{key}", self.provider))
    }

    fn certificate(&self, key: &str, sealed: &str) -> Result<Certificate, String> {
        let text = open(&self.keys, &self.address, key, sealed)?;
        certificates::from_text(&self.file(key), &text).map_err(|fault| fault.sentence)
    }

    fn hang(&self, key: &str, sealed: &str) -> Result<Hanging, String> {
        let opened = open(&self.keys, &self.address, key, sealed)?;
        let unusable = || format!("`{key}` in the fleet's store is no challenge");
        let text = String::from_utf8(opened).map_err(|_| unusable())?;
        if let Some(token) = key.strip_prefix(CHALLENGES_HTTP) {
            return Challenge::Http { token, answer: &text }.hang_on(&self.board);
        }
        let name = key.strip_prefix(CHALLENGES_ALPN).ok_or_else(unusable)?;
        let digest = BASE64_STANDARD.decode(text).map_err(|_| unusable())?;
        Challenge::Alpn { name, digest: &digest }.hang_on(&self.board)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::fleet::seal;

    /// A host that holds a key of its own.
    pub fn shared(state: &std::path::Path) -> Shared {
        let keys = FleetKeys::parse(&seal::new_key().unwrap()).unwrap();
        Shared {
            address: StoreAddress {
                endpoints: vec!["127.0.0.1:1".into()],
                prefix: "/weir/".into(),
                tls: None,
                login: None,
            },
            keys: Arc::new(keys),
            host: "edge-1".into(),
            provider: "store".into(),
            kept: state.join("sealed.json"),
            known: watch::channel(Known::default()).1,
        }
    }

    pub fn text(name: &str) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        format!("{}{}", own.pem(), key.serialize_pem()).into_bytes()
    }

    pub fn sealed(shared: &Shared, key: &str, plain: &[u8]) -> Arc<str> {
        String::from_utf8(shared.keys.seal(&shared.address.key(key), plain).unwrap()).unwrap().into()
    }

    #[test]
    fn what_cant_be_opened_takes_nothing_away() {
        let folder = tempfile::tempdir().unwrap();
        let (shared, board) = (shared(folder.path()), Arc::new(Board::default()));
        let mut taker = Taker::new(board.clone(), &shared);
        let (a, b) = ("certificates/a", "certificates/default");
        let mut entries: Entries =
            [a, b].map(|key| (key.to_owned(), sealed(&shared, key, &text(key)))).into();
        taker.take(&entries);
        let files = |stale: bool| {
            let held = board.shelf.held();
            let these = held.certificates.entries.iter().filter(|entry| entry.stale.is_some() == stale);
            these.map(|entry| entry.file.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            files(false),
            ["store:certificates/default", "store:certificates/a"],
            "the default comes first"
        );

        // Moved under another key, half written, and one that was never good.
        let moved = entries[a].clone();
        entries.insert(b.into(), moved);
        entries.insert("certificates/c".into(), sealed(&shared, "certificates/c", b"nonsense"));
        taker.take(&entries);
        assert_eq!(
            (files(false), files(true)),
            (vec!["store:certificates/a".into()], vec!["store:certificates/default".into()])
        );
        let left_out = board.shelf.held().certificates.left_out.clone();
        assert!(left_out[0].contains("`store:certificates/c` holds no certificate"), "{left_out:?}");
        let other = self::shared(folder.path());
        Taker::new(board.clone(), &other).take(&entries);
        assert_eq!(files(true).len(), 2, "the key file was exchanged for another");
        entries.insert(b.into(), sealed(&shared, b, &text("new")));
        entries.remove(a);
        taker.take(&entries);
        assert_eq!((files(false), files(true).len()), (vec!["store:certificates/default".into()], 0));
    }

    #[test]
    fn challenges_hang_as_long_as_they_are_in_the_store_and_only_if_they_are_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let (shared, board) = (shared(folder.path()), Arc::new(Board::default()));
        let mut taker = Taker::new(board.clone(), &shared);
        let (http, alpn) = ("acme/challenges/http/token", "acme/challenges/alpn/a.example");
        let answer = || board.answer("/.well-known/acme-challenge/token");
        taker.take(&[(http.to_owned(), "token.of-a-stranger".into())].into());
        assert_eq!(answer(), None, "whoever may write to the store can't get certificates by that");
        let entries: Entries = [
            (http.to_owned(), sealed(&shared, http, b"token.thumb")),
            (alpn.to_owned(), sealed(&shared, alpn, BASE64_STANDARD.encode([7; 32]).as_bytes())),
        ]
        .into();
        taker.take(&entries);
        assert_eq!(answer().as_deref(), Some("token.thumb"));
        assert!(board.challenge_config("a.example").is_some());
        taker.take(&Entries::new());
        assert!(answer().is_none() && board.challenge_config("a.example").is_none() && !board.is_waiting());
    }

    #[test]
    fn what_was_kept_is_used_for_the_same_store_alone() {
        let folder = tempfile::tempdir().unwrap();
        let shared = shared(folder.path());
        let entries: Entries = [("certificates/a".to_owned(), "weir-seal:1:…".into())].into();
        let kept = |prefix: &str| {
            let kept = Kept {
                version: KEPT_VERSION,
                prefix: prefix.into(),
                entries: entries.iter().map(|(key, sealed)| (key.clone(), sealed.to_string())).collect(),
            };
            std::fs::write(&shared.kept, serde_json::to_vec(&kept).unwrap()).unwrap();
            remembered(&shared)
        };
        assert_eq!(kept("/weir/"), entries);
        assert_eq!(kept("/other/"), Entries::new());
        std::fs::write(&shared.kept, "half").unwrap();
        assert_eq!(remembered(&shared), Entries::new());
        assert!(folder.path().join("sealed.json.damaged").exists());
    }
}
