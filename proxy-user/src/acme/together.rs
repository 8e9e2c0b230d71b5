//! Certificates that the hosts of a fleet order together: one orders, all answer the authority, and all show what came.
//!
//! Whoever finds a name due takes the key [`ORDER`] under a lease; the others wait for what comes of it. Account and certificates stand in the
//! store, sealed, and so do challenges while an order is under way: the authority is told to look once every host that is there has
//! said it can answer. A failure stands there too, so that hosts don't repeat each other's. A host that dies while it orders takes
//! its lease with it, and another goes on. While the store is away nothing is ordered: a certificate comes up for renewal a third of
//! its life before its end, which is longer than a store should be away, and hosts that order each for themselves would run into
//! the authority's limits.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use instant_acme::AccountCredentials;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, interval_at, sleep, timeout};

use super::{
    Board, Hanging, Standing,
    keeper::{LOOK, shown_from_disk},
    order::{self, Challenge, Desk},
    schedule,
    store::{Store, directory_name},
};
use crate::{
    config::model::Acme,
    fleet::{
        mirror::{HEARING, Holder},
        seal::SealFault,
        sharing::Shared,
    },
    journal::{Kind, Note},
    store::{
        etcd::{Lease, Session, StoreFault},
        layout::{AUTHORITIES, CHALLENGES_ALPN, CHALLENGES_HTTP, HEARD, HOSTS, ORDER},
    },
    tls::certificates,
};

/// A host that orders and isn't heard of for so long lets the next one go on.
const LEASE_SECONDS: i64 = 10;
const KEEP: Duration = Duration::from_secs(3);

/// Whoever waits for another looks so often by itself.
const BUSY: Duration = Duration::from_secs(5);

/// What the authority calls a challenge becomes part of a key.
const LONGEST_TOKEN: usize = 256;

/// The task of one host.
pub struct Together {
    acme: Acme,
    /// What this host had before it was in a fleet.
    own: Store,
    board: Arc<Board>,
    shared: Shared,
    /// Below it: all that is kept of the authority.
    below: String,
    names: BTreeMap<Arc<str>, State>,
}

/// How it stands with a name.
struct State {
    /// When the certificate comes up for renewal.
    renewal: SystemTime,
    /// Not before this, since it failed.
    retry: Option<SystemTime>,
    failures: u32,
    error: Option<String>,
    /// What was read last of the store.
    certificate: Option<Arc<str>>,
    failure: Option<Arc<str>>,
}

/// A failure, as it stands in the store.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    failures: u32,
    /// In seconds since 1970.
    at: u64,
    by: String,
    why: String,
}

/// What became of an attempt.
enum Turn {
    /// There is a new certificate.
    Ordered,
    /// Another host orders, or has just done so.
    Elsewhere,
}

/// This host's right to order, as long as its lease lasts.
struct Claim<'a> {
    session: Session,
    lease: i64,
    /// Of [`ORDER`].
    revision: i64,
    of: &'a Together,
}

// === impl Together ===

impl Together {
    pub fn new(acme: Acme, own: Store, board: Arc<Board>, shared: Shared, names: &[Arc<str>]) -> Self {
        let below = format!("{AUTHORITIES}{}/", directory_name(&acme.directory.to_string()));
        let now = SystemTime::now();
        let state = |name: &Arc<str>| State {
            renewal: shown_from_disk(&board, &own, name, now),
            retry: None,
            failures: 0,
            error: None,
            certificate: None,
            failure: None,
        };
        let names = names.iter().map(|name| (name.clone(), state(name))).collect();
        let mut together = Self { acme, own, board, shared, below, names };
        // What was kept is shown at once.
        together.learn();
        together
    }

    pub async fn run(mut self) {
        loop {
            self.learn();
            let Some((name, due)) = self.next() else { return };
            for (name, state) in &self.names {
                let next = Timestamp::try_from(state.due()).ok();
                self.board.stands(name, Standing { error: state.error.clone(), next });
            }
            match due.duration_since(SystemTime::now()) {
                Ok(wait) if !wait.is_zero() => self.news(wait.min(LOOK)).await,
                _ if self.somebody_orders() => self.news(BUSY).await,
                _ => match self.renew(&name).await {
                    Ok(Turn::Ordered) => {}
                    Ok(Turn::Elsewhere) => self.news(BUSY).await,
                    Err(why) => self.failed(&name, why),
                },
            }
        }
    }

    /// The name that is due first.
    fn next(&self) -> Option<(Arc<str>, SystemTime)> {
        self.names.iter().map(|(name, state)| (name.clone(), state.due())).min_by_key(|(_, due)| *due)
    }

    /// Until the store has something new, and not for longer than this.
    async fn news(&mut self, most: Duration) {
        if let Ok(Err(_)) = timeout(most, self.shared.known.changed()).await {
            // Nobody brings news any more: this task is about to be ended.
            sleep(most).await;
        }
    }

    fn somebody_orders(&self) -> bool {
        let known = self.shared.known.borrow();
        known.away.is_none() && known.entries.contains_key(ORDER)
    }

    fn certificate_key(&self, name: &str) -> String {
        format!("{}certificates/{name}", self.below)
    }

    fn failure_key(&self, name: &str) -> String {
        format!("{}failures/{name}", self.below)
    }

    fn account_key(&self) -> String {
        format!("{}account", self.below)
    }

    /// Takes over what others, or this host, have put into the store.
    fn learn(&mut self) {
        let entries = self.shared.known.borrow_and_update().entries.clone();
        let names: Vec<_> = self.names.keys().cloned().collect();
        for name in names {
            let certificate = entries.get(&self.certificate_key(&name)).cloned();
            if let Some(sealed) = certificate {
                self.adopt(&name, &sealed);
            }
            let failure = entries.get(&self.failure_key(&name)).cloned();
            self.consider(&name, failure);
        }
    }

    /// Shows a certificate of the store's, if it is a new one.
    fn adopt(&mut self, name: &Arc<str>, sealed: &Arc<str>) {
        let key = self.certificate_key(name);
        let Some(state) = self.names.get_mut(name) else { return };
        if state.certificate.as_ref() == Some(sealed) {
            return;
        }
        state.certificate = Some(sealed.clone());
        let read = self.shared.open(&key, sealed).and_then(|text| {
            let file = format!("{}:{key}", self.shared.provider);
            certificates::from_text(file.as_ref(), &text).map_err(|fault| fault.sentence)
        });
        match read {
            Ok(certificate) => {
                let (validity, now) = (certificate.validity, SystemTime::now());
                let renewal = schedule::renewal(validity, fastrand::f64());
                state.renewal = renewal.max(now + schedule::least(validity));
                (state.retry, state.failures, state.error) = (None, 0, None);
                tracing::info!(%name, until = validity.ends(), "a certificate that was ordered came from the store");
                self.board.pin(name, certificate);
            }
            Err(why) => {
                tracing::warn!(%name, "a certificate that was ordered can't be used: {why}");
                state.error = Some(why);
            }
        }
    }

    /// Waits as long after another host's failure as after its own.
    fn consider(&mut self, name: &Arc<str>, sealed: Option<Arc<str>>) {
        let key = self.failure_key(name);
        let Some(state) = self.names.get_mut(name) else { return };
        if state.failure == sealed {
            return;
        }
        state.failure.clone_from(&sealed);
        let failure = sealed.and_then(|sealed| self.shared.open(&key, &sealed).ok());
        let failure = failure.and_then(|text| serde_json::from_slice::<Failure>(&text).ok());
        match failure {
            Some(Failure { failures, at, by, why }) => {
                // A clock that is wrong elsewhere doesn't hold this host up for longer than a failure of its own.
                let wait = schedule::retry(failures, fastrand::f64());
                let at = (UNIX_EPOCH + Duration::from_secs(at)).min(SystemTime::now());
                (state.retry, state.failures) = (Some(at + wait), failures);
                state.error = Some(format!("{why} (when {by} tried)"));
            }
            None => (state.retry, state.failures, state.error) = (None, 0, None),
        }
    }

    fn failed(&mut self, name: &Arc<str>, why: String) {
        tracing::warn!(%name, "a certificate can't be ordered, and will be tried again: {why}");
        let message = format!("the certificate of {name} can't be ordered, and will be tried again");
        Note::new(Kind::CertificateOrderFailed, message).why(&why).write();
        let Some(state) = self.names.get_mut(name) else { return };
        state.failures += 1;
        state.retry = Some(SystemTime::now() + schedule::retry(state.failures, fastrand::f64()));
        state.error = Some(why);
    }

    /// Orders one, if no other host does.
    async fn renew(&mut self, name: &Arc<str>) -> Result<Turn, String> {
        let away = |fault: StoreFault| {
            format!("certificates are ordered under the lease of the fleet's store alone, and {fault}")
        };
        let session = Session::open(&self.shared.address, fastrand::usize(..1024)).await.map_err(away)?;
        let mut lease = session.lease(LEASE_SECONDS).await.map_err(away)?;
        let holder = Holder { host: self.shared.host.to_string(), lease: lease.id };
        let holder = serde_json::to_vec(&holder).unwrap_or_default();
        let claimed = session.claim(ORDER, holder, lease.id).await.map_err(away)?;
        let outcome = match claimed {
            None => Ok(None),
            Some(revision) => {
                let claim = Claim { session: session.clone(), lease: lease.id, revision, of: self };
                tokio::select! {
                    outcome = claim.order(name) => outcome,
                    fault = keep(&mut lease) => Err(format!("the order was given up: {fault}")),
                }
            }
        };
        // With it go the challenges; the next host goes on at once.
        let _ = session.revoke(lease.id).await;
        match outcome? {
            None => Ok(Turn::Elsewhere),
            Some(sealed) => {
                self.adopt(name, &sealed);
                Ok(Turn::Ordered)
            }
        }
    }
}

/// Ends only with the lease.
async fn keep(lease: &mut Lease) -> StoreFault {
    let mut times = interval_at(Instant::now() + KEEP, KEEP);
    loop {
        times.tick().await;
        if let Err(fault) = lease.keep().await {
            return fault;
        }
    }
}

impl State {
    fn due(&self) -> SystemTime {
        self.retry.map_or(self.renewal, |retry| retry.max(self.renewal))
    }
}

// === impl Claim ===

impl Claim<'_> {
    /// The new certificate, sealed; `None`: another host has been here since this one looked.
    async fn order(&self, name: &Arc<str>) -> Result<Option<Arc<str>>, String> {
        let Together { shared, acme, names, .. } = self.of;
        let (certificate, failure) = (self.of.certificate_key(name), self.of.failure_key(name));
        let state = names.get(name).ok_or("the name is not wanted any more")?;
        let (now, failed) = (self.read(&certificate).await?, self.read(&failure).await?);
        if now.is_some() && now != state.certificate || failed != state.failure {
            return Ok(None);
        }
        if let Some(sealed) = &now
            && let Err(fault @ (SealFault::OtherKey { .. } | SealFault::Newer(_))) =
                shared.keys.open(&shared.address.key(&certificate), sealed.as_bytes())
        {
            // Others have a good one: this host must not take it from them.
            return Err(format!("the certificate in the fleet's store {fault}"));
        }
        let ordered = match order::order(acme, self, name).await {
            Ok(ordered) => ordered,
            Err(why) => {
                self.tell_failure(&failure, state.failures + 1, &why).await;
                return Err(why);
            }
        };
        let text = format!("{}\n{}", ordered.chain.trim_end(), ordered.key);
        let read =
            certificates::from_text(certificate.as_ref(), text.as_bytes()).map_err(|fault| fault.sentence)?;
        let sealed = self.write(&certificate, text.as_bytes()).await?;
        if failed.is_some() {
            // One that stays is outdone by the certificate.
            let _ = self.session.remove(&failure).await;
        }
        let message = format!(
            "the certificate of {name} was ordered for the fleet; it is valid until {}",
            read.validity.ends()
        );
        tracing::info!("{message}");
        Note::new(Kind::CertificateOrdered, message).write();
        Ok(Some(sealed))
    }

    async fn read(&self, key: &str) -> Result<Option<Arc<str>>, String> {
        let read = self.session.get(key).await.map_err(|fault| fault.to_string())?;
        Ok(read.found.and_then(|stored| String::from_utf8(stored.bytes).ok()).map(Arc::from))
    }

    fn seal(&self, key: &str, plain: &[u8]) -> Result<Vec<u8>, String> {
        let path = self.of.shared.address.key(key);
        self.of.shared.keys.seal(&path, plain).map_err(|fault| format!("`{key}` {fault}"))
    }

    /// Writes something that stays, if this host still is the one that orders.
    async fn write(&self, key: &str, plain: &[u8]) -> Result<Arc<str>, String> {
        let sealed = self.seal(key, plain)?;
        let unchanged = [(ORDER, self.revision)];
        match self.session.swap(&unchanged, &[(key, sealed.clone())]).await {
            Ok(true) => Ok(String::from_utf8_lossy(&sealed).into()),
            Ok(false) => Err("it took too long, and by now another host may order".to_owned()),
            Err(fault) => Err(fault.to_string()),
        }
    }

    async fn tell_failure(&self, key: &str, failures: u32, why: &str) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let failure = Failure { failures, at, by: self.of.shared.host.to_string(), why: why.to_owned() };
        let text = serde_json::to_vec(&failure).unwrap_or_default();
        if let Err(fault) = self.write(key, &text).await {
            tracing::warn!("the other hosts can't be told of an order that failed: {fault}");
        }
    }

    /// Until every other host that is there can answer for what was written in this revision. One that is in trouble doesn't hold
    /// this up for ever.
    async fn until_heard(&self, at: i64) -> Result<(), StoreFault> {
        let deadline = Instant::now() + HEARING;
        let mut silent = self.session.names(HOSTS).await?;
        loop {
            let heard = self.session.list(HEARD).await?.found;
            let has_heard = |host: &String| {
                let known = heard.iter().find(|(name, _)| name == host);
                let known = known.and_then(|(_, stored)| std::str::from_utf8(&stored.bytes).ok());
                known.and_then(|known| known.parse::<i64>().ok()).is_some_and(|known| known >= at)
            };
            silent.retain(|host| *host != *self.of.shared.host && !has_heard(host));
            if silent.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                tracing::warn!(
                    "not every host of the fleet can answer the authority: {} didn't say so",
                    silent.join(", ")
                );
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Desk for Claim<'_> {
    async fn account(&self) -> Result<Option<AccountCredentials>, String> {
        let key = self.of.account_key();
        match self.read(&key).await? {
            Some(sealed) => {
                let text = self.of.shared.open(&key, &sealed)?;
                serde_json::from_slice(&text)
                    .map(Some)
                    .map_err(|error| format!("the account can't be read: {error}"))
            }
            // The one that this host had alone is everybody's from now on.
            None => match self.of.own.load_account_text() {
                Some(text) => {
                    let Ok(account) = serde_json::from_slice(&text) else { return Ok(None) };
                    self.write(&key, &text).await?;
                    Ok(Some(account))
                }
                None => Ok(None),
            },
        }
    }

    async fn keep_account(&self, account: &AccountCredentials) -> Result<(), String> {
        let text = serde_json::to_vec(account).map_err(|error| error.to_string())?;
        self.write(&self.of.account_key(), &text).await.map(drop)
    }

    async fn forget_account(&self) {
        self.of.own.forget_account();
        let _ = self.session.remove(&self.of.account_key()).await;
    }

    async fn hang(&self, challenge: Challenge<'_>) -> Result<Hanging, String> {
        let (key, plain) = match challenge {
            Challenge::Http { token, answer } => {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                if token.len() > LONGEST_TOKEN || !token.bytes().all(plain) {
                    return Err("the authority's token isn't one (RFC 8555, section 8.3)".to_owned());
                }
                (format!("{CHALLENGES_HTTP}{token}"), answer.as_bytes().to_vec())
            }
            Challenge::Alpn { name, digest } => {
                (format!("{CHALLENGES_ALPN}{name}"), BASE64_STANDARD.encode(digest).into_bytes())
            }
        };
        let hanging = challenge.hang_on(&self.of.board)?;
        let put = async {
            let sealed = self.seal(&key, &plain)?;
            self.session.put(&key, sealed, Some(self.lease)).await.map_err(|fault| fault.to_string())?;
            let read = self.session.get(&key).await.map_err(|fault| fault.to_string())?;
            let at = read.found.map_or(read.at, |stored| stored.revision);
            self.until_heard(at).await.map_err(|fault| fault.to_string())
        };
        put.await?;
        Ok(hanging)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::{
        config::model::AcmeChallenge,
        fleet::sharing::{
            Known,
            tests::{sealed, shared, text},
        },
        tls::certificates::ServerAuthorities,
    };

    const NAME: &str = "a.example";

    /// A host that wants one name, and what tells it of the store.
    fn together(folder: &std::path::Path) -> (Together, watch::Sender<Known>) {
        let acme = Acme {
            directory: "https://ca.example/dir".parse().unwrap(),
            contact: Vec::new(),
            authorities: ServerAuthorities::System,
            challenge: AcmeChallenge::Http01,
        };
        let (tell, known) = watch::channel(Known::default());
        let shared = Shared { known, ..shared(folder) };
        let own = Store::within(folder, "https://ca.example/dir");
        (Together::new(acme, own, Arc::default(), shared, &[NAME.into()]), tell)
    }

    /// In how many seconds the name is due.
    fn due(together: &Together) -> u64 {
        let (_, due) = together.next().unwrap();
        due.duration_since(SystemTime::now()).map_or(0, |wait| wait.as_secs())
    }

    #[test]
    fn what_another_host_ordered_is_shown_and_not_ordered_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut together, tell) = together(folder.path());
        assert_eq!(due(&together), 0);
        let key = "acme/authorities/ca.example_dir/certificates/a.example";
        let certificate = sealed(&together.shared, key, &text(NAME));
        tell.send_modify(|known| _ = known.entries.insert(key.to_owned(), certificate));
        together.learn();
        assert_eq!(together.board.certificate(NAME).unwrap().names, [NAME]);
        assert!(due(&together) > 24 * 3600);
        // One that can't be opened takes nothing away, and isn't a reason to order at once.
        tell.send_modify(|known| _ = known.entries.insert(key.to_owned(), "weir-seal:1:0:x".into()));
        together.learn();
        assert!(together.board.certificate(NAME).is_some() && due(&together) > 24 * 3600);
        assert!(together.names[NAME].error.as_ref().unwrap().contains("sealed with the key 0"));
    }

    #[test]
    fn a_failure_elsewhere_is_waited_out_here_too() {
        let folder = tempfile::tempdir().unwrap();
        let (mut together, tell) = together(folder.path());
        let key = "acme/authorities/ca.example_dir/failures/a.example";
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        // Its clock is a year ahead.
        for at in [now, now + 365 * 24 * 3600] {
            let failure = Failure { failures: 3, at, by: "edge-2".into(), why: "refused".into() };
            let failure = sealed(&together.shared, key, &serde_json::to_vec(&failure).unwrap());
            tell.send_modify(|known| _ = known.entries.insert(key.to_owned(), failure));
            together.learn();
            assert!((200..300).contains(&due(&together)), "{}", due(&together));
            assert_eq!(together.names[NAME].error.as_deref(), Some("refused (when edge-2 tried)"));
        }
        together.failed(&NAME.into(), "again".into());
        assert!((400..600).contains(&due(&together)), "it counts on from there: {}", due(&together));
        tell.send_modify(|known| _ = known.entries.remove(key));
        together.learn();
        assert_eq!(due(&together), 0);
    }

    #[test]
    fn nobody_begins_while_another_orders_unless_that_is_old_news() {
        let folder = tempfile::tempdir().unwrap();
        let (together, tell) = together(folder.path());
        assert!(!together.somebody_orders());
        tell.send_modify(|known| _ = known.entries.insert(ORDER.to_owned(), "{}".into()));
        assert!(together.somebody_orders());
        tell.send_modify(|known| known.away = Some("no answer".into()));
        assert!(!together.somebody_orders());
    }
}
