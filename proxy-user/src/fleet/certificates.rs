//! What operators do with the certificates in the store: put there, look at, take away. They are no part of a generation: a
//! certificate is renewed when its time comes, and going back to an earlier configuration must not bring back one that has expired.

use std::path::{Path, PathBuf};

use super::{publish::PublishFault, seal::FleetKeys};
use crate::{
    store::{
        address::StoreAddress,
        etcd::Session,
        layout::{AUTHORITIES, CERTIFICATES, CERTIFICATES_MARK, LAYOUT},
    },
    tls::certificates::{self, Certificate},
};

/// The longest name of a certificate in the store.
const LONGEST: usize = 128;

/// What stands there under a name.
#[derive(Debug)]
pub struct Held {
    pub name: String,
    /// Which key sealed it.
    pub sealed_with: Option<String>,
    /// Whether that is the key which seals now.
    pub is_current: bool,
    pub certificate: Result<Certificate, String>,
}

/// What is done with sealed values, and where.
pub struct Shelves<'a> {
    pub session: &'a Session,
    pub keys: &'a FleetKeys,
    pub address: &'a StoreAddress,
}

/// What a certificate from a file is called in the store: as the file, or as the folder where all files are called alike.
///
/// # Errors
/// A sentence, when that makes no name.
pub fn name_of(file: &Path) -> Result<String, String> {
    let alike = file.file_name().is_some_and(|name| name == "fullchain.pem" || name == "tls.crt");
    let named = if alike { file.parent().and_then(Path::file_name) } else { file.file_stem() };
    let name = named.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    checked(&name).map_err(|why| format!("{}: {why}: give it one with --name", file.display()))
}

/// # Errors
/// A sentence, when it is none.
pub fn checked(name: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if (1..=LONGEST).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.') {
        return Ok(name.to_owned());
    }
    Err(format!(
        "`{name}` can't be a certificate's name, which has 1 to {LONGEST} letters, digits, dots, dashes and underscores"
    ))
}

impl Shelves<'_> {
    /// Puts a text with chain and key under a name, in the place of what is there.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn put(&self, name: &str, text: &[u8]) -> Result<(), PublishFault> {
        let key = format!("{CERTIFICATES}{name}");
        let sealed = self
            .keys
            .seal(&self.address.key(&key), text)
            .map_err(|fault| PublishFault::Refused(format!("`{name}` {fault}")))?;
        let mark = format!("{{\"layout\":{LAYOUT}}}").into_bytes();
        self.session.swap(&[], &[(&key, sealed), (CERTIFICATES_MARK, mark)]).await?;
        Ok(())
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn list(&self) -> Result<Vec<Held>, PublishFault> {
        let found = self.session.list(CERTIFICATES).await?.found;
        let held = |(name, stored): (String, crate::store::etcd::Stored)| {
            let path = self.address.key(&format!("{CERTIFICATES}{name}"));
            let opened = self.keys.open(&path, &stored.bytes).map_err(|fault| format!("it {fault}"));
            let file = PathBuf::from(&name);
            let certificate =
                opened.and_then(|text| certificates::from_text(&file, &text).map_err(|fault| fault.sentence));
            Held {
                sealed_with: super::seal::sealed_with(&stored.bytes).map(str::to_owned),
                is_current: self.keys.is_current(&stored.bytes),
                name,
                certificate,
            }
        };
        Ok(found.into_iter().map(held).collect())
    }
}

impl Shelves<'_> {
    /// Seals everything anew that isn't sealed with the key that seals now; how many there were, and what could not be opened.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn reseal(&self) -> Result<(usize, Vec<String>), PublishFault> {
        let (mut sealed, mut unopened) = (0, Vec::new());
        for below in [CERTIFICATES, AUTHORITIES] {
            for (name, stored) in self.session.list(below).await?.found {
                let key = format!("{below}{name}");
                if self.keys.is_current(&stored.bytes) {
                    continue;
                }
                let path = self.address.key(&key);
                let anew =
                    self.keys.open(&path, &stored.bytes).and_then(|plain| self.keys.seal(&path, &plain));
                match anew {
                    // Written meanwhile by somebody else: by one who seals with the key that seals now, or it is told the next time.
                    Ok(anew) => {
                        sealed += usize::from(
                            self.session.swap(&[(&key, stored.revision)], &[(&key, anew)]).await?,
                        );
                    }
                    Err(fault) => unopened.push(format!("`{path}` {fault}")),
                }
            }
        }
        Ok((sealed, unopened))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_called_as_its_file_or_its_folder() {
        for (file, name) in [
            ("/etc/weir/certs/shop.crt", Some("shop")),
            ("certs/shop.example.com.pem", Some("shop.example.com")),
            ("/etc/letsencrypt/live/shop.example.com/fullchain.pem", Some("shop.example.com")),
            ("/secrets/shop/tls.crt", Some("shop")),
            ("fullchain.pem", None),
            ("/etc/certs/a b.pem", None),
            ("/etc/certs/..pem", None),
            ("/", None),
        ] {
            assert_eq!(name_of(Path::new(file)).ok().as_deref(), name, "{file}");
        }
        assert!(checked(&"x".repeat(129)).is_err() && checked("../current").is_err());
    }
}
