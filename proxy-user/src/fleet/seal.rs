//! Seals what stands in the store and isn't for everybody who reads it, with keys that the hosts hold and the store never sees.
//!
//! A sealed value is a line of text:
//!
//! ```text
//! weir-seal:1:6f0c2a1b9d3e4f50:BASE64
//! ```
//!
//! the version of this format, which key seals it (the first 8 bytes of the SHA-256 of `weir fleet key` and the key), and in base64 (with
//! the ordinary letters and padding) a nonce of 12 bytes, the ciphertext and a tag of 16 bytes: AES-256-GCM. What is authenticated
//! beside the text is all that stands before the base64, and after it the whole key in the store, prefix included: a value
//! that was moved under another key, or to another fleet's prefix, doesn't open. An old value put back under its own key does:
//! whoever may write there can do that, and should be few.
//!
//! Nonces are random. A key is good for 2^32 of them (NIST SP 800-38D): a host that sealed something every second would get there
//! after 136 years.

use std::{fmt, fs, io, os::unix::fs::MetadataExt, path::Path};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, MAX_TAG_LEN, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest, rand,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::config;

/// What every sealed value begins with, whatever its format.
const MARK: &str = "weir-seal:";

/// The format that this weir writes.
const VERSION: &str = "1";

const KEY_LEN: usize = 32;

/// A key and the few that it takes the place of.
const MOST: usize = 8;

/// A file of [`MOST`] keys with a word about each.
const LARGEST: u64 = 16 << 10;

/// The keys of a fleet: the first seals, all of them open. Never empty.
pub struct FleetKeys(Vec<FleetKey>);

struct FleetKey {
    id: String,
    key: RandomizedNonceKey,
}

/// Why a sealed value doesn't open. `Display` is the end of a sentence about that value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealFault {
    #[error("is not sealed")]
    NotSealed,
    #[error("is sealed in a format that this weir doesn't know ({0}): upgrade it")]
    Newer(String),
    #[error("is sealed with the key {id}, and this host holds {held}: look at `key_file`")]
    OtherKey { id: String, held: String },
    #[error("was changed, cut or moved since it was sealed")]
    Damaged,
    /// The cryptography's own, which has none that are known.
    #[error("can't be sealed")]
    Unsealable,
}

/// A new key, as a line of a key file.
///
/// # Errors
/// When the system gives no randomness.
pub fn new_key() -> Result<String, String> {
    let mut key = [0; KEY_LEN];
    rand::fill(&mut key).map_err(|_| "the system gives no randomness".to_owned())?;
    Ok(BASE64_STANDARD.encode(key))
}

/// Which key sealed a value.
#[must_use]
pub fn sealed_with(sealed: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(sealed).ok()?;
    text.strip_prefix(MARK)?.split(':').nth(1)
}

// === impl FleetKeys ===

impl FleetKeys {
    /// Reads a file of keys: one a line, in base64; what follows a `#` is a note.
    ///
    /// # Errors
    /// The end of a sentence about the file. It never has a key in it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let about = fs::metadata(path).map_err(|error| config::reason_of(&error))?;
        // Of a group's members the daemon's user is one.
        if about.is_file() && about.mode() & 0o007 != 0 {
            return Err(format!(
                "every user of this host may use it (mode {:04o}): `chmod o= {}`, and make a new key if that was so for long",
                about.mode() & 0o7777,
                path.display()
            ));
        }
        let text = config::text_of(path, LARGEST).map_err(|error: io::Error| config::reason_of(&error))?;
        Self::parse(&text)
    }

    /// As [`read`](Self::read), of what stands in the file.
    ///
    /// # Errors
    /// The end of a sentence, without a key in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys: Vec<FleetKey> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let written = line.split('#').next().unwrap_or_default().trim();
            if written.is_empty() {
                continue;
            }
            let bytes = BASE64_STANDARD.decode(written).ok().filter(|bytes| bytes.len() == KEY_LEN);
            let key = bytes.and_then(|bytes| FleetKey::new(&bytes).ok()).ok_or_else(|| {
                format!("line {number} is not a key: 32 bytes in base64, as `weir fleet key` makes them")
            })?;
            if let Some(first) = keys.iter().position(|known| known.id == key.id) {
                return Err(format!("line {number} holds the same key as key {} before it", first + 1));
            }
            keys.push(key);
        }
        match keys.len() {
            0 => Err("it holds no key: `weir fleet key` makes one".to_owned()),
            1..=MOST => Ok(Self(keys)),
            many => Err(format!(
                "it holds {many} keys, and {MOST} are the most: take out those that seal nothing any more"
            )),
        }
    }

    /// Seals `plain` for this key of the store, its prefix included.
    ///
    /// # Errors
    /// None that are known.
    pub fn seal(&self, path: &str, plain: &[u8]) -> Result<Vec<u8>, SealFault> {
        // Never empty.
        let FleetKey { id, key } = self.0.first().ok_or(SealFault::Unsealable)?;
        let head = format!("{MARK}{VERSION}:{id}:");
        let mut body = plain.to_vec();
        let nonce =
            key.seal_in_place_append_tag(about(&head, path), &mut body).map_err(|_| SealFault::Unsealable)?;
        body.splice(..0, *nonce.as_ref());
        Ok((head + &BASE64_STANDARD.encode(body)).into_bytes())
    }

    /// Opens what was sealed for this key of the store.
    ///
    /// # Errors
    /// Why it doesn't open.
    pub fn open(&self, path: &str, sealed: &[u8]) -> Result<Vec<u8>, SealFault> {
        let text = std::str::from_utf8(sealed).map_err(|_| SealFault::NotSealed)?;
        let (version, rest) =
            text.strip_prefix(MARK).and_then(|rest| rest.split_once(':')).ok_or(SealFault::NotSealed)?;
        if version != VERSION {
            return Err(SealFault::Newer(version.chars().take(8).collect()));
        }
        let (id, body) = rest.split_once(':').ok_or(SealFault::Damaged)?;
        let Some(FleetKey { key, .. }) = self.0.iter().find(|known| known.id == id) else {
            return Err(SealFault::OtherKey { id: id.chars().take(16).collect(), held: self.ids() });
        };
        let mut body = BASE64_STANDARD.decode(body).map_err(|_| SealFault::Damaged)?;
        if body.len() < NONCE_LEN + MAX_TAG_LEN {
            return Err(SealFault::Damaged);
        }
        let mut ciphertext = body.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&body).map_err(|_| SealFault::Damaged)?;
        let head = format!("{MARK}{VERSION}:{id}:");
        let plain = key
            .open_in_place(nonce, about(&head, path), &mut ciphertext)
            .map_err(|_| SealFault::Damaged)?
            .len();
        ciphertext.truncate(plain);
        Ok(ciphertext)
    }

    /// Whether a value is sealed with the key that seals now: others wait to be sealed anew.
    #[must_use]
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        self.0.first().is_some_and(|first| sealed_with(sealed) == Some(&first.id))
    }

    /// What the keys are called, the one that seals first. Tells nothing of the keys.
    #[must_use]
    pub fn ids(&self) -> String {
        self.0.iter().map(|key| &*key.id).collect::<Vec<_>>().join(", ")
    }
}

/// What is authenticated beside the text.
fn about(head: &str, path: &str) -> Aad<Vec<u8>> {
    Aad::from([head.as_bytes(), path.as_bytes()].concat())
}

impl FleetKey {
    fn new(bytes: &[u8]) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let sum = digest::digest(&digest::SHA256, &[b"weir fleet key", bytes].concat());
        let id = sum.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { id, key: RandomizedNonceKey::new(&AES_256_GCM, bytes)? })
    }
}

/// Compared by what they are called: 64 bits of a hash each.
impl PartialEq for FleetKeys {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().map(|key| &key.id).eq(other.0.iter().map(|key| &key.id))
    }
}

impl Eq for FleetKeys {}

impl fmt::Debug for FleetKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FleetKeys({})", self.ids())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    /// A file of keys that are all this byte.
    fn keys(bytes: &[u8]) -> FleetKeys {
        let lines: Vec<_> = bytes.iter().map(|byte| BASE64_STANDARD.encode([*byte; KEY_LEN])).collect();
        FleetKeys::parse(&lines.join("\n")).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_at_its_own_place_alone(plain: Vec<u8>, path in "/[a-z/]{0,40}", other in "/[a-z/]{0,40}") {
            let keys = keys(&[1]);
            let sealed = keys.seal(&path, &plain).unwrap();
            prop_assert_eq!(keys.open(&path, &sealed), Ok(plain.clone()));
            if other != path {
                prop_assert_eq!(keys.open(&other, &sealed), Err(SealFault::Damaged));
            }
            // The same text looks different each time.
            prop_assert_ne!(keys.seal(&path, &plain).unwrap(), sealed);
        }

        #[test]
        fn nothing_of_it_can_be_changed(plain in proptest::collection::vec(any::<u8>(), 0..60), at: prop::sample::Index, to: u8) {
            let keys = keys(&[1]);
            let mut sealed = keys.seal("/weir/a", &plain).unwrap();
            let at = at.index(sealed.len());
            prop_assume!(sealed[at] != to);
            sealed[at] = to;
            prop_assert!(keys.open("/weir/a", &sealed).is_err());
        }

        #[test]
        fn nothing_of_it_can_be_left_out_or_added(plain: Vec<u8>, cut: prop::sample::Index, more in ".{1,9}") {
            let keys = keys(&[1]);
            let sealed = keys.seal("/weir/a", &plain).unwrap();
            prop_assert!(keys.open("/weir/a", &sealed[..cut.index(sealed.len())]).is_err());
            prop_assert!(keys.open("/weir/a", &[&sealed, more.as_bytes()].concat()).is_err());
        }

        #[test]
        fn nonsense_is_refused_and_harms_nothing(nonsense: Vec<u8>, rest in "[0-9a-z:/+=]{0,60}") {
            let keys = keys(&[1]);
            prop_assert_eq!(keys.open("/weir/a", &nonsense), Err(SealFault::NotSealed));
            let cut = format!("{MARK}{VERSION}:{rest}");
            prop_assert!(keys.open("/weir/a", cut.as_bytes()).is_err());
        }
    }

    #[test]
    fn a_new_key_takes_over_while_the_old_one_still_opens() {
        let (old, both, swapped, new) = (keys(&[1]), keys(&[1, 2]), keys(&[2, 1]), keys(&[2]));
        let before = old.seal("/weir/a", b"secret").unwrap();
        let after = swapped.seal("/weir/a", b"secret").unwrap();
        for (keys, opens) in
            [(&old, [true, false]), (&both, [true; 2]), (&swapped, [true; 2]), (&new, [false, true])]
        {
            assert_eq!(
                [&before, &after].map(|sealed| keys.open("/weir/a", sealed).is_ok()),
                opens,
                "{keys:?}"
            );
        }
        assert!(both.is_current(&before) && !both.is_current(&after));
        assert!(swapped.is_current(&after) && !swapped.is_current(&before));
        let fault = new.open("/weir/a", &before).unwrap_err().to_string();
        assert!(fault.contains(&old.ids()) && fault.contains(&new.ids()), "{fault}");
    }

    #[test]
    fn a_newer_format_asks_for_an_upgrade() {
        let keys = keys(&[1]);
        let sealed = String::from_utf8(keys.seal("/weir/a", b"secret").unwrap()).unwrap();
        let newer = sealed.replacen(":1:", ":2:", 1);
        assert_eq!(keys.open("/weir/a", newer.as_bytes()), Err(SealFault::Newer("2".into())));
    }

    /// Written by another implementation of AES-256-GCM (Python's `cryptography`): what stands in a store must open for ever.
    #[test]
    fn the_format_is_what_the_documentation_says() {
        let sealed = "weir-seal:1:0f0c127f28100c0a:AAECAwQFBgcICQoLeaGaFX57vD0kq5uWwFsxzR82JBhLaOB8";
        assert_eq!(keys(&[7]).open("/weir/certificates/shop", sealed.as_bytes()), Ok(b"a secret".to_vec()));
    }

    #[test]
    fn a_key_file_says_what_is_wrong_with_it_and_not_what_is_in_it() {
        let good = new_key().unwrap();
        let (again, other) = (good.clone(), new_key().unwrap());
        let keys = FleetKeys::parse(&format!("# of 2026\n{good} # ours\n\n{other}\n")).unwrap();
        assert_eq!(keys.0.len(), 2);
        for (text, why) in [
            (String::new(), "it holds no key"),
            ("# nothing\n\n".into(), "it holds no key"),
            (format!("{good}\nsecret\n"), "line 2 is not a key"),
            (good[4..].to_owned(), "line 1 is not a key"),
            (format!("{good}{other}"), "line 1 is not a key"),
            (format!("{good}\n\n{again}"), "line 3 holds the same key as key 1 before it"),
            ((0..9).map(|_| new_key().unwrap() + "\n").collect(), "it holds 9 keys"),
        ] {
            let fault = FleetKeys::parse(&text).unwrap_err();
            assert!(fault.starts_with(why), "{fault}");
            assert!(!fault.contains(&good) && !fault.contains("secret"), "{fault}");
        }
        assert!(!format!("{keys:?}").contains(&good[..8]));
    }

    #[test]
    fn a_key_file_that_everybody_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.key");
        assert_eq!(FleetKeys::read(&path).unwrap_err(), "no such file");
        fs::write(&path, new_key().unwrap()).unwrap();
        for (mode, taken) in [(0o600, true), (0o640, true), (0o400, true), (0o604, false), (0o602, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = FleetKeys::read(&path);
            assert_eq!(read.is_ok(), taken, "{mode:o}");
            assert!(read.err().is_none_or(|why| why.contains(&format!("(mode {mode:04o})"))));
        }
        assert!(FleetKeys::read(folder.path()).unwrap_err().contains("a folder"));
    }
}
