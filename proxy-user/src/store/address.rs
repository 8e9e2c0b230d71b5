//! Where a store is, and as whom it is spoken to: from a URL on the command line, or from a provider's section.

use std::{fmt, path::PathBuf};

/// The prefix that nobody had to write.
pub const DEFAULT_PREFIX: &str = "/weir/";

/// The port of etcd's clients.
const PORT: &str = "2379";

/// All that it takes to reach a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreAddress {
    /// `HOST:PORT`, at least one. The first that answers is used.
    pub endpoints: Vec<String>,
    /// Begins and ends with a slash.
    pub prefix: String,
    /// `None`: in the clear.
    pub tls: Option<StoreTls>,
    pub login: Option<Login>,
}

/// What is shown to the store, and by whom its certificate must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreTls {
    /// PEM of the authorities; `None`: the operating system's.
    pub ca: Option<PathBuf>,
    /// PEM files of a client certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// A user of the store. The password is read when a connection is made, so that it can be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password_file: Option<PathBuf>,
}

impl StoreAddress {
    /// A key with all that stands before it: what a sealed value is bound to.
    #[must_use]
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Reads `etcd://HOST:PORT[,HOST:PORT…][/PREFIX]`, or `etcds://` for TLS; a user may stand before the hosts, as in
    /// `etcd://pusher@…`.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "`{url}` {why}: a store is written as `etcd://10.0.0.5:2379,10.0.0.6:2379/weir`, or `etcds://…` with TLS"
            )
        };
        let (tls, rest) = match url.split_once("://") {
            Some(("etcd", rest)) => (None, rest),
            Some(("etcds", rest)) => (Some(StoreTls::default()), rest),
            Some((other, _)) => return Err(wrong(&format!("is of the kind `{other}`, which is not known"))),
            None => return Err(wrong("names no kind of store")),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match hosts.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => {
                return Err(wrong(
                    "holds a password, which every user of this host could read: use --store-password-file",
                ));
            }
            Some((user, hosts)) => (Some(Login { user: user.to_owned(), password_file: None }), hosts),
            None => (None, hosts),
        };
        let endpoints =
            hosts.split(',').map(endpoint).collect::<Result<Vec<_>, _>>().map_err(|why| wrong(&why))?;
        Ok(Self { endpoints, prefix: prefix(path), tls, login })
    }
}

/// An endpoint with its port.
///
/// # Errors
/// Why it is none, as the middle of a sentence.
pub fn endpoint(written: &str) -> Result<String, String> {
    let (host, port) = match written.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (written, PORT),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let sound = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    match port.parse::<u16>() {
        Ok(1..) if sound => Ok(format!("{host}:{port}")),
        _ => Err(format!("has no endpoint in `{written}`")),
    }
}

/// A prefix with a slash at both of its ends; nothing is the default's.
#[must_use]
pub fn prefix(written: &str) -> String {
    match written.trim_matches('/') {
        "" => DEFAULT_PREFIX.to_owned(),
        name => format!("/{name}/"),
    }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.tls.is_some() { "etcds" } else { "etcd" };
        write!(to, "{kind}://{}{}", self.endpoints.join(","), self.prefix.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_endpoints_a_prefix_and_a_user() {
        let address =
            StoreAddress::parse("etcds://pusher@10.0.0.5:2379,[2001:db8::5]:2380,three/shop/edge").unwrap();
        assert_eq!(address.endpoints, ["10.0.0.5:2379", "[2001:db8::5]:2380", "three:2379"]);
        assert_eq!(address.prefix, "/shop/edge/");
        assert_eq!(address.login.as_ref().map(|login| &*login.user), Some("pusher"));
        assert!(address.tls.is_some());
        assert_eq!(StoreAddress::parse("etcd://one").unwrap().prefix, DEFAULT_PREFIX);
        assert_eq!(StoreAddress::parse("etcd://one/").unwrap().to_string(), "etcd://one:2379/weir");
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (url, why) in [
            ("10.0.0.5:2379", "names no kind"),
            ("redis://one", "`redis`"),
            ("etcd://", "no endpoint"),
            ("etcd://one,,two", "no endpoint"),
            ("etcd://one:0", "no endpoint in `one:0`"),
            ("etcd://one:port", "no endpoint"),
            ("etcd://[one]:2379", "no endpoint"),
            ("etcd://me:secret@one", "password"),
        ] {
            let refusal = StoreAddress::parse(url).unwrap_err();
            assert!(refusal.contains(why), "{refusal}");
        }
    }
}
