//! The certificates that are shown to clients, and what is wrong with any.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{
    config::model::{Config, EntrypointTls},
    control::certificates::sentences,
    tls::certificates::{Certificate, ServerAuthorities},
};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateStatus {
    pub entrypoint: String,
    pub file: String,
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    /// `valid`, `expires_soon`, `expired` or `not_yet_valid`.
    pub state: String,
    /// Why its files can't be used any more; what they held before is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
}

pub fn of(config: &Config) -> Vec<CertificateStatus> {
    let now = SystemTime::now();
    let entrypoints = config.entrypoints.iter().filter_map(|one| Some((&*one.name, one.tls.as_ref()?)));
    entrypoints
        .flat_map(|(name, tls)| tls.certificates.entries.iter().map(move |entry| one(name, tls, entry, now)))
        .collect()
}

fn one(entrypoint: &str, tls: &EntrypointTls, entry: &Certificate, now: SystemTime) -> CertificateStatus {
    CertificateStatus {
        entrypoint: entrypoint.to_owned(),
        file: entry.file.display().to_string(),
        names: entry.names.clone(),
        not_before: entry.validity.not_before,
        not_after: entry.validity.not_after,
        state: entry.validity.standing(now, tls.expiry_warning).name().to_owned(),
        stale: entry.stale.clone(),
    }
}

pub fn warnings(config: &Config) -> Vec<String> {
    let insecure = config.services.iter().filter(|service| {
        service.tls.as_ref().is_some_and(|tls| matches!(tls.authorities, ServerAuthorities::Anybody))
    });
    let insecure = insecure.map(|service| {
        format!("service `{}`: its servers' certificates are not checked (`insecure`)", service.name)
    });
    sentences(config, SystemTime::now()).into_iter().chain(insecure).collect()
}
