//! What providers need of the host: the socket that containers are asked about at.

use std::{fs, path::Path};

use super::Finding;
use crate::{
    config::model::{Config, DockerEndpoint, ProviderSource},
    privileges,
};

pub fn look(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for provider in &config.providers {
        if let ProviderSource::Docker(docker) = &provider.source
            && let DockerEndpoint::Unix(path) = &docker.endpoint
        {
            findings.push(socket(config, &format!("provider {}", provider.name), path));
        }
    }
    findings
}

fn socket(config: &Config, subject: &str, path: &Path) -> Finding {
    let shown = path.display();
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error) => {
            return Finding::poor(
                subject,
                format!("{shown}: {}", crate::config::reason_of(&error)),
                "start Docker (or `systemctl start podman.socket`), or write where its socket is: `endpoint`",
            );
        }
    };
    match privileges::daemon_may_use(&config.process, &about) {
        Some(false) => {
            let user = config.process.user.as_deref().unwrap_or_default();
            Finding::ill(
                subject,
                format!("{user} may not use {shown}"),
                format!(
                    "usermod --append --groups docker {user} (whoever is in that group is as good as root)"
                ),
            )
        }
        Some(true) | None => Finding::well(subject, format!("{shown} is there")),
    }
}
