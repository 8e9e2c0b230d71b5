//! Which certificate a client is shown: by the name that it asks for, and by the kinds of keys that it understands.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use rustls::{
    SignatureAlgorithm,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::certificates::{Certificate, Certificates};
use crate::{
    acme::Board,
    config::model::{EntrypointTls, UnknownHost},
};

/// A certificate as it is shown, with the names that it is good for.
#[derive(Debug)]
pub struct Shown {
    pub key: Arc<CertifiedKey>,
    names: Vec<String>,
}

/// The certificates for one name: one for each kind of key, the best first. Never empty.
pub type Choice = Arc<[Arc<Shown>]>;

/// Certificates by the names that they are good for.
#[derive(Debug, Default)]
pub struct Table {
    exact: HashMap<String, Choice>,
    /// By the suffix behind `*.`.
    wildcard: HashMap<String, Choice>,
    /// The first of all, with its siblings of other kinds of keys.
    first: Option<Choice>,
}

/// Exact name, then wildcard (one label), then the default.
#[derive(Debug)]
pub struct BySni {
    /// From files.
    own: Table,
    /// Whether what hangs on the board from the fleet's store is shown too. Files go first.
    store: bool,
    unknown_host: UnknownHost,
    /// The names whose certificates are ordered, and where they hang once they are there.
    ordered: HashSet<Arc<str>>,
    first_ordered: Option<Arc<str>>,
    board: Arc<Board>,
}

// === impl Shown ===

impl Shown {
    pub fn new(certificate: &Certificate) -> Arc<Self> {
        Arc::new(Self { key: certificate.key.clone(), names: certificate.names.clone() })
    }

    /// Whether the certificate is good for `host`, which is in lower case.
    pub fn covers(&self, host: &str) -> bool {
        let suffix = host.split_once('.').map(|(_, suffix)| suffix);
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(below) => suffix == Some(below),
            None => name == host,
        })
    }
}

// === impl Table ===

impl Table {
    pub fn new(certificates: &Certificates) -> Self {
        let mut named: HashMap<&str, Vec<(&Certificate, Arc<Shown>)>> = HashMap::new();
        let mut first: Option<Choice> = None;
        for certificate in &certificates.entries {
            let shown = Shown::new(certificate);
            first.get_or_insert_with(|| [shown.clone()].into());
            for name in &certificate.names {
                named.entry(name).or_default().push((certificate, shown.clone()));
            }
        }
        let mut table = Self::default();
        for (name, candidates) in named {
            let (map, name) = match name.strip_prefix("*.") {
                Some(suffix) => (&mut table.wildcard, suffix),
                None => (&mut table.exact, name),
            };
            map.insert(name.to_owned(), best_of_each_kind(candidates));
        }
        // Its siblings with other kinds of keys serve as the default too.
        let name = certificates.entries.first().and_then(|first| first.names.first());
        let siblings = name.and_then(|name| table.exact(name).or_else(|| table.wildcard(name)));
        table.first = siblings.or(first);
        table
    }

    /// For just this name, in lower case.
    pub fn exact(&self, name: &str) -> Option<Choice> {
        self.exact.get(name).cloned()
    }

    /// For a name one label below a wildcard, or for that wildcard.
    pub fn wildcard(&self, name: &str) -> Option<Choice> {
        let (_, suffix) =
            name.strip_prefix("*.").map_or_else(|| name.split_once('.'), |name| Some(("", name)))?;
        self.wildcard.get(suffix).cloned()
    }

    pub fn first(&self) -> Option<Choice> {
        self.first.clone()
    }
}

// === impl BySni ===

impl BySni {
    pub fn new(tls: &EntrypointTls, board: &Arc<Board>) -> Self {
        Self {
            own: Table::new(&tls.certificates),
            store: tls.store,
            unknown_host: tls.unknown_host,
            ordered: tls.acme.iter().cloned().collect(),
            first_ordered: tls.acme.first().cloned().filter(|_| tls.certificates.entries.is_empty()),
            board: board.clone(),
        }
    }

    /// For a name in lower case.
    fn find(&self, name: &str) -> Option<Choice> {
        let ordered = || self.ordered.contains(name).then(|| self.board.choice(name)).flatten();
        let stored = self.store.then(|| self.board.shelf.table());
        self.own
            .exact(name)
            .or_else(ordered)
            .or_else(|| stored.as_ref()?.exact(name))
            .or_else(|| self.own.wildcard(name))
            .or_else(|| stored.as_ref()?.wildcard(name))
    }

    /// What clients get that name no host.
    fn default(&self) -> Option<Choice> {
        let stored = || self.store.then(|| self.board.shelf.table())?.first();
        self.own.first().or_else(stored)
    }

    /// What a client that asks for `name`, or for none, has to choose from.
    pub fn choice(&self, name: Option<&str>) -> Option<Choice> {
        let ordered = || self.board.choice(self.first_ordered.as_deref()?);
        match name {
            Some(name) => self.find(name).or_else(|| match self.unknown_host {
                UnknownHost::Default => self.default(),
                UnknownHost::Refuse => None,
            }),
            None => self.default().or_else(ordered),
        }
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls hands the name over in lower case already.
        let choice = self.choice(hello.server_name())?;
        // Of TLS 1.2 clients rustls has left out the schemes that go with none of their cipher suites.
        let understood =
            |shown: &&Arc<Shown>| shown.key.key.choose_scheme(hello.signature_schemes()).is_some();
        choice.iter().find(understood).or(choice.first()).map(|shown| shown.key.clone())
    }
}

/// Of each kind of key the certificate that lasts longest; of equal ones the first. ECDSA costs both sides least.
fn best_of_each_kind(mut candidates: Vec<(&Certificate, Arc<Shown>)>) -> Choice {
    // Stable: what is equal stays in the order of file names.
    candidates.sort_by_key(|(certificate, _)| {
        (rank(certificate), std::cmp::Reverse(certificate.validity.not_after))
    });
    candidates.dedup_by_key(|(certificate, _)| rank(certificate));
    candidates.into_iter().map(|(_, shown)| shown).collect()
}

fn rank(certificate: &Certificate) -> u8 {
    match certificate.key.key.algorithm() {
        SignatureAlgorithm::ECDSA => 0,
        SignatureAlgorithm::ED25519 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm,
    };
    use rustls::{crypto::aws_lc_rs::sign::any_supported_type, pki_types::PrivateKeyDer};

    use super::*;
    use crate::tls::certificates::described;

    fn certificate(file: &str, names: &[&str], kind: &'static SignatureAlgorithm, until: i32) -> Certificate {
        let key = KeyPair::generate_for(kind).unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let own = params.self_signed(&key).unwrap();
        let signing = any_supported_type(&PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap();
        described(file.into(), CertifiedKey::new(vec![own.der().clone()], signing)).unwrap()
    }

    fn by_sni(entries: &[Certificate], unknown_host: UnknownHost) -> BySni {
        BySni {
            own: Table::new(&listed(entries)),
            store: true,
            unknown_host,
            ordered: ["ordered.example.com".into()].into(),
            first_ordered: None,
            board: Arc::default(),
        }
    }

    fn listed(entries: &[Certificate]) -> Certificates {
        Certificates { entries: entries.to_vec(), ..Certificates::default() }
    }

    /// The files of the certificates that the client has to choose from.
    fn files<'a>(by_sni: &BySni, entries: &'a [Certificate], name: Option<&str>) -> Vec<&'a str> {
        let choice = by_sni.choice(name);
        let file = |shown: &Arc<Shown>| {
            entries.iter().find(|entry| Arc::ptr_eq(&entry.key, &shown.key)).unwrap().file.to_str().unwrap()
        };
        choice.iter().flat_map(|choice| choice.iter()).map(file).collect()
    }

    const EC: &SignatureAlgorithm = &PKCS_ECDSA_P256_SHA256;

    #[test]
    fn an_exact_name_goes_before_a_wildcard_and_a_wildcard_covers_one_label() {
        let entries = [
            certificate("default", &["default.example"], EC, 2030),
            certificate("wildcard", &["*.example.com"], EC, 2030),
            certificate("app", &["app.example.com"], EC, 2030),
        ];
        let (lenient, strict) =
            (by_sni(&entries, UnknownHost::Default), by_sni(&entries, UnknownHost::Refuse));
        for (name, expected) in [
            (Some("default.example"), &["default"][..]),
            (Some("app.example.com"), &["app"]),
            (Some("www.example.com"), &["wildcard"]),
            (None, &["default"]),
        ] {
            assert_eq!(files(&lenient, &entries, name), expected, "{name:?}");
            assert_eq!(files(&strict, &entries, name), expected, "{name:?}");
        }
        for name in ["a.b.example.com", "example.com", "elsewhere"] {
            assert_eq!(files(&lenient, &entries, Some(name)), ["default"], "{name}");
            assert_eq!(files(&strict, &entries, Some(name)), [""; 0], "{name}");
        }
    }

    #[test]
    fn of_one_name_each_kind_of_key_is_kept_and_the_one_that_lasts_longest() {
        let entries = [
            certificate("rsa", &["a.example", "*.a.example"], &PKCS_RSA_SHA256, 2030),
            certificate("old", &["a.example"], EC, 2027),
            certificate("new", &["a.example"], EC, 2029),
            certificate("same", &["a.example"], EC, 2029),
            certificate("ed", &["a.example"], &PKCS_ED25519, 2030),
        ];
        let by_sni = by_sni(&entries, UnknownHost::Default);
        assert_eq!(files(&by_sni, &entries, Some("a.example")), ["new", "ed", "rsa"]);
        assert_eq!(files(&by_sni, &entries, Some("x.a.example")), ["rsa"]);
        assert_eq!(files(&by_sni, &entries, None), ["new", "ed", "rsa"], "siblings of the first");
    }

    #[test]
    fn an_ordered_certificate_goes_before_a_wildcard_and_waits_for_its_coming() {
        let wildcard = certificate("wildcard", &["*.example.com"], EC, 2030);
        let by_sni = by_sni(std::slice::from_ref(&wildcard), UnknownHost::Refuse);
        let shown = |name: &str| by_sni.choice(Some(name)).map(|choice| Arc::as_ptr(&choice[0].key));
        let ordered = certificate("ordered", &["ordered.example.com"], EC, 2030);
        assert_eq!(shown("ordered.example.com"), Some(Arc::as_ptr(&wildcard.key)));
        by_sni.board.pin(&"ordered.example.com".into(), ordered.clone());
        by_sni.board.pin(&"elsewhere.example".into(), ordered.clone());
        assert_eq!(shown("ordered.example.com"), Some(Arc::as_ptr(&ordered.key)));
        assert_eq!(shown("other.example.com"), Some(Arc::as_ptr(&wildcard.key)));
        assert_eq!(shown("elsewhere.example"), None, "it is another entrypoint's");
    }

    #[test]
    fn what_comes_from_the_store_stands_behind_files_and_changes_while_they_are_shown() {
        let files_own = [certificate("file", &["a.example", "*.example.com"], EC, 2030)];
        let stored = [
            certificate("first", &["b.example"], EC, 2030),
            certificate("same", &["a.example"], EC, 2035),
            certificate("exact", &["app.example.com", "*.example.org"], EC, 2030),
        ];
        let all = [&files_own[..], &stored[..]].concat();
        let by_sni = by_sni(&files_own, UnknownHost::Refuse);
        let shown = |name| files(&by_sni, &all, Some(name)).join(" ");
        assert_eq!(["b.example", "app.example.com"].map(shown), ["", "file"]);
        by_sni.board.shelf.put(listed(&stored));
        let names =
            ["a.example", "b.example", "app.example.com", "x.example.com", "x.example.org", "elsewhere"];
        assert_eq!(names.map(shown), ["file", "first", "exact", "file", "exact", ""]);
        by_sni.board.shelf.put(listed(&stored[..1]));
        assert_eq!(names.map(shown), ["file", "first", "file", "file", "", ""]);

        let nothing_own = super::tests::by_sni(&[], UnknownHost::Default);
        nothing_own.board.shelf.put(listed(&stored));
        for name in [None, Some("elsewhere")] {
            assert_eq!(files(&nothing_own, &all, name), ["first"], "{name:?}");
        }
        let without = BySni { store: false, ..super::tests::by_sni(&[], UnknownHost::Default) };
        without.board.shelf.put(listed(&stored));
        assert!(without.choice(Some("b.example")).is_none(), "nobody asked for the store here");
    }

    #[test]
    fn a_certificate_covers_its_names_and_one_label_below_a_wildcard() {
        let shown = Shown::new(&certificate("a", &["example.com", "*.example.com"], EC, 2030));
        for (host, expected) in [
            ("example.com", true),
            ("a.example.com", true),
            ("a.b.example.com", false),
            ("example.org", false),
            ("com", false),
            ("", false),
        ] {
            assert_eq!(shown.covers(host), expected, "{host}");
        }
    }
}
