//! Which store a command means, and with what configuration beside it.

use std::{path::PathBuf, sync::Arc};

use clap::Args;

use crate::{
    cli::{Failure, colour_on_stderr},
    config::{
        self, DEFAULT_PATH,
        model::{Config, ProviderSource},
    },
    fleet::seal::FleetKeys,
    store::address::{Login, StoreAddress, StoreTls},
};

/// How the store is reached.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// The store: `etcd://HOST:PORT,…/PREFIX` (`etcds://` with TLS), or the name of a provider in the configuration
    /// [default: what its `[fleet] store` names]
    #[arg(long, visible_alias = "store", env = "WEIR_STORE", value_name = "STORE")]
    to: Option<String>,
    /// The configuration that names providers
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// PEM file of the authorities that an `etcds://` store may have its certificate from [default: the operating system's]
    #[arg(long, env = "WEIR_STORE_CA", value_name = "FILE", hide_short_help = true)]
    store_ca: Option<PathBuf>,
    /// PEM file of a client certificate, to be shown to the store
    #[arg(
        long,
        env = "WEIR_STORE_CERTIFICATE",
        value_name = "FILE",
        requires = "store_key",
        hide_short_help = true
    )]
    store_certificate: Option<PathBuf>,
    /// PEM file of its key
    #[arg(
        long,
        env = "WEIR_STORE_KEY",
        value_name = "FILE",
        requires = "store_certificate",
        hide_short_help = true
    )]
    store_key: Option<PathBuf>,
    /// File with the password of the user that stands in the address
    #[arg(long, env = "WEIR_STORE_PASSWORD_FILE", value_name = "FILE", hide_short_help = true)]
    store_password_file: Option<PathBuf>,
}

/// A store.
#[derive(Debug)]
pub struct Place {
    pub address: StoreAddress,
    /// The configuration that named it, and what it calls it: a push is checked together with it.
    pub beside: Option<(PathBuf, String)>,
    /// What that configuration seals with, if it is its fleet's store.
    pub keys: Option<Arc<FleetKeys>>,
}

/// What opens what is sealed in the store.
#[derive(Debug, Clone, Args)]
pub struct KeyFileArgs {
    /// The fleet's key file [default: what the configuration's `[fleet] key_file` names]
    #[arg(long, env = "WEIR_FLEET_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl KeyFileArgs {
    /// # Errors
    /// When there is none, or it can't be used.
    pub fn keys(&self, place: &Place) -> Result<Arc<FleetKeys>, Failure> {
        let wrong = |why: String| Failure::BadConfig(format!("error: {why}"));
        match (&self.key_file, &place.keys) {
            (Some(path), _) => FleetKeys::read(path)
                .map(Arc::new)
                .map_err(|why| wrong(format!("{} can't be used: {why}", path.display()))),
            (None, Some(keys)) => Ok(keys.clone()),
            (None, None) => Err(wrong(
                "what is sealed in the store can't be used without the fleet's keys: say `--key-file FILE` (`weir fleet key` makes one)"
                    .to_owned(),
            )),
        }
    }
}

impl StoreArgs {
    /// # Errors
    /// When it is not clear which store is meant.
    pub fn place(&self) -> Result<Place, Failure> {
        match &self.to {
            Some(url) if url.contains("://") => {
                self.written(url).map_err(|why| Failure::BadConfig(format!("error: {why}")))
            }
            name => self.configured(name.as_deref()),
        }
    }

    fn written(&self, url: &str) -> Result<Place, String> {
        let mut address = StoreAddress::parse(url)?;
        let given = self.store_ca.is_some() || self.store_certificate.is_some();
        match &mut address.tls {
            Some(tls) => {
                let certificate = self.store_certificate.clone().zip(self.store_key.clone());
                *tls = StoreTls { ca: self.store_ca.clone(), certificate };
            }
            None if given => return Err(format!("`{url}` is spoken to without TLS: write `etcds://`")),
            None => {}
        }
        match (&mut address.login, &self.store_password_file) {
            (Some(Login { password_file, .. }), Some(file)) => *password_file = Some(file.clone()),
            (None, Some(_)) => {
                return Err(format!("`{url}` names no user whose password that would be: `etcd://USER@…`"));
            }
            (_, None) => {}
        }
        Ok(Place { address, beside: None, keys: None })
    }

    fn configured(&self, name: Option<&str>) -> Result<Place, Failure> {
        let wrong = |why: String| Failure::BadConfig(format!("error: {why}"));
        // What the rest of it says may wait for documents.
        let loaded = config::load_bare(&self.config)
            .map_err(|report| Failure::BadConfig(report.render(colour_on_stderr())))?;
        let config = &loaded.config;
        let name = match (name, &config.fleet) {
            (Some(name), _) => name.to_owned(),
            (None, Some(fleet)) => fleet.store.to_string(),
            (None, None) => {
                return Err(wrong(format!(
                    "which store? {} has no `[fleet] store`: say `--to etcd://HOST:PORT/PREFIX`",
                    self.config.display()
                )));
            }
        };
        let address = store_of(config, &name).ok_or_else(|| {
            wrong(format!("{} has no provider `{name}` of kind `etcd`", self.config.display()))
        })?;
        let keys =
            config.fleet.as_ref().filter(|fleet| *fleet.store == *name).and_then(|fleet| fleet.keys.clone());
        Ok(Place { address: address.clone(), beside: Some((self.config.clone(), name)), keys })
    }
}

fn store_of<'a>(config: &'a Config, name: &str) -> Option<&'a StoreAddress> {
    let provider = config.providers.iter().find(|provider| *provider.name == *name)?;
    match &provider.source {
        ProviderSource::Etcd(etcd) => Some(&etcd.address),
        _ => None,
    }
}
