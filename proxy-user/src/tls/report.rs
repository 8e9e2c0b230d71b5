//! What there is to say about certificates before it hurts: one sentence for each that isn't as it should be.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use super::{
    certificates::{Certificate, Certificates},
    validity::Standing,
};

/// For certificates of which nobody has said how early they are to be reported.
pub const WARNING: Duration = Duration::from_secs(30 * 24 * 3600);

/// Everything about the certificates of one entrypoint; `warning` before its end a certificate is about to expire.
pub fn sentences(certificates: &Certificates, warning: Duration, now: SystemTime) -> Vec<String> {
    let of = |certificate: &Certificate| {
        [stale(certificate), validity(certificate, warning, now), nameless(certificate)]
    };
    let of_each = certificates.entries.iter().flat_map(of).flatten();
    let left_out =
        certificates.left_out.iter().map(|why| format!("{why}; it is left out until it is mended"));
    of_each.chain(left_out).collect()
}

fn stale(certificate: &Certificate) -> Option<String> {
    certificate.stale.as_ref().map(|why| format!("{why}; the certificate that was there before stays in use"))
}

/// The sentence for where a certificate is in its life, if there is something to say.
pub fn validity(certificate: &Certificate, warning: Duration, now: SystemTime) -> Option<String> {
    let file = shown(&certificate.file);
    let validity = certificate.validity;
    match validity.standing(now, warning) {
        Standing::Fine => None,
        Standing::NotYet => {
            Some(format!("the certificate in {file} is valid only from {}", validity.begins()))
        }
        Standing::Expired => Some(format!("the certificate in {file} expired on {}", validity.ends())),
        Standing::Soon(within) => {
            let days = within.as_secs().div_ceil(24 * 3600);
            let days = if days == 1 { "a day".to_owned() } else { format!("{days} days") };
            Some(format!("the certificate in {file} expires within {days}, on {}", validity.ends()))
        }
    }
}

fn nameless(certificate: &Certificate) -> Option<String> {
    let file = shown(&certificate.file);
    certificate.names.is_empty().then(|| format!("the certificate in {file} names no host"))
}

fn shown(path: &Path) -> String {
    format!("`{}`", path.display())
}
