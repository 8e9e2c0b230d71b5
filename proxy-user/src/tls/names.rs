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
use crate::{acme::Board, config::model::UnknownHost};

/// A certificate as it is shown, with the names that it is good for.
#[derive(Debug)]
pub struct Shown {
    pub key: Arc<CertifiedKey>,
    names: Vec<String>,
}

/// The certificates for one name: one for each kind of key, the best first. Never empty.
pub type Choice = Arc<[Arc<Shown>]>;

/// Exact name, then wildcard (one label), then the default.
#[derive(Debug)]
pub struct BySni {
    exact: HashMap<String, Choice>,
    /// By the suffix behind `*.`.
    wildcard: HashMap<String, Choice>,
    /// For clients that name no host.
    default: Option<Choice>,
    /// For clients that name an unknown one.
    unknown: Option<Choice>,
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

// === impl BySni ===

impl BySni {
    pub fn new(
        certificates: &Certificates,
        unknown: UnknownHost,
        ordered: &[Arc<str>],
        board: &Arc<Board>,
    ) -> Self {
        let mut named: HashMap<&str, Vec<(&Certificate, Arc<Shown>)>> = HashMap::new();
        let mut default: Option<Choice> = None;
        for certificate in &certificates.entries {
            let shown = Shown::new(certificate);
            default.get_or_insert_with(|| [shown.clone()].into());
            for name in &certificate.names {
                named.entry(name).or_default().push((certificate, shown.clone()));
            }
        }
        let mut by_sni = Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            default: None,
            unknown: None,
            ordered: ordered.iter().cloned().collect(),
            first_ordered: ordered.first().cloned().filter(|_| certificates.entries.is_empty()),
            board: board.clone(),
        };
        for (name, candidates) in named {
            let (map, name) = match name.strip_prefix("*.") {
                Some(suffix) => (&mut by_sni.wildcard, suffix),
                None => (&mut by_sni.exact, name),
            };
            map.insert(name.to_owned(), best_of_each_kind(candidates));
        }
        // Its siblings with other kinds of keys serve as the default too.
        let first = certificates.entries.first().and_then(|first| first.names.first());
        let siblings = first.and_then(|name| by_sni.find(name));
        by_sni.default = siblings.or(default);
        by_sni.unknown = by_sni.default.clone().filter(|_| unknown == UnknownHost::Default);
        by_sni
    }

    /// For a name in lower case.
    fn find(&self, name: &str) -> Option<Choice> {
        let ordered = || self.ordered.contains(name).then(|| self.board.choice(name)).flatten();
        let wildcard = || {
            let (_, suffix) =
                name.strip_prefix("*.").map_or_else(|| name.split_once('.'), |name| Some(("", name)))?;
            self.wildcard.get(suffix)
        };
        self.exact.get(name).cloned().or_else(ordered).or_else(|| wildcard().cloned())
    }

    /// What a client that asks for `name`, or for none, has to choose from.
    pub fn choice(&self, name: Option<&str>) -> Option<Choice> {
        match name {
            Some(name) => self.find(name).or_else(|| self.unknown.clone()),
            None => self.default.clone().or_else(|| self.board.choice(self.first_ordered.as_deref()?)),
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

    fn by_sni(entries: &[Certificate], unknown: UnknownHost) -> BySni {
        BySni::new(
            &Certificates { entries: entries.to_vec(), ..Certificates::default() },
            unknown,
            &["ordered.example.com".into()],
            &Arc::default(),
        )
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
