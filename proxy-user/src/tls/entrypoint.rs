//! TLS towards clients: which certificate a client is shown, and what is spoken behind it.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};

use crate::{config::model::EntrypointTls, tls::certificates::Certificates};

/// Makes the TLS configuration of an entrypoint: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN.
///
/// # Errors
/// When rustls refuses the client authorities (none of them usable).
pub fn server_config(tls: &EntrypointTls) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(authorities) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(
                authorities.0.clone(),
                Arc::new(aws_lc_rs::default_provider()),
            )
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?,
        ),
    };
    let mut config = builder.with_cert_resolver(Arc::new(BySni::new(&tls.certificates)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Chooses by the name that the client asks for: exact, then wildcard (one label), then the default.
#[derive(Debug)]
struct BySni {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By the suffix behind `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl BySni {
    fn new(certificates: &Certificates) -> Self {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for certificate in &certificates.entries {
            for name in &certificate.names {
                // The first file that carries a name keeps it.
                let (map, name) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut wildcard, suffix),
                    None => (&mut exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_insert_with(|| certificate.key.clone());
            }
        }
        Self { exact, wildcard, default: certificates.entries.first().map(|entry| entry.key.clone()) }
    }

    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        // rustls hands the name over in lower case already.
        self.exact
            .get(name)
            .or_else(|| name.split_once('.').and_then(|(_, suffix)| self.wildcard.get(suffix)))
            .cloned()
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello.server_name().and_then(|name| self.find(name)).or_else(|| self.default.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::certificates::Certificate;

    fn certificate(names: &[&str]) -> Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(Vec::from_iter(names.iter().map(ToString::to_string)))
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let signing = aws_lc_rs::sign::any_supported_type(
            &rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
        Certificate {
            file: names[0].into(),
            names: names.iter().map(ToString::to_string).collect(),
            key: Arc::new(CertifiedKey::new(vec![own.der().clone()], signing)),
        }
    }

    #[test]
    fn an_exact_name_goes_before_a_wildcard_and_a_wildcard_covers_one_label() {
        let certificates = Certificates {
            entries: vec![
                certificate(&["default.example"]),
                certificate(&["*.example.com"]),
                certificate(&["app.example.com"]),
            ],
            warnings: Vec::new(),
            files: Vec::new(),
        };
        let chosen = BySni::new(&certificates);
        for (name, entry) in [
            ("default.example", Some(0)),
            ("app.example.com", Some(2)),
            ("www.example.com", Some(1)),
            ("a.b.example.com", None),
            ("example.com", None),
        ] {
            let found = chosen.find(name);
            let expected = entry.map(|index: usize| &certificates.entries[index].key);
            assert_eq!(found.as_ref().map(Arc::as_ptr), expected.map(Arc::as_ptr), "{name}");
        }
        assert!(Arc::ptr_eq(chosen.default.as_ref().unwrap(), &certificates.entries[0].key));
    }
}
