//! Cookies that keep a visitor with his variant: the variant's name, and a signature over it and the split's name, so that
//! nobody chooses for himself. Pure, but for the key, which is kept in the state folder.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use aws_lc_rs::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header};

const KEY_BYTES: usize = 32;

/// Of the signature, so much is kept: nobody guesses 128 bits.
const SIGNATURE: usize = 16;

/// What cookies are signed with. Hosts that share it understand each other's.
#[derive(Debug)]
pub struct Key(hmac::Key);

impl Key {
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The one that is kept in the state folder; it is made when it is first needed.
    ///
    /// # Errors
    /// When it can be neither read nor made.
    pub fn kept(state: &Path) -> io::Result<Self> {
        let path = state.join("sticky.key");
        let mut secret = Vec::new();
        match fs::File::open(&path) {
            Ok(file) => {
                file.take(4096).read_to_end(&mut secret)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                secret = random()?;
                fs::create_dir_all(state)?;
                let beside = path.with_extension("new");
                // What an earlier start left behind may have other permissions.
                match fs::remove_file(&beside) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                let mut file =
                    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
                file.write_all(&secret)?;
                file.sync_all()?;
                fs::rename(&beside, &path)?;
            }
            Err(error) => return Err(error),
        }
        if secret.len() < KEY_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it has fewer than {KEY_BYTES} bytes"),
            ));
        }
        Ok(Self::new(&secret))
    }

    /// One that holds until the daemon ends.
    pub fn fleeting() -> Self {
        Self::new(&random().unwrap_or_else(|_| (0..KEY_BYTES).map(|_| fastrand::u8(..)).collect()))
    }

    /// The cookie's value for a variant of a split.
    pub fn sign(&self, split: &str, variant: &str) -> String {
        format!("{variant}.{}", self.signature(split, variant))
    }

    /// The variant that a cookie names, if it is one of ours.
    pub fn verify<'v>(&self, split: &str, value: &'v str) -> Option<&'v str> {
        let (variant, signature) = value.rsplit_once('.')?;
        let expected = self.signature(split, variant);
        aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_bytes(), signature.as_bytes()).ok()?;
        Some(variant)
    }

    fn signature(&self, split: &str, variant: &str) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        // Lengths first, so that no two pairs read the same.
        for text in [split, variant] {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
        URL_SAFE_NO_PAD.encode(&context.sign().as_ref()[..SIGNATURE])
    }
}

fn random() -> io::Result<Vec<u8>> {
    let mut secret = vec![0; KEY_BYTES];
    SystemRandom::new().fill(&mut secret).map_err(|_| io::Error::other("the system gives no randomness"))?;
    Ok(secret)
}

/// The values of the cookies of this name, in the order in which they were sent.
pub fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let crumbs = headers.get_all(header::COOKIE).into_iter().filter_map(|field| field.to_str().ok());
    crumbs
        .flat_map(|field| field.split(';'))
        .filter_map(move |crumb| crumb.trim().strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_cookie_names_its_variant_and_nobody_elses() {
        let key = Key::new(&[7; 32]);
        let cookie = key.sign("shop", "app");
        assert_eq!(key.verify("shop", &cookie), Some("app"));
        assert_eq!(key.verify("other", &cookie), None, "of another split");
        assert_eq!(key.verify("shop", &cookie.replace("app", "old")), None);
        assert_eq!(Key::new(&[8; 32]).verify("shop", &cookie), None, "of another key");
        for wrong in ["", "app", "app.", ".", "app.AAAA"] {
            assert_eq!(key.verify("shop", wrong), None, "{wrong}");
        }
    }

    #[test]
    fn cookies_are_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; weir_shop=x.y;weir_shop2=z".parse().unwrap());
        headers.append(header::COOKIE, "weir_shop=second".parse().unwrap());
        assert_eq!(cookies(&headers, "weir_shop").collect::<Vec<_>>(), ["x.y", "second"]);
    }

    #[test]
    fn the_key_is_kept_for_nobody_else_to_read() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let cookie = Key::kept(&state).unwrap().sign("shop", "app");
        assert_eq!(Key::kept(&state).unwrap().verify("shop", &cookie), Some("app"));
        let mode = fs::metadata(state.join("sticky.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(state.join("sticky.key"), "short").unwrap();
        assert!(Key::kept(&state).is_err(), "a damaged key is no key");
    }
}
