//! Keys on which the hosts of a fleet agree: those that sign sticky cookies, and those that seal session tickets. So a client that
//! comes to another host is known there.
//!
//! They stand in the store sealed with the fleet's own keys ([`crate::fleet::seal`]), which it never sees; without `[fleet]
//! key_file` each host has its own. Whoever finds none writes one; of several, the store takes the first. The tickets' is renewed
//! every six hours, by whoever notices first. Pure, but for [`kept`] and [`keep`].

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt as _, path::PathBuf, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{LARGEST, LAYOUT};
use crate::{
    config::model::{Config, ProviderSource},
    control::trial::write_whole,
    sticky::key::BYTES,
    store::layout::SHARED,
    tls::tickets::Shared,
};

/// Below `shared/`: the key of sticky cookies, and the secrets of tickets.
pub const STICKY: &str = "keys/sticky";
pub const TICKETS: &str = "keys/tickets";

/// A ticket key is renewed when it is so old, in milliseconds; give or take what differs from host to host.
const RENEWED: i64 = 6 * 3600 * 1000;

/// So many secrets of tickets are there at once: the latest, and what may still be shown.
const MOST: usize = 3;

pub type Secret = [u8; BYTES];

#[derive(Serialize, Deserialize)]
struct StickyLayout {
    layout: u32,
    secret: String,
}

#[derive(Serialize, Deserialize)]
struct TicketsLayout {
    layout: u32,
    secrets: Vec<TicketLayout>,
}

#[derive(Serialize, Deserialize)]
struct TicketLayout {
    secret: String,
    /// In milliseconds since 1970.
    made: i64,
}

/// The secrets of tickets, the latest first, with when they were made. Never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecrets(Vec<(Secret, i64)>);

/// Where the sticky key is kept below the state folder, sealed as it stands in the store.
fn path(config: &Config) -> PathBuf {
    config.state.dir.join("fleet/sticky.sealed")
}

/// What a name below `shared/` is called in the whole store: a sealed value opens there alone.
#[must_use]
pub fn place(prefix: &str, name: &str) -> String {
    format!("{prefix}{SHARED}{name}")
}

/// The sticky key on which the fleet had agreed when this host last heard of it. Not that of tickets: on a disk it would outlive what it
/// protects.
#[must_use]
pub fn kept(config: &Config) -> Option<Secret> {
    let fleet = config.fleet.as_ref()?;
    let keys = fleet.keys.as_ref()?;
    let provider = config.providers.iter().find(|provider| provider.name == fleet.store)?;
    let ProviderSource::Etcd(etcd) = &provider.source else { return None };
    let path = path(config);
    let sealed = std::fs::read(&path).ok()?;
    let opened = keys.open(&place(&etcd.address.prefix, STICKY), &sealed).map_err(|fault| fault.to_string());
    opened
        .and_then(|plain| sticky(&plain))
        .inspect_err(|why| {
            tracing::warn!(
                "{} {why}: the fleet's key of sticky cookies comes from its store",
                path.display()
            );
        })
        .ok()
}

/// # Errors
/// When the disk doesn't take it; what was there stays.
pub fn keep(config: &Config, sealed: &[u8]) -> std::io::Result<()> {
    let path = path(config);
    let folder = path.parent().unwrap_or(&path);
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    write_whole(&path, sealed, 0o600)
}

/// # Errors
/// The end of a sentence, without the key in it.
pub fn sticky(plain: &[u8]) -> Result<Secret, String> {
    let read: StickyLayout = read(plain)?;
    known(read.layout)?;
    secret(&read.secret)
}

#[must_use]
pub fn write_sticky(secret: &Secret) -> Vec<u8> {
    let written = StickyLayout { layout: LAYOUT, secret: BASE64_STANDARD.encode(secret) };
    serde_json::to_vec(&written).unwrap_or_default()
}

// === impl TicketSecrets ===

impl TicketSecrets {
    #[must_use]
    pub fn new(secret: Secret, now: i64) -> Self {
        Self(vec![(secret, now)])
    }

    /// # Errors
    /// The end of a sentence, without a key in it.
    pub fn read(plain: &[u8]) -> Result<Self, String> {
        let read: TicketsLayout = read(plain)?;
        known(read.layout)?;
        let one = |one: &TicketLayout| secret(&one.secret).map(|secret| (secret, one.made));
        let secrets = read.secrets.iter().take(MOST).map(one).collect::<Result<Vec<_>, _>>()?;
        if secrets.is_empty() { Err("holds no key".to_owned()) } else { Ok(Self(secrets)) }
    }

    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let one = |(secret, made): &(Secret, i64)| TicketLayout {
            secret: BASE64_STANDARD.encode(secret),
            made: *made,
        };
        let written = TicketsLayout { layout: LAYOUT, secrets: self.0.iter().map(one).collect() };
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// In how many milliseconds it is time for the next one; 0: it is. `later`: so many after it could be, another number for each host,
    /// so that not all try at once. A secret from the future, by this host's clock, was made just now.
    #[must_use]
    pub fn due(&self, now: i64, later: i64) -> i64 {
        let made = self.0.first().map_or(0, |(_, made)| *made).min(now);
        (made + RENEWED + later - now).max(0)
    }

    /// With another one before them.
    #[must_use]
    pub fn renewed(&self, fresh: Secret, now: i64) -> Self {
        Self(std::iter::once((fresh, now)).chain(self.0.iter().copied()).take(MOST).collect())
    }

    /// As TLS takes them.
    #[must_use]
    pub fn shared(&self, now: i64) -> Vec<Shared> {
        let age = |made: i64| Duration::from_millis(u64::try_from(now - made).unwrap_or(0));
        self.0.iter().map(|(secret, made)| Shared { secret: *secret, age: age(*made) }).collect()
    }
}

impl std::fmt::Debug for TicketSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketSecrets({})", self.0.len())
    }
}

fn read<T: for<'a> Deserialize<'a>>(plain: &[u8]) -> Result<T, String> {
    if plain.len() > LARGEST {
        return Err(format!("has {} bytes, more than {LARGEST}", plain.len()));
    }
    // What is wrong with it may be a part of it, and so not be told.
    serde_json::from_slice(plain)
        .map_err(|error| format!("is not understood ({:?} in column {})", error.classify(), error.column()))
}

fn known(layout: u32) -> Result<(), String> {
    if layout <= LAYOUT {
        return Ok(());
    }
    Err(format!("is of layout {layout}, and this weir knows up to {LAYOUT}: upgrade it"))
}

fn secret(text: &str) -> Result<Secret, String> {
    let bytes = BASE64_STANDARD.decode(text).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("holds no key of {BYTES} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn secrets_are_read_as_they_were_written_and_garbage_is_told_without_them() {
        assert_eq!(sticky(&write_sticky(&[7; BYTES])), Ok([7; BYTES]));
        let tickets = TicketSecrets::new([1; BYTES], 5).renewed([2; BYTES], 9);
        assert_eq!(TicketSecrets::read(&tickets.write()), Ok(tickets));
        let good = String::from_utf8(write_sticky(&[7; BYTES])).unwrap();
        for (text, why) in [
            (good.replace("BwcH", ""), "no key of 32 bytes"),
            (good.replace("\"layout\":1", "\"layout\":9"), "upgrade"),
            ("\"secretsecret\"".to_owned(), "is not understood"),
        ] {
            let fault = sticky(text.as_bytes()).unwrap_err();
            assert!(fault.contains(why) && !fault.contains("secretsecret"), "{fault}");
        }
        assert!(TicketSecrets::read(b"{\"layout\":1,\"secrets\":[]}").is_err());
    }

    #[test]
    fn a_ticket_key_is_renewed_after_six_hours_and_what_may_still_be_shown_stays() {
        let begun = TicketSecrets::new([1; BYTES], 0);
        assert_eq!(begun.due(0, 0), 6 * HOUR);
        assert_eq!(begun.due(6 * HOUR, 500), 500);
        assert_eq!(begun.due(9 * HOUR, 500), 0);
        assert_eq!(begun.due(-HOUR, 0), 6 * HOUR, "by a clock that goes ahead");
        let mut now = begun;
        for nth in 2..6 {
            now = now.renewed([nth; BYTES], HOUR * 6 * i64::from(nth - 1));
        }
        let told: Vec<_> =
            now.shared(24 * HOUR).iter().map(|one| (one.secret[0], one.age.as_secs() / 3600)).collect();
        assert_eq!(told, [(5, 0), (4, 6), (3, 12)]);
    }
}
