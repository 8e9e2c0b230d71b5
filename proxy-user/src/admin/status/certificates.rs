//! The certificates that are shown to clients, and what is wrong with any.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{
    acme::Board,
    config::model::EntrypointTls,
    control::certificates::sentences,
    snapshot::Snapshot,
    tls::certificates::{Certificate, ServerAuthorities},
};

/// The answer to `GET /api/v1/certificates`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CertificatesDocument {
    pub generation: u64,
    pub certificates: Vec<CertificateStatus>,
    /// What is wrong with any, in sentences.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CertificateStatus {
    pub entrypoint: String,
    /// `files`; `store`: the fleet's; `acme`: it is ordered.
    #[serde(default)]
    pub source: String,
    pub file: String,
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    /// `valid`, `expires_soon`, `expired` or `not_yet_valid`; `ordered`: it isn't there yet.
    pub state: String,
    /// Why its files can't be used any more; what they held before is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
    /// Of one that is ordered by ACME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderStatus>,
}

/// How it stands with the orders for a name.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OrderStatus {
    /// When the next order is due.
    pub next: Option<String>,
    /// Why the last one failed.
    pub error: Option<String>,
}

pub fn document(snapshot: &Snapshot) -> CertificatesDocument {
    CertificatesDocument {
        generation: snapshot.generation,
        certificates: of(snapshot),
        warnings: warnings(snapshot),
    }
}

pub fn of(snapshot: &Snapshot) -> Vec<CertificateStatus> {
    let now = SystemTime::now();
    let mut all = Vec::new();
    for (name, tls) in
        snapshot.config.entrypoints.iter().filter_map(|one| Some((&*one.name, one.tls.as_ref()?)))
    {
        all.extend(tls.certificates.entries.iter().map(|entry| one(name, tls, entry, now)));
        if tls.store {
            let held = snapshot.acme.shelf.held();
            let from_store =
                |entry| CertificateStatus { source: "store".to_owned(), ..one(name, tls, entry, now) };
            all.extend(held.certificates.entries.iter().map(from_store));
        }
        all.extend(tls.acme.iter().map(|host| ordered(name, tls, host, &snapshot.acme, now)));
    }
    all
}

fn ordered(
    entrypoint: &str,
    tls: &EntrypointTls,
    host: &str,
    board: &Board,
    now: SystemTime,
) -> CertificateStatus {
    let standing = board.standing(host);
    let order = Some(OrderStatus { next: standing.next.map(|next| next.to_string()), error: standing.error });
    match board.certificate(host) {
        Some(certificate) => {
            CertificateStatus { source: "acme".to_owned(), order, ..one(entrypoint, tls, &certificate, now) }
        }
        None => CertificateStatus {
            entrypoint: entrypoint.to_owned(),
            source: "acme".to_owned(),
            file: String::new(),
            names: vec![host.to_owned()],
            not_before: 0,
            not_after: 0,
            state: "ordered".to_owned(),
            stale: None,
            order,
        },
    }
}

fn one(entrypoint: &str, tls: &EntrypointTls, entry: &Certificate, now: SystemTime) -> CertificateStatus {
    CertificateStatus {
        entrypoint: entrypoint.to_owned(),
        source: "files".to_owned(),
        file: entry.file.display().to_string(),
        names: entry.names.clone(),
        not_before: entry.validity.not_before,
        not_after: entry.validity.not_after,
        state: entry.validity.standing(now, tls.expiry_warning).name().to_owned(),
        stale: entry.stale.clone(),
        order: None,
    }
}

pub fn warnings(snapshot: &Snapshot) -> Vec<String> {
    let (config, now) = (&snapshot.config, SystemTime::now());
    let insecure = config.services.iter().filter(|service| {
        service.tls.as_ref().is_some_and(|tls| matches!(tls.authorities, ServerAuthorities::Anybody))
    });
    let insecure = insecure.map(|service| {
        format!("service `{}`: its servers' certificates are not checked (`insecure`)", service.name)
    });
    sentences(config, &snapshot.acme, now)
        .into_iter()
        .chain(snapshot.acme.sentences(now))
        .chain(insecure)
        .collect()
}
