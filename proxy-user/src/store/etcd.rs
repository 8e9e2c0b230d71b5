//! One connection to one endpoint of etcd.
//!
//! A fault ends a session, whatever it is: the one who uses it opens the next, at the next endpoint, and reads anew what it
//! had read. etcd doesn't go on with a watch over a reconnect, and a watch from a revision that was compacted never begins;
//! so nothing is resumed here, and there is one way to begin.

use std::{future::Future, path::Path, time::Duration};

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, EventType, GetOptions, Identity, KeyValue,
    LeaseKeepAliveStream, LeaseKeeper, PutOptions, SortOrder, SortTarget, TlsOptions, Txn, TxnOp,
    WatchOptions, WatchStream,
};
use tokio::time::timeout;

use super::address::{StoreAddress, StoreTls};

/// An endpoint that doesn't take a connection within this is away.
const CONNECT: Duration = Duration::from_secs(2);

/// Nor one that doesn't answer within this.
const ANSWER: Duration = Duration::from_secs(5);

/// A silent connection is asked so often whether it is still there. etcd ends those that ask more often than every 5 s.
const PING: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(3));

/// Why a session ended, or never began.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// Nobody answers there, or not any more.
    #[error("{endpoint} is away: {why}")]
    Away { endpoint: String, why: String },
    /// It answers, and says no: other endpoints of the same store would too.
    #[error("{endpoint} refuses: {why}")]
    Refused { endpoint: String, why: String },
    /// What is needed to speak to it can't be read here.
    #[error("{0}")]
    Unusable(String),
    /// The watch has missed something: all is to be read again.
    #[error("{endpoint} has forgotten what came since (compaction)")]
    Missed { endpoint: String },
}

/// A connection on which something has been answered already.
#[derive(Clone)]
pub struct Session {
    client: Client,
    endpoint: String,
    prefix: String,
}

/// A value, and the revision in which it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub bytes: Vec<u8>,
    pub revision: i64,
    /// The lease that it goes with; 0: it stays.
    pub lease: i64,
}

/// What was read, and the revision of the whole store at which it was: what a watch goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    pub found: T,
    pub at: i64,
}

/// So many of the keys that begin alike, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Without their common prefix.
    pub found: Vec<(String, Stored)>,
    /// There are more of them.
    pub more: bool,
    /// The revision of the whole store, and which store it is: one that was set up anew may count from the beginning.
    pub at: i64,
    pub cluster: u64,
}

/// A change of a key; `None`: it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub key: String,
    pub value: Option<Stored>,
}

/// Tells of changes, from a revision on.
pub struct Watch {
    stream: WatchStream,
    session: Session,
}

/// Keys that were put under it vanish when nobody keeps it up.
pub struct Lease {
    pub id: i64,
    keeper: LeaseKeeper,
    stream: LeaseKeepAliveStream,
    session: Session,
}

impl Session {
    /// Opens one at the first endpoint that answers, beginning with the `nth` (in a circle).
    ///
    /// # Errors
    /// The last endpoint's, when none does.
    pub async fn open(address: &StoreAddress, nth: usize) -> Result<Self, StoreFault> {
        let mut fault = StoreFault::Unusable("the store has no endpoint".to_owned());
        let all = address.endpoints.len();
        for endpoint in address.endpoints.iter().cycle().skip(nth % all.max(1)).take(all) {
            match Self::open_at(address, endpoint).await {
                Ok(session) => return Ok(session),
                Err(StoreFault::Unusable(why)) => return Err(StoreFault::Unusable(why)),
                Err(other) => fault = other,
            }
        }
        Err(fault)
    }

    /// Opens one at this endpoint.
    ///
    /// # Errors
    /// When it doesn't answer, or refuses.
    pub async fn open_at(address: &StoreAddress, endpoint: &str) -> Result<Self, StoreFault> {
        let options = options(address).map_err(StoreFault::Unusable)?;
        let kind = if address.tls.is_some() { "https" } else { "http" };
        let url = format!("{kind}://{endpoint}");
        let away = |why: String| StoreFault::Away { endpoint: endpoint.to_owned(), why };
        let client = match timeout(ANSWER, Client::connect([url], Some(options))).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(judge(endpoint, &error)),
            Err(_) => return Err(away(format!("no answer within {} s", ANSWER.as_secs()))),
        };
        let session = Self { client, endpoint: endpoint.to_owned(), prefix: address.prefix.clone() };
        // A connection is only made when something is asked.
        session.get(super::layout::CURRENT).await?;
        Ok(session)
    }

    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The value of one key.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn get(&self, key: &str) -> Result<Read<Option<Stored>>, StoreFault> {
        let key = self.key(key);
        let answer = self.within(self.client().get(key, None)).await?;
        let at = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        let found = answer.kvs().first().map(Stored::of);
        Ok(Read { found, at })
    }

    /// All keys that begin with `below`, without their common prefix, by name.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn list(&self, below: &str) -> Result<Read<Vec<(String, Stored)>>, StoreFault> {
        let key = self.key(below);
        let begins = key.len();
        let options = GetOptions::new().with_prefix().with_sort(SortTarget::Key, SortOrder::Ascend);
        let answer = self.within(self.client().get(key, Some(options))).await?;
        let at = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        let found = answer
            .kvs()
            .iter()
            .filter_map(|found| {
                let name = std::str::from_utf8(found.key().get(begins..)?).ok()?.to_owned();
                Some((name, Stored::of(found)))
            })
            .collect();
        Ok(Read { found, at })
    }

    /// The first `most` of the keys that begin with `below`.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn page(&self, below: &str, most: i64) -> Result<Page, StoreFault> {
        let key = self.key(below);
        let begins = key.len();
        let options = GetOptions::new().with_prefix().with_limit(most);
        let answer = self.within(self.client().get(key, Some(options))).await?;
        let header = answer.header();
        let found = answer.kvs().iter().filter_map(|found| {
            let name = std::str::from_utf8(found.key().get(begins..)?).ok()?.to_owned();
            Some((name, Stored::of(found)))
        });
        Ok(Page {
            found: found.collect(),
            more: answer.more(),
            at: header.map_or(0, etcd_client::ResponseHeader::revision),
            cluster: header.map_or(0, etcd_client::ResponseHeader::cluster_id),
        })
    }

    /// The names alone of all keys that begin with `below`, without their common prefix, in order.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn names(&self, below: &str) -> Result<Vec<String>, StoreFault> {
        let key = self.key(below);
        let begins = key.len();
        let options = GetOptions::new().with_prefix().with_keys_only();
        let answer = self.within(self.client().get(key, Some(options))).await?;
        let name = |key: &[u8]| std::str::from_utf8(key.get(begins..)?).ok().map(str::to_owned);
        Ok(answer.kvs().iter().filter_map(|found| name(found.key())).collect())
    }

    /// Writes `puts`, all or none: only if each key of `unchanged` was last written in that revision (0: never). Whether it did.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn swap(
        &self,
        unchanged: &[(&str, i64)],
        puts: &[(&str, Vec<u8>)],
    ) -> Result<bool, StoreFault> {
        let compares: Vec<_> = unchanged
            .iter()
            .map(|(key, revision)| Compare::mod_revision(self.key(key), CompareOp::Equal, *revision))
            .collect();
        let puts: Vec<_> =
            puts.iter().map(|(key, bytes)| TxnOp::put(self.key(key), bytes.clone(), None)).collect();
        let transaction = Txn::new().when(compares).and_then(puts);
        let answer = self.within(self.client().txn(transaction)).await?;
        Ok(answer.succeeded())
    }

    /// How many keys begin with `below`.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn count(&self, below: &str) -> Result<usize, StoreFault> {
        let options = GetOptions::new().with_prefix().with_count_only();
        let answer = self.within(self.client().get(self.key(below), Some(options))).await?;
        Ok(usize::try_from(answer.count()).unwrap_or(0))
    }

    /// Writes all of these at once; what has a lease goes with it.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn write(&self, puts: &[(&str, Vec<u8>, Option<i64>)]) -> Result<(), StoreFault> {
        let put = |(key, bytes, lease): &(&str, Vec<u8>, Option<i64>)| {
            let options = lease.map(|id| PutOptions::new().with_lease(id));
            TxnOp::put(self.key(key), bytes.clone(), options)
        };
        let transaction = Txn::new().and_then(puts.iter().map(put).collect::<Vec<_>>());
        self.within(self.client().txn(transaction)).await.map(drop)
    }

    /// Writes a key; under a lease, it goes with it.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn put(&self, key: &str, bytes: Vec<u8>, lease: Option<i64>) -> Result<(), StoreFault> {
        let key = self.key(key);
        let options = lease.map(|id| PutOptions::new().with_lease(id));
        self.within(self.client().put(key, bytes, options)).await.map(drop)
    }

    /// Likewise, but only if the key was last written in the revision `unchanged` (0: never). Whether it did.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn put_if(
        &self,
        key: &str,
        bytes: Vec<u8>,
        lease: Option<i64>,
        unchanged: i64,
    ) -> Result<bool, StoreFault> {
        let key = self.key(key);
        let options = lease.map(|id| PutOptions::new().with_lease(id));
        let transaction = Txn::new()
            .when([Compare::mod_revision(key.clone(), CompareOp::Equal, unchanged)])
            .and_then([TxnOp::put(key, bytes, options)]);
        let answer = self.within(self.client().txn(transaction)).await?;
        Ok(answer.succeeded())
    }

    /// A lease that nobody keeps: what is put under it goes after this many seconds. Its number.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn term(&self, seconds: i64) -> Result<i64, StoreFault> {
        self.within(self.client().lease_grant(seconds, None)).await.map(|granted| granted.id())
    }

    /// Changes after the revision `from`: of one key, or with `below` of all that begin so.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn watch(&self, key: &str, below: bool, from: i64) -> Result<Watch, StoreFault> {
        let options = WatchOptions::new().with_start_revision(from + 1);
        let options = if below { options.with_prefix() } else { options };
        let key = self.key(key);
        let stream = self.within(self.client().watch(key, Some(options))).await?;
        Ok(Watch { stream, session: self.clone() })
    }

    /// Takes a lease of this many seconds.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn lease(&self, seconds: i64) -> Result<Lease, StoreFault> {
        let granted = self.within(self.client().lease_grant(seconds, None)).await?;
        let id = granted.id();
        let (keeper, stream) = self.within(self.client().lease_keep_alive(id)).await?;
        Ok(Lease { id, keeper, stream, session: self.clone() })
    }

    /// Ends a lease, and with it what was put under it.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn revoke(&self, lease: i64) -> Result<(), StoreFault> {
        self.within(self.client().lease_revoke(lease)).await.map(drop)
    }

    /// Takes a key that isn't there, under a lease. The revision in which that happened; `None`: it is there.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn claim(&self, key: &str, bytes: Vec<u8>, lease: i64) -> Result<Option<i64>, StoreFault> {
        let key = self.key(key);
        let put = TxnOp::put(key.clone(), bytes, Some(PutOptions::new().with_lease(lease)));
        let transaction = Txn::new().when([Compare::mod_revision(key, CompareOp::Equal, 0)]).and_then([put]);
        let answer = self.within(self.client().txn(transaction)).await?;
        let at = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        Ok(answer.succeeded().then_some(at))
    }

    /// Takes a key away. Whether it was there.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn remove(&self, key: &str) -> Result<bool, StoreFault> {
        let key = self.key(key);
        let answer = self.within(self.client().delete(key, None)).await?;
        Ok(answer.deleted() > 0)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Cheap: the handle of a connection.
    fn client(&self) -> Client {
        self.client.clone()
    }

    /// One request, with an end to its patience.
    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, StoreFault> {
        match timeout(ANSWER, work).await {
            Ok(outcome) => outcome.map_err(|error| judge(&self.endpoint, &error)),
            Err(_) => Err(self.away(&format!("no answer within {} s", ANSWER.as_secs()))),
        }
    }

    fn away(&self, why: &str) -> StoreFault {
        StoreFault::Away { endpoint: self.endpoint.clone(), why: why.to_owned() }
    }
}

impl Stored {
    fn of(found: &KeyValue) -> Self {
        Self { bytes: found.value().to_vec(), revision: found.mod_revision(), lease: found.lease() }
    }
}

impl Watch {
    /// Waits for the next changes, in their order. Safe to cancel.
    ///
    /// # Errors
    /// When the session is over, or something was missed.
    pub async fn next(&mut self) -> Result<Vec<Changed>, StoreFault> {
        loop {
            let message =
                self.stream.message().await.map_err(|error| judge(&self.session.endpoint, &error))?;
            let Some(message) = message else {
                return Err(self.session.away("it ended the watch"));
            };
            if message.compact_revision() != 0 {
                return Err(StoreFault::Missed { endpoint: self.session.endpoint.clone() });
            }
            if message.canceled() {
                return Err(self.session.away(&format!("it ended the watch: {}", message.cancel_reason())));
            }
            let begins = self.session.prefix.len();
            let changed: Vec<_> = message
                .events()
                .iter()
                .filter_map(|event| {
                    let about = event.kv()?;
                    let key = std::str::from_utf8(about.key().get(begins..)?).ok()?.to_owned();
                    let value = (event.event_type() == EventType::Put).then(|| Stored::of(about));
                    Some(Changed { key, value })
                })
                .collect();
            // Word that the watch has begun, and that it is still there, holds none.
            if !changed.is_empty() {
                return Ok(changed);
            }
        }
    }
}

impl Lease {
    /// Keeps it for another term.
    ///
    /// # Errors
    /// When the session or the lease is over.
    pub async fn keep(&mut self) -> Result<(), StoreFault> {
        let work = async {
            self.keeper.keep_alive().await?;
            self.stream.message().await
        };
        match self.session.within(work).await? {
            Some(kept) if kept.ttl() > 0 => Ok(()),
            _ => Err(self.session.away("the lease is over")),
        }
    }
}

fn options(address: &StoreAddress) -> Result<ConnectOptions, String> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CONNECT)
        .with_keep_alive(PING.0, PING.1)
        .with_keep_alive_while_idle(true)
        // A member that is cut off from the others ends our watch, rather than to be silent.
        .with_require_leader(true);
    if let Some(tls) = &address.tls {
        options = options.with_tls(tls_options(tls)?);
    }
    if let Some(login) = &address.login {
        let file = login.password_file.as_deref().ok_or_else(|| {
            format!("the store's user `{}` has no password: name its file with password_file", login.user)
        })?;
        let password = text(file)?;
        options = options.with_user(login.user.clone(), password.trim_end_matches(['\r', '\n']));
    }
    Ok(options)
}

fn tls_options(tls: &StoreTls) -> Result<TlsOptions, String> {
    let mut options = match &tls.ca {
        Some(ca) => TlsOptions::new().ca_certificate(Certificate::from_pem(text(ca)?)),
        None => TlsOptions::new().with_native_roots(),
    };
    if let Some((certificate, key)) = &tls.certificate {
        options = options.identity(Identity::from_pem(text(certificate)?, text(key)?));
    }
    Ok(options)
}

fn text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{} can't be read: {error}", path.display()))
}

/// gRPC's numbers for "you may not", whoever is asked: invalid argument (a wrong password), permission denied,
/// failed precondition (authentication is off), unauthenticated.
const REFUSALS: [i32; 4] = [3, 7, 9, 16];

/// Whether it says no, or says nothing.
fn judge(endpoint: &str, error: &etcd_client::Error) -> StoreFault {
    let endpoint = endpoint.to_owned();
    match error {
        etcd_client::Error::GRpcStatus(status) if REFUSALS.contains(&(status.code() as i32)) => {
            StoreFault::Refused { endpoint, why: status.message().to_owned() }
        }
        other => StoreFault::Away { endpoint, why: chain(other) },
    }
}

/// An error with what is behind it: the outermost says mostly "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    text
}
