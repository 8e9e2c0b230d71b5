//! Certificates and authorities as they are read from files: whole, matching and usable, or a fault that says why.
//!
//! Reading happens while the configuration is validated, never on the path of a connection. Nothing here prints,
//! logs or keeps a private key other than inside [`CertifiedKey`], whose `Debug` names the algorithm alone.

mod folder;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    Error, InconsistentKeys, RootCertStore,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::tls::validity::Validity;
use folder::Pair;

/// A file with a chain and a key has a few thousand bytes; what is larger is something else.
const LARGEST: u64 = 1 << 20;

/// The certificates of an entrypoint, chosen by SNI.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    /// In the order of their file names, but that of the file `default` first. The first one is for a client that names
    /// no host or an unknown one.
    pub entries: Vec<Certificate>,
    /// What could not be read this time and is left out, because the rest is in use already. Sentences that name the file.
    pub left_out: Vec<String>,
    /// Every file that was read or looked for, and the folders: for a watcher.
    pub files: Vec<PathBuf>,
}

/// A certificate chain with its key, and the names that it is good for.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub file: PathBuf,
    /// The subject's DNS names, lower case, wildcards as `*.example.com`.
    pub names: Vec<String>,
    pub validity: Validity,
    pub key: Arc<CertifiedKey>,
    /// Its files hold something else by now that can't be used, for this reason; this is what they held before.
    pub stale: Option<String>,
}

/// Whose client certificates an entrypoint accepts.
#[derive(Debug)]
pub struct ClientAuthorities(pub Arc<RootCertStore>);

/// Whose server certificates a service accepts.
#[derive(Debug, Clone)]
pub enum ServerAuthorities {
    /// The operating system's.
    System,
    /// Those of one file.
    Own(Arc<RootCertStore>),
    /// Anybody's: `insecure = true`. A standing warning.
    Anybody,
}

/// Why a certificate file can't be used. `Display` is a sentence that names the file.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct CertificateFault {
    pub sentence: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Why there are no certificates to be had from files, and which files were looked at: in them every mending shows.
#[derive(Debug)]
pub struct Unusable {
    /// At least one.
    pub faults: Vec<CertificateFault>,
    pub files: Vec<PathBuf>,
}

impl ServerAuthorities {
    /// Compared by their certificates.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::System, Self::System) | (Self::Anybody, Self::Anybody) => true,
            (Self::Own(one), Self::Own(two)) => one.roots == two.roots,
            _ => false,
        }
    }
}

impl Certificates {
    /// Reads `paths`: PEM files with chain and key, and folders of them (see [`folder`]).
    ///
    /// With what was read `before`, a pair that can't be used now gives way to what it held then, or is left out: one
    /// half-written renewal must not hold up the others. Without, every fault counts.
    ///
    /// # Errors
    /// When nothing usable is there, or any file in it can't be read, parsed or paired: all such faults at once.
    pub fn read(paths: &[PathBuf], before: Option<&Self>) -> Result<Self, Unusable> {
        let mut read = Self::default();
        let mut faults = Vec::new();
        for path in paths {
            read.files.push(path.clone());
            let pairs = match folder::pairs(path, &mut read.files) {
                Ok(pairs) => pairs,
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            };
            for pair in pairs {
                match certificate(&pair, &mut read.files) {
                    Ok(certificate) => read.entries.push(certificate),
                    Err(fault) => match before {
                        Some(before) => read.make_do(&pair, &fault, before),
                        None => faults.push(fault),
                    },
                }
            }
        }
        if faults.is_empty() && read.entries.is_empty() {
            faults.extend(read.left_out.drain(..).map(|sentence| CertificateFault { sentence, hint: None }));
        }
        if !faults.is_empty() {
            return Err(Unusable { faults, files: read.files });
        }
        read.default_first(|entry| folder::is_default(&entry.file));
        Ok(read)
    }

    /// Moves the default to the front, where there is one.
    pub fn default_first(&mut self, is_default: impl Fn(&Certificate) -> bool) {
        if let Some(default) = self.entries.iter().position(is_default) {
            self.entries[..=default].rotate_right(1);
        }
    }

    /// What the pair held before stands in for it.
    fn make_do(&mut self, pair: &Pair, fault: &CertificateFault, before: &Self) {
        match before.entries.iter().find(|entry| entry.file == pair.chain) {
            Some(known) => {
                self.entries.push(Certificate { stale: Some(fault.sentence.clone()), ..known.clone() });
            }
            None => self.left_out.push(fault.sentence.clone()),
        }
    }
}

/// Reads one chain with its key; `files` takes note of what was looked at.
fn certificate(pair: &Pair, files: &mut Vec<PathBuf>) -> Result<Certificate, CertificateFault> {
    let file = &pair.chain;
    files.push(file.clone());
    let text = contents(file)?;
    let chain = chain(file, &text)?;
    let key = match key_in(file, &text)? {
        Some(key) => key,
        None => {
            // Watched also when it isn't there: its coming mends what is wrong.
            files.push(pair.key.clone());
            if pair.key == *file || !pair.key.exists() {
                let hint = format!("put the key into the same file, or into {} beside it", shown(&pair.key));
                return Err(fault(file, "has no private key", Some(hint)));
            }
            let text = contents(&pair.key)?;
            key_in(&pair.key, &text)?.ok_or_else(|| fault(&pair.key, "holds no private key", None))?
        }
    };
    matched(file, chain, &key)
}

/// A chain with its key, if they belong together.
fn matched(
    file: &Path,
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<Certificate, CertificateFault> {
    let key = any_supported_type(key)
        .map_err(|_| fault(file, "comes with a key of an unknown kind", Some(KEY_KINDS.to_owned())))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Not every kind of key tells its public half; the handshake would show it.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(Error::InconsistentKeys(_)) => {
            let hint = "the certificate must come first in its file, its intermediates after it";
            return Err(fault(file, "and its private key don't belong together", Some(hint.to_owned())));
        }
        Err(_) => return Err(fault(file, "holds something that is not a certificate", None)),
    }
    described(file.to_owned(), certified)
        .ok_or_else(|| fault(file, "holds something that is not a certificate", None))
}

/// The certificate with the names and the dates that it states.
pub(crate) fn described(file: PathBuf, certified: CertifiedKey) -> Option<Certificate> {
    let (_, leaf) = X509Certificate::from_der(certified.cert.first()?).ok()?;
    let (names, validity) = (dns_names(&leaf), Validity::of(&leaf));
    Some(Certificate { file, names, validity, key: Arc::new(certified), stale: None })
}

/// The certificate with which Weir shows itself to servers, and its key.
///
/// # Errors
/// When the files can't be read or don't belong together.
pub fn read_pair(chain: &Path, key: &Path) -> Result<Certificate, CertificateFault> {
    certificate(&Pair { chain: chain.to_owned(), key: key.to_owned() }, &mut Vec::new())
}

/// The certificate and the key in a text. `file` is what it is called.
///
/// # Errors
/// When either is missing, or they don't belong together.
pub fn from_text(file: &Path, text: &[u8]) -> Result<Certificate, CertificateFault> {
    let chain = chain(file, text)?;
    let key = key_in(file, text)?.ok_or_else(|| fault(file, "has no private key", None))?;
    matched(file, chain, &key)
}

/// What `path` holds, a PEM file or a folder of them, as texts with chain and key each. `key`: the key of a file that doesn't
/// hold it, where it isn't beside it.
///
/// # Errors
/// As [`Certificates::read`]: all faults at once.
pub fn texts(path: &Path, key: Option<&Path>) -> Result<Vec<(Certificate, Vec<u8>)>, Vec<CertificateFault>> {
    let mut pairs = folder::pairs(path, &mut Vec::new()).map_err(|fault| vec![fault])?;
    if let ([pair], Some(key)) = (&mut *pairs, key) {
        pair.key = key.to_owned();
    }
    let (mut texts, mut faults) = (Vec::new(), Vec::new());
    for pair in pairs {
        let read = certificate(&pair, &mut Vec::new()).and_then(|certificate| {
            let mut text = contents(&pair.chain)?;
            if key_in(&pair.chain, &text)?.is_none() {
                text.push(b'\n');
                text.extend(contents(&pair.key)?);
            }
            Ok((certificate, text))
        });
        match read {
            Ok(read) => texts.push(read),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(texts) } else { Err(faults) }
}

/// Reads the authorities of a PEM file.
///
/// # Errors
/// When the file can't be read, or holds no certificate, or one that is no authority's.
pub fn read_authorities(path: &Path) -> Result<Arc<RootCertStore>, CertificateFault> {
    authorities_of(path, &contents(path)?)
}

/// The authorities of a text, which is called `path` in messages.
///
/// # Errors
/// When it holds no certificate, or one that is no authority's.
pub fn authorities_of(path: &Path, text: &[u8]) -> Result<Arc<RootCertStore>, CertificateFault> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path, text)? {
        roots
            .add(certificate)
            .map_err(|_| fault(path, "holds a certificate that can't be an authority", None))?;
    }
    Ok(Arc::new(roots))
}

const KEY_KINDS: &str = "RSA, ECDSA (P-256, P-384, P-521) and Ed25519 keys can be used";

fn contents(path: &Path) -> Result<Vec<u8>, CertificateFault> {
    let read = || {
        let about = std::fs::metadata(path)?;
        if !about.is_file() || about.len() > LARGEST {
            return Err(io::Error::other("it is not a plain file of at most 1 MiB"));
        }
        std::fs::read(path)
    };
    read().map_err(|error| unreadable(path, &error))
}

fn chain(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateFault> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let chain = chain.map_err(|_| fault(path, "is not a whole PEM file", Some(PEM.to_owned())))?;
    if chain.is_empty() {
        return Err(fault(path, "holds no certificate", Some(PEM.to_owned())));
    }
    if chain.iter().any(|certificate| X509Certificate::from_der(certificate).is_err()) {
        return Err(fault(path, "holds something that is not a certificate", None));
    }
    Ok(chain)
}

const PEM: &str = "a PEM file is text with `-----BEGIN CERTIFICATE-----` in it";

fn key_in(path: &Path, text: &[u8]) -> Result<Option<PrivateKeyDer<'static>>, CertificateFault> {
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => Ok(Some(key)),
        Err(pem::Error::NoItemsFound) => {
            let encrypted = text.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED);
            if encrypted {
                let hint =
                    "Weir asks nobody for a passphrase: `openssl pkey -in … -out …` takes it off".to_owned();
                return Err(fault(path, "holds an encrypted private key", Some(hint)));
            }
            Ok(None)
        }
        Err(_) => Err(fault(path, "is not a whole PEM file", None)),
    }
}

const ENCRYPTED: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";

fn dns_names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternative)) = leaf.subject_alternative_name() else { return Vec::new() };
    let names = alternative.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

fn unreadable(path: &Path, error: &io::Error) -> CertificateFault {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Some("the user that Weir runs as must be able to read it".to_owned())
        }
        _ => None,
    };
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    fault(path, format_args!("can't be read: {reason}"), hint)
}

fn fault(path: &Path, what: impl fmt::Display, hint: Option<String>) -> CertificateFault {
    CertificateFault { sentence: format!("{} {what}", shown(path)), hint }
}

fn shown(path: &Path) -> String {
    format!("`{}`", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;

    struct Pair {
        certificate: String,
        key: String,
    }

    /// A certificate of the years 2020 to 2030.
    fn pair(names: &[&str]) -> Pair {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn read(path: &Path) -> Result<Certificates, Vec<CertificateFault>> {
        Certificates::read(&[path.to_owned()], None).map_err(|unusable| unusable.faults)
    }

    /// What is wrong with the files, without their folder.
    fn faults(files: &[(&str, &str)]) -> Vec<String> {
        let folder = folder(files);
        let faults = read(folder.path()).unwrap_err();
        let place = format!("{}/", folder.path().display());
        faults.iter().map(|fault| fault.to_string().replace(&place, "")).collect()
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_names() {
        let (one, two) = (pair(&["One.Example.com", "*.example.com"]), pair(&["two.example.com"]));
        let both = format!("{}{}", two.certificate, two.key);
        let folder = folder(&[
            ("b.crt", &one.certificate),
            ("b.key", &one.key),
            ("a.pem", &both),
            (".hidden.pem", "not read"),
            ("readme.txt", "not read"),
            ("orphan.key", "not read"),
        ]);
        let read = read(folder.path()).unwrap();
        let names: Vec<_> = read.entries.iter().map(|entry| entry.names.clone()).collect();
        assert_eq!(names, [vec!["two.example.com"], vec!["one.example.com", "*.example.com"]]);
        assert!(read.left_out.is_empty(), "{:?}", read.left_out);
        for file in ["", "a.pem", "b.crt", "b.key"] {
            assert!(read.files.contains(&folder.path().join(file)), "{file}");
        }
    }

    #[test]
    fn a_file_holds_its_key_or_has_it_beside() {
        let pair = pair(&["a.example.com"]);
        let folder = folder(&[
            ("whole.pem", &format!("{}{}", pair.key, pair.certificate)),
            ("apart.crt", &pair.certificate),
            ("apart.key", &pair.key),
        ]);
        for name in ["whole.pem", "apart.crt"] {
            let read = read(&folder.path().join(name)).unwrap();
            assert_eq!(read.entries[0].names, ["a.example.com"], "{name}");
        }
    }

    #[test]
    fn the_names_and_dates_are_those_of_the_certificate() {
        let pair = pair(&["A.example.com"]);
        let folder = folder(&[("a.pem", &format!("{}{}", pair.certificate, pair.key))]);
        let read = read(folder.path()).unwrap();
        assert_eq!(read.entries[0].names, ["a.example.com"]);
        assert_eq!(read.entries[0].validity.ends(), "2030-01-01 00:00 UTC");
    }

    #[test]
    fn the_certificate_called_default_comes_first() {
        let pair = pair(&["a"]);
        let both = format!("{}{}", pair.certificate, pair.key);
        let folder = folder(&[("a.pem", &both), ("b.pem", &both), ("default.pem", &both), ("z.pem", &both)]);
        let read = read(folder.path()).unwrap();
        let files = read.entries.iter().map(|entry| entry.file.file_stem().unwrap().to_str().unwrap());
        assert_eq!(files.collect::<Vec<_>>(), ["default", "a", "b", "z"]);
    }

    #[test]
    fn a_pair_that_is_broken_by_its_renewal_keeps_what_it_held() {
        let (old, new) = (pair(&["a.example"]), pair(&["a.example"]));
        let other = pair(&["b.example"]);
        let folder = folder(&[
            ("a.crt", &old.certificate),
            ("a.key", &old.key),
            ("b.pem", &format!("{}{}", other.certificate, other.key)),
        ]);
        let paths = [folder.path().to_owned()];
        let before = Certificates::read(&paths, None).unwrap();
        fs::write(folder.path().join("a.crt"), &new.certificate).unwrap();
        fs::write(folder.path().join("c.crt"), &other.certificate).unwrap();
        assert_eq!(Certificates::read(&paths, None).unwrap_err().faults.len(), 2);

        let kept = Certificates::read(&paths, Some(&before)).unwrap();
        assert_eq!(kept.entries.len(), 2);
        assert!(Arc::ptr_eq(&kept.entries[0].key, &before.entries[0].key));
        assert!(kept.entries[0].stale.as_ref().unwrap().ends_with("don't belong together"));
        assert!(kept.entries[1].stale.is_none());
        assert!(kept.left_out[0].ends_with("c.crt` has no private key"), "{:?}", kept.left_out);
        for watched in ["a.crt", "a.key", "c.crt", "c.key"] {
            assert!(kept.files.contains(&folder.path().join(watched)), "{watched}");
        }

        fs::write(folder.path().join("a.key"), &new.key).unwrap();
        let renewed = Certificates::read(&paths, Some(&kept)).unwrap();
        assert!(renewed.entries[0].stale.is_none());
        assert!(!Arc::ptr_eq(&renewed.entries[0].key, &before.entries[0].key));
    }

    #[test]
    fn what_cant_be_used_says_why() {
        let (pair, other) = (pair(&["a"]), pair(&["b"]));
        let cut = &pair.certificate[..pair.certificate.len() / 2];
        let not_x509 = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\naGVsbG8=\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let odd = "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n";
        let with = |key: &str| format!("{}{key}", pair.certificate);
        for (name, text, expected) in [
            ("a.crt", pair.certificate.clone(), "`a.crt` has no private key"),
            ("a.pem", with(&other.key), "`a.pem` and its private key don't belong together"),
            ("a.pem", String::new(), "`a.pem` holds no certificate"),
            ("a.pem", cut.to_owned(), "`a.pem` is not a whole PEM file"),
            ("a.pem", format!("{not_x509}{}", pair.key), "`a.pem` holds something that is not a certificate"),
            ("a.pem", with(locked), "`a.pem` holds an encrypted private key"),
            ("a.pem", with(odd), "`a.pem` comes with a key of an unknown kind"),
        ] {
            assert_eq!(faults(&[(name, &text)]), [expected]);
        }
        assert_eq!(faults(&[("a.crt", &pair.certificate), ("a.key", "")]), ["`a.key` holds no private key"]);
    }

    #[test]
    fn all_faults_of_a_folder_come_at_once() {
        assert_eq!(faults(&[("a.crt", ""), ("b.crt", ""), ("c.pem", "")]).len(), 3);
        let empty = folder(&[]);
        let faults = read(empty.path()).unwrap_err();
        assert!(faults[0].sentence.ends_with("holds no certificate"));
    }

    #[test]
    fn authorities_are_read() {
        let pair = pair(&["ca"]);
        let folder = folder(&[("ca.pem", &pair.certificate), ("empty.pem", "")]);
        assert_eq!(read_authorities(&folder.path().join("ca.pem")).unwrap().len(), 1);
        assert!(
            read_authorities(&folder.path().join("empty.pem"))
                .unwrap_err()
                .sentence
                .ends_with("holds no certificate")
        );
        assert!(
            read_authorities(&folder.path().join("gone.pem")).unwrap_err().sentence.ends_with("no such file")
        );
    }

    #[test]
    fn a_pair_is_one_text_wherever_its_key_was() {
        let (one, other) = (pair(&["a.example"]), pair(&["b.example"]));
        let whole = format!("{}{}", one.key, one.certificate);
        let folder = folder(&[
            ("whole.pem", &whole),
            ("apart.crt", one.certificate.trim_end()),
            ("apart.key", &one.key),
            ("elsewhere.crt", &one.certificate),
            ("secret", &one.key),
            ("other.key", &other.key),
        ]);
        let at = |name: &str| folder.path().join(name);
        for (file, key) in [("whole.pem", None), ("apart.crt", None), ("elsewhere.crt", Some(at("secret")))] {
            let read = texts(&at(file), key.as_deref()).unwrap();
            let again = from_text(Path::new("store:a"), &read[0].1).unwrap();
            assert_eq!((read.len(), &*again.names), (1, &["a.example".to_owned()][..]), "{file}");
            assert!(again.key.keys_match().is_ok());
        }
        assert!(texts(&at("elsewhere.crt"), None).is_err());
        assert!(texts(&at("elsewhere.crt"), Some(&at("other.key"))).is_err());
        assert_eq!(
            texts(folder.path(), None).unwrap_err().len(),
            1,
            "of a folder none is taken if one is faulty"
        );
        let fault = from_text(Path::new("store:a"), one.certificate.as_bytes()).unwrap_err();
        assert_eq!(fault.to_string(), "`store:a` has no private key");
    }

    #[test]
    fn a_key_is_never_shown() {
        let pair = pair(&["a"]);
        let folder = folder(&[("a.pem", &format!("{}{}", pair.certificate, pair.key))]);
        let read = read(folder.path()).unwrap();
        let shown = format!("{:?}", read.entries[0].key.key);
        assert_eq!(shown, "EcdsaSigningKey { algorithm: ECDSA }");
    }
}
