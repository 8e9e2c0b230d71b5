//! Certificates and authorities as they are read from files: whole, matching and usable, or a fault that says why.
//!
//! Reading happens while the configuration is validated, never on the path of a connection. Nothing here prints,
//! logs or keeps a private key other than inside [`CertifiedKey`], whose `Debug` names the algorithm alone.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::{
    Error, InconsistentKeys, RootCertStore,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A file with a chain and a key has a few thousand bytes; what is larger is something else.
const LARGEST: u64 = 1 << 20;

/// The certificates of an entrypoint, chosen by SNI.
#[derive(Debug)]
pub struct Certificates {
    /// In the order of their file names; the first is the default, for a client that names no host or an unknown one.
    pub entries: Vec<Certificate>,
    /// What is usable but not as it should be: expired, not yet valid, without names. Sentences that name the file.
    pub warnings: Vec<String>,
    /// Every file that was read, and the folder: for a watcher.
    pub files: Vec<PathBuf>,
}

/// A certificate chain with its key, and the names that it is good for.
#[derive(Debug)]
pub struct Certificate {
    pub file: PathBuf,
    /// The subject's DNS names, lower case, wildcards as `*.example.com`.
    pub names: Vec<String>,
    pub key: Arc<CertifiedKey>,
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

impl Certificates {
    /// Reads `path`: a PEM file with chain and key, or a folder of `NAME.crt`/`NAME.pem` with `NAME.key` beside each
    /// (a PEM that carries its own key needs none). A single file may have its key beside it too.
    ///
    /// # Errors
    /// When nothing usable is there, or any file in it can't be read, parsed or paired: all such faults at once.
    pub fn read(path: &Path) -> Result<Self, Vec<CertificateFault>> {
        Self::read_at(path, SystemTime::now())
    }

    /// `now` decides what has expired.
    pub(crate) fn read_at(path: &Path, now: SystemTime) -> Result<Self, Vec<CertificateFault>> {
        let mut read = Self { entries: Vec::new(), warnings: Vec::new(), files: vec![path.to_owned()] };
        let files = if path.is_dir() { certificate_files(path)? } else { vec![path.to_owned()] };
        let mut faults = Vec::new();
        for file in files {
            if let Err(fault) = read.add(file, now) {
                faults.push(fault);
            }
        }
        if faults.is_empty() { Ok(read) } else { Err(faults) }
    }

    fn add(&mut self, file: PathBuf, now: SystemTime) -> Result<(), CertificateFault> {
        let text = contents(&file)?;
        let chain = chain(&file, &text)?;
        let beside = file.with_extension("key");
        let key = match key_in(&file, &text)? {
            Some(key) => key,
            None if beside != file && beside.exists() => {
                self.files.push(beside.clone());
                let text = contents(&beside)?;
                key_in(&beside, &text)?.ok_or_else(|| fault(&beside, "holds no private key", None))?
            }
            None => {
                let hint = format!("put the key into the same file, or into {} beside it", shown(&beside));
                return Err(fault(&file, "has no private key", Some(hint)));
            }
        };
        let key = any_supported_type(&key)
            .map_err(|_| fault(&file, "comes with a key of an unknown kind", Some(KEY_KINDS.to_owned())))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            // Not every kind of key tells its public half; the handshake would show it.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                let hint = "the certificate must come first in its file, its intermediates after it";
                return Err(fault(&file, "and its private key don't belong together", Some(hint.to_owned())));
            }
            Err(_) => return Err(fault(&file, "holds something that is not a certificate", None)),
        }
        let names = self.inspect(&file, &certified, now)?;
        self.files.push(file.clone());
        self.entries.push(Certificate { file, names, key: Arc::new(certified) });
        Ok(())
    }

    /// The names of a certificate; warnings for what clients will object to.
    fn inspect(
        &mut self,
        file: &Path,
        certified: &CertifiedKey,
        now: SystemTime,
    ) -> Result<Vec<String>, CertificateFault> {
        let leaf = certified.cert.first().map_or(&[][..], |leaf| leaf.as_ref());
        let (_, leaf) = X509Certificate::from_der(leaf)
            .map_err(|_| fault(file, "holds something that is not a certificate", None))?;
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let validity = leaf.validity();
        if validity.not_after.timestamp() < now {
            self.warnings.push(format!(
                "the certificate in {} expired on {}",
                shown(file),
                validity.not_after
            ));
        }
        if validity.not_before.timestamp() > now {
            self.warnings.push(format!(
                "the certificate in {} is valid only from {}",
                shown(file),
                validity.not_before
            ));
        }
        let names = dns_names(&leaf);
        if names.is_empty() {
            self.warnings.push(format!("the certificate in {} names no host", shown(file)));
        }
        Ok(names)
    }
}

/// Reads the authorities of a PEM file.
///
/// # Errors
/// When the file can't be read, or holds no certificate, or one that is no authority's.
pub fn read_authorities(path: &Path) -> Result<Arc<RootCertStore>, CertificateFault> {
    let text = contents(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in chain(path, &text)? {
        roots
            .add(certificate)
            .map_err(|_| fault(path, "holds a certificate that can't be an authority", None))?;
    }
    Ok(Arc::new(roots))
}

const KEY_KINDS: &str = "RSA, ECDSA (P-256, P-384, P-521) and Ed25519 keys can be used";

/// The certificate files of a folder, by name. A `.key` alone is another file's, not one of them.
fn certificate_files(folder: &Path) -> Result<Vec<PathBuf>, Vec<CertificateFault>> {
    let entries = std::fs::read_dir(folder).map_err(|error| vec![unreadable(folder, &error)])?;
    let mut files: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "crt" || extension == "pem"))
        // Editors' backups and Kubernetes' own links begin with a dot.
        .filter(|path| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")))
        .collect();
    files.sort();
    if files.is_empty() {
        let hint = "put `NAME.crt` or `NAME.pem` there, with `NAME.key` beside each".to_owned();
        return Err(vec![fault(folder, "holds no certificate", Some(hint))]);
    }
    Ok(files)
}

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
    use std::{fs, time::Duration};

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

    fn in_year(year: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_556_952 + 15_000_000)
    }

    /// What is wrong with the files, without their folder.
    fn faults(files: &[(&str, &str)]) -> Vec<String> {
        let folder = folder(files);
        let faults = Certificates::read_at(folder.path(), in_year(2025)).unwrap_err();
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
        let read = Certificates::read_at(folder.path(), in_year(2025)).unwrap();
        let names: Vec<_> = read.entries.iter().map(|entry| entry.names.clone()).collect();
        assert_eq!(names, [vec!["two.example.com"], vec!["one.example.com", "*.example.com"]]);
        assert!(read.warnings.is_empty(), "{:?}", read.warnings);
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
            let read = Certificates::read_at(&folder.path().join(name), in_year(2025)).unwrap();
            assert_eq!(read.entries[0].names, ["a.example.com"], "{name}");
        }
    }

    #[test]
    fn an_expired_certificate_is_a_warning() {
        let pair = pair(&["a.example.com"]);
        let folder = folder(&[("a.pem", &format!("{}{}", pair.certificate, pair.key))]);
        let warnings = |year| Certificates::read_at(folder.path(), in_year(year)).unwrap().warnings;
        assert!(warnings(2025).is_empty());
        assert!(warnings(2031)[0].contains("expired on"));
        assert!(warnings(2019)[0].contains("valid only from"));
    }

    #[test]
    fn a_certificate_without_names_is_a_warning() {
        let pair = pair(&[]);
        let folder = folder(&[("a.pem", &format!("{}{}", pair.certificate, pair.key))]);
        assert!(
            Certificates::read_at(folder.path(), in_year(2025)).unwrap().warnings[0]
                .ends_with("names no host")
        );
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
        let faults = Certificates::read(empty.path()).unwrap_err();
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
    fn a_key_is_never_shown() {
        let pair = pair(&["a"]);
        let folder = folder(&[("a.pem", &format!("{}{}", pair.certificate, pair.key))]);
        let read = Certificates::read_at(folder.path(), in_year(2025)).unwrap();
        let shown = format!("{:?}", read.entries[0].key.key);
        assert_eq!(shown, "EcdsaSigningKey { algorithm: ECDSA }");
    }
}
