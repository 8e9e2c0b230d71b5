//! The account and the certificates on disk: `STATE/acme/DIRECTORY/account.json` and `…/NAME.pem`, which holds chain and
//! key. Readable for the daemon's user alone, and replaced whole.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use instant_acme::AccountCredentials;

use crate::tls::certificates::{self, Certificate};

/// What is kept of one authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store(PathBuf);

/// What an authority's directory is called where its accounts and certificates are kept.
pub fn directory_name(directory: &str) -> String {
    let name = directory.trim_start_matches("https://").chars();
    let name: String =
        name.map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' }).collect();
    name.trim_matches(['.', '_']).to_owned()
}

impl Store {
    /// Below the state folder, which needn't exist yet. Each directory has its own: accounts and certificates of
    /// a staging authority are worth nothing to others.
    pub fn within(state: &Path, directory: &str) -> Self {
        Self(state.join("acme").join(directory_name(directory)))
    }

    /// A name consists of letters, digits, `-`, `_` and inner dots: it can't lead elsewhere.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.pem"))
    }

    fn account(&self) -> PathBuf {
        self.0.join("account.json")
    }

    /// The certificate that is kept for a name; `None` if there is none.
    ///
    /// # Errors
    /// A sentence, when there is one that can't be used.
    pub fn load(&self, name: &str) -> Result<Option<Certificate>, String> {
        let path = self.path(name);
        if !path.exists() {
            return Ok(None);
        }
        let certificate = certificates::read_pair(&path, &path).map_err(|fault| fault.sentence)?;
        Ok(Some(certificate))
    }

    /// Keeps a chain and its key for a name, and gives back what stands there now.
    ///
    /// # Errors
    /// When the disk doesn't take it, or the two are not what they should be; what was there stays.
    pub fn save(&self, name: &str, chain: &str, key: &str) -> Result<Certificate, String> {
        let path = self.path(name);
        let beside = path.with_extension("new");
        self.write(&beside, format!("{}\n{key}", chain.trim_end()).as_bytes())
            .map_err(|error| unwritable(&beside, &error))?;
        // Looked at before it takes the place of one that works.
        let certificate = certificates::read_pair(&beside, &beside).map_err(|fault| fault.sentence)?;
        self.rename(&beside, &path).map_err(|error| unwritable(&path, &error))?;
        Ok(Certificate { file: path, ..certificate })
    }

    pub fn load_account(&self) -> Option<AccountCredentials> {
        serde_json::from_slice(&self.load_account_text()?).ok()
    }

    pub fn load_account_text(&self) -> Option<Vec<u8>> {
        fs::read(self.account()).ok()
    }

    /// # Errors
    /// When the disk doesn't take it.
    pub fn save_account(&self, credentials: &AccountCredentials) -> Result<(), String> {
        let (path, beside) = (self.account(), self.0.join("account.new"));
        let text = serde_json::to_vec_pretty(credentials).map_err(|error| error.to_string())?;
        let written = self.write(&beside, &text).and_then(|()| self.rename(&beside, &path));
        written.map_err(|error| unwritable(&path, &error))
    }

    /// The authority doesn't know it any more.
    pub fn forget_account(&self) {
        // Kept beside: whoever meant to keep it finds it there.
        let _ = fs::rename(self.account(), self.0.join("account.old"));
    }

    fn write(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        // One that a crash has left may have other rights.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        File::open(&self.0)?.sync_all()
    }
}

fn unwritable(path: &Path, error: &io::Error) -> String {
    format!("`{}` can't be written: {error}; may weir write there? (`[state] dir`)", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_is_kept_for_the_daemon_alone_and_only_if_it_is_whole() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::within(state.path(), "https://ca.example/acme/directory");
        assert!(store.load("a.example").unwrap().is_none());
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        store.save("a.example", &own.pem(), &key.serialize_pem()).unwrap();
        assert_eq!(store.load("a.example").unwrap().unwrap().names, ["a.example"]);
        let path = state.path().join("acme/ca.example_acme_directory/a.example.pem");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);

        let other = KeyPair::generate().unwrap();
        assert!(store.save("a.example", &own.pem(), &other.serialize_pem()).is_err());
        assert!(store.save("a.example", "nonsense", &key.serialize_pem()).is_err());
        assert!(store.load("a.example").unwrap().is_some());
        fs::write(&path, "half").unwrap();
        assert!(store.load("a.example").is_err());
    }

    #[test]
    fn a_directory_leads_nowhere_else() {
        for directory in ["https://../../etc", "https://a/../..", "https://..", "https:////"] {
            let Store(path) = Store::within(Path::new("/state"), directory);
            assert!(path.components().all(|part| part.as_os_str() != ".."), "{path:?}");
        }
    }
}
