//! Cookies that keep a visitor with his variant: the variant's name, and a signature over it and the split's name, so that
//! nobody chooses for himself. Pure.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::sticky::key::OwnKey;

/// Of the signature, so much is kept: nobody guesses 128 bits.
const SIGNATURE: usize = 16;

/// What cookies are signed with. Hosts that share it understand each other's.
#[derive(Debug)]
pub struct Key {
    current: Arc<hmac::Key>,
    /// What it signed still counts.
    before: Option<Arc<hmac::Key>>,
}

impl From<OwnKey> for Key {
    fn from(OwnKey { current, before, .. }: OwnKey) -> Self {
        Self { current, before }
    }
}

impl Key {
    /// The cookie's value for a variant of a split.
    pub fn sign(&self, split: &str, variant: &str) -> String {
        format!("{variant}.{}", signature(&self.current, split, variant))
    }

    /// The variant that a cookie names, if it is one of ours.
    pub fn verify<'v>(&self, split: &str, value: &'v str) -> Option<&'v str> {
        let (variant, signature) = value.rsplit_once('.')?;
        let is_by = |key: &Arc<hmac::Key>| {
            let expected = self::signature(key, split, variant);
            aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_bytes(), signature.as_bytes())
                .is_ok()
        };
        std::iter::once(&self.current).chain(&self.before).any(is_by).then_some(variant)
    }
}

fn signature(key: &hmac::Key, split: &str, variant: &str) -> String {
    let mut context = hmac::Context::with_key(key);
    // Lengths first, so that no two pairs read the same.
    for text in [split, variant] {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(&context.sign().as_ref()[..SIGNATURE])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signing_with(byte: u8) -> Key {
        Key { current: hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32]).into(), before: None }
    }

    #[test]
    fn a_cookie_names_its_variant_and_nobody_elses() {
        let key = signing_with(7);
        let cookie = key.sign("shop", "app");
        assert_eq!(key.verify("shop", &cookie), Some("app"));
        assert_eq!(key.verify("other", &cookie), None, "of another split");
        assert_eq!(key.verify("shop", &cookie.replace("app", "old")), None);
        assert_eq!(signing_with(8).verify("shop", &cookie), None, "of another key");
        let later = Key { before: Some(key.current.clone()), ..signing_with(8) };
        assert_eq!(later.verify("shop", &cookie), Some("app"), "of the key before");
        for wrong in ["", "app", "app.", ".", "app.AAAA"] {
            assert_eq!(key.verify("shop", wrong), None, "{wrong}");
        }
    }
}
