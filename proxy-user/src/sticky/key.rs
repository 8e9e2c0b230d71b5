//! The key by which cookies are signed: from a file of the operator's, or this host's own, `STATE/sticky.key`, which is made
//! when it is first needed and readable for the daemon's user alone; or the one on which the hosts of a fleet agree
//! ([`crate::fleet::shared::keys`]).

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use aws_lc_rs::{hmac, rand};

use crate::config::model::Secret;

/// As many bytes as the hash has.
pub const BYTES: usize = 32;

const FILE: &str = "sticky.key";

/// The host's own key, or its fleet's. It doesn't change while the daemon runs, whatever becomes of its file, but when the hosts of
/// a fleet agree on one.
#[derive(Clone)]
pub struct OwnKey {
    secret: [u8; BYTES],
    pub current: Arc<hmac::Key>,
    /// What it signed until then still counts.
    pub before: Option<Arc<hmac::Key>>,
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnKey").finish_non_exhaustive()
    }
}

/// The key that an operator has given.
pub fn given(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &secret.0)
}

impl OwnKey {
    /// The one that is kept below the state folder, or a new one. Where none can be kept, it is for this run alone, and
    /// that is said.
    pub fn within(state: &Path) -> Self {
        let path = state.join(FILE);
        let bytes = kept(&path).unwrap_or_else(|error| {
            tracing::warn!(
                "{} can't be used ({error}): sticky cookies are signed with a key that ends with this run, and visitors \
                 may get other servers after it; may weir write there? (`[state] dir`)",
                path.display()
            );
            fresh()
        });
        Self::of(bytes)
    }

    pub fn of(secret: [u8; BYTES]) -> Self {
        Self { secret, current: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)), before: None }
    }

    /// This one from now on, and what signed until now is still understood.
    pub fn after(self, before: &Self) -> Self {
        Self { before: Some(before.current.clone()), ..self }
    }

    /// For the other hosts of the fleet, and nobody else.
    pub fn secret(&self) -> [u8; BYTES] {
        self.secret
    }
}

fn kept(path: &Path) -> io::Result<[u8; BYTES]> {
    match fs::read(path) {
        Ok(bytes) => bytes.try_into().map_err(|bytes: Vec<u8>| {
            io::Error::other(format!(
                "it has {} bytes instead of {BYTES}; remove it for a new one",
                bytes.len()
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let bytes = fresh();
            keep(path, &bytes)?;
            Ok(bytes)
        }
        Err(error) => Err(error),
    }
}

/// Whole or not at all: half a key would sign nothing after the next start.
fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let beside = path.with_extension("new");
    // One that a crash has left may have other rights.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

/// A new one.
pub fn fresh() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    if rand::fill(&mut bytes).is_err() {
        unreachable!("the library's generator has seeded itself when it was loaded");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn signs(key: &OwnKey) -> Vec<u8> {
        hmac::sign(&key.current, b"text").as_ref().to_vec()
    }

    #[test]
    fn a_key_is_made_once_and_kept_for_the_daemon_alone() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("not/yet");
        let first = signs(&OwnKey::within(&folder));
        assert_eq!(signs(&OwnKey::within(&folder)), first);
        let mode = fs::metadata(folder.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(signs(&OwnKey::within(state.path())), first);
    }

    #[test]
    fn a_damaged_key_is_left_alone_and_another_one_serves() {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join(FILE), "short").unwrap();
        let key = OwnKey::within(state.path());
        assert_ne!(signs(&key), hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"short"), b"text").as_ref());
        assert_eq!(fs::read(state.path().join(FILE)).unwrap(), b"short");
    }
}
