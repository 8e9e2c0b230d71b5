//! TLS of an entrypoint as it runs: what is spoken, which certificate is shown, and whose clients come in, by the name
//! that a client asks for.
//!
//! Session tickets ([`super::tickets`]) are made with keys that all workers share, and that reloads and upgrades keep. A ticket carries the client's certificate, so other rules for clients
//! mean other keys. Early data (0-RTT) is off: it can be replayed.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, ProducesTickets, ResolvesServerCert},
    version::{TLS12, TLS13},
};

use super::{
    client::{self, Policy},
    names::{BySni, Choice},
    tickets::Tickets,
};
use crate::{
    acme::Board,
    config::model::{CipherSuites, ClientAuth, EntrypointTls, HostMatch, TlsVersion},
};

/// The TLS side of an entrypoint.
#[derive(Debug)]
pub struct Terminator {
    certificates: Arc<BySni>,
    /// Where the challenges hang, if certificates are ordered for names of this entrypoint.
    ordered: Option<Arc<Board>>,
    /// Where nothing is said for the host.
    everywhere: Arc<Rules>,
    exact: HashMap<Arc<str>, Arc<Rules>>,
    /// By the suffix behind `*.`, at any depth.
    wildcard: HashMap<Arc<str>, Arc<Rules>>,
    pub client_headers: bool,
}

/// What holds for some of the hosts.
#[derive(Debug)]
pub struct Rules {
    pub policy: Policy,
    pub config: Arc<ServerConfig>,
    /// The same as in the configuration, with what only this host's own can do.
    pub tickets: Arc<Tickets>,
}

/// Makes the rules of one entrypoint, each policy once.
struct Maker<'a> {
    tls: &'a EntrypointTls,
    certificates: Arc<BySni>,
    before: Option<&'a Terminator>,
    made: HashMap<Policy, Arc<Rules>>,
}

// === impl Terminator ===

impl Terminator {
    /// With the tickets of what ran `before` for as far as its rules are the same.
    ///
    /// # Errors
    /// When rustls refuses the client authorities (none of them usable).
    pub fn new(
        tls: &EntrypointTls,
        board: &Arc<Board>,
        before: Option<&Self>,
    ) -> Result<Self, rustls::Error> {
        let certificates = Arc::new(BySni::new(tls, board));
        let mut maker = Maker { tls, certificates: certificates.clone(), before, made: HashMap::new() };
        let everywhere = maker.rules(tls.clients.as_ref())?;
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for host in &tls.hosts {
            let rules = maker.rules(host.clients.as_ref())?;
            match &host.host {
                HostMatch::Exact(name) => exact.insert(name.clone(), rules),
                HostMatch::Wildcard(suffix) => wildcard.insert(suffix.clone(), rules),
                HostMatch::Any | HostMatch::Regex(_) => None,
            };
        }
        let ordered = (!tls.acme.is_empty()).then(|| board.clone());
        Ok(Self { certificates, ordered, everywhere, exact, wildcard, client_headers: tls.client_headers })
    }

    /// Whether the name that a client asks for decides more than its certificate.
    pub fn depends_on_name(&self) -> bool {
        !self.exact.is_empty() || !self.wildcard.is_empty()
    }

    /// The board on which challenges hang for this entrypoint; `None` while there are none.
    pub fn challenges(&self) -> Option<&Board> {
        self.ordered.as_deref().filter(|board| board.is_waiting())
    }

    pub fn everywhere(&self) -> &Arc<Rules> {
        &self.everywhere
    }

    /// The rules for a host, which is in lower case: exact, then the longest wildcard, then those for all.
    pub fn rules(&self, host: &str) -> &Arc<Rules> {
        if !self.depends_on_name() {
            return &self.everywhere;
        }
        if let Some(rules) = self.exact.get(host) {
            return rules;
        }
        let mut rest = host;
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(rules) = self.wildcard.get(suffix) {
                return rules;
            }
            rest = suffix;
        }
        &self.everywhere
    }

    /// What a client that asks for this name is shown.
    pub fn choice(&self, name: Option<&str>) -> Option<Choice> {
        self.certificates.choice(name)
    }

    /// Whether there is a certificate for this very name, which is in lower case.
    pub fn holds(&self, name: &str) -> bool {
        self.choice(Some(name)).is_some_and(|choice| choice.iter().any(|shown| shown.covers(name)))
    }

    pub fn all_rules(&self) -> impl Iterator<Item = &Arc<Rules>> {
        std::iter::once(&self.everywhere).chain(self.exact.values()).chain(self.wildcard.values())
    }
}

// === impl Maker ===

impl Maker<'_> {
    fn rules(&mut self, clients: Option<&ClientAuth>) -> Result<Arc<Rules>, rustls::Error> {
        let policy = Policy::of(clients);
        if let Some(made) = self.made.get(&policy) {
            return Ok(made.clone());
        }
        let tickets =
            match self.before.and_then(|before| before.all_rules().find(|rules| rules.policy == policy)) {
                Some(known) => known.tickets.clone(),
                None => Tickets::new()?,
            };
        let config = server_config(self.tls, clients, self.certificates.clone(), tickets.clone())?;
        let rules = Arc::new(Rules { policy, config: Arc::new(config), tickets });
        self.made.insert(policy, rules.clone());
        Ok(rules)
    }
}

fn server_config(
    tls: &EntrypointTls,
    clients: Option<&ClientAuth>,
    certificates: Arc<dyn ResolvesServerCert>,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider(tls.ciphers)))
        .with_protocol_versions(&versions(tls.min_version))?
        .with_client_cert_verifier(client::verifier(clients)?)
        .with_cert_resolver(certificates);
    config.alpn_protocols = tls.alpn.iter().map(|protocol| protocol.name().as_bytes().to_vec()).collect();
    config.ticketer = tickets;
    // Tickets are all that is resumed by: nothing to remember, and no lock between workers.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn versions(least: TlsVersion) -> Vec<&'static SupportedProtocolVersion> {
    match least {
        TlsVersion::V1_2 => vec![&TLS13, &TLS12],
        TlsVersion::V1_3 => vec![&TLS13],
    }
}

/// rustls has nothing else than what Mozilla's guide calls intermediate. The client's preference counts, as there.
fn provider(suites: CipherSuites) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    match suites {
        CipherSuites::Intermediate => {}
        CipherSuites::Modern => provider.cipher_suites.retain(|suite| suite.version() == &TLS13),
    }
    provider
}
