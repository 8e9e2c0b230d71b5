//! Says of certificates what is to be said before it hurts, once for each thing that is wrong: when it begins, and when it
//! comes nearer. Asked again whenever a configuration is taken over, and every hour.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use crate::{
    acme::Board,
    config::model::{Config, EntrypointTls},
    journal::{Kind, Note},
    snapshot::Snapshot,
    tls::report,
};

/// Certificates grow old without anybody's doing.
pub const LOOK: Duration = Duration::from_secs(3600);

/// What has been said, as long as it holds.
#[derive(Debug, Default)]
pub struct Reported(BTreeSet<String>);

impl Reported {
    /// Logs what is new.
    pub fn look(&mut self, snapshot: &Snapshot, now: SystemTime) {
        let holds: BTreeSet<String> = sentences(&snapshot.config, &snapshot.acme, now).into_iter().collect();
        for new in holds.difference(&self.0) {
            tracing::warn!("{new}");
            Note::new(Kind::CertificateWarning, new).write();
        }
        for gone in self.0.difference(&holds) {
            tracing::info!("no longer so: {gone}");
            Note::new(Kind::CertificateWarningOver, format!("no longer so: {gone}")).write();
        }
        self.0 = holds;
    }
}

/// What is not as it should be about the certificates of a configuration, and about those from the fleet's store.
pub fn sentences(config: &Config, board: &Board, now: SystemTime) -> Vec<String> {
    let entrypoints = config.entrypoints.iter().filter_map(|one| Some((&one.name, one.tls.as_ref()?)));
    let shown = entrypoints.flat_map(|(name, tls): (_, &EntrypointTls)| {
        let mut sentences = report::sentences(&tls.certificates, tls.expiry_warning, now);
        if tls.store {
            let held = board.shelf.held();
            sentences.extend(report::sentences(&held.certificates, tls.expiry_warning, now));
            if held.certificates.entries.is_empty() && tls.certificates.entries.is_empty() && tls.acme.is_empty() {
                sentences.push(
                    "there is no certificate to show: its own come from the fleet's store, where `weir fleet certificate add` puts them"
                        .to_owned(),
                );
            }
        }
        sentences.into_iter().map(move |sentence| format!("entrypoint `{name}`: {sentence}"))
    });
    let services = config.services.iter().filter_map(|one| {
        let own = one.tls.as_ref()?.certificate.as_ref()?;
        let sentence = report::validity(own, report::WARNING, now)?;
        Some(format!("service `{}`: {sentence}", one.name))
    });
    shown.chain(services).collect()
}
