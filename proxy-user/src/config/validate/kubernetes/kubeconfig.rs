//! A kubeconfig, as `kubectl` has it: of its current context, where the API server is and who Weir is there.
//!
//! Whoever asks another program or an identity provider for a token is refused with a sentence: the daemon runs no programs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::Uri;

use crate::{
    config::{
        gather,
        model::{ApiServer, ApiToken, Secret},
        validate::fetch::checked_url,
    },
    import::traefik::tree::{self, Node, Value},
    tls::certificates::{self, ServerAuthorities},
};

/// What a file that it names may have.
const LARGEST: u64 = 1 << 20;

#[derive(Debug)]
pub struct Read {
    pub server: ApiServer,
    /// The files that it names, for a watcher.
    pub files: Vec<PathBuf>,
}

/// Reads one. `folder` is where its relative paths begin.
///
/// # Errors
/// Why it can't be used: the end of a sentence.
pub fn read(text: &str, folder: &Path) -> Result<Read, String> {
    let documents = tree::yaml("kubeconfig", text).map_err(|fault| fault.to_string())?;
    let whole = documents.first().ok_or("it is empty")?;
    let current = said(whole, "current-context").ok_or("it has no `current-context`")?;
    let context = named(whole, "contexts", "context", current)?;
    let cluster = said(context, "cluster").ok_or_else(|| format!("context `{current}` names no cluster"))?;
    let cluster = named(whole, "clusters", "cluster", cluster)?;
    let mut files = Files { folder, read: Vec::new() };
    let user = match said(context, "user") {
        Some(name) => Some(named(whole, "users", "user", name)?),
        None => None,
    };

    // 1. Where it is, and by whom it is known.
    let address = said(cluster, "server").ok_or("its cluster has no `server`")?;
    let url: Uri = checked_url(address).map_err(|(because, _)| format!("`server` {because}"))?;
    if url.path_and_query().is_some_and(|path| path.as_str() != "/") {
        return Err("`server` has a path, which is not supported".to_owned());
    }
    for key in ["proxy-url", "tls-server-name"] {
        if said(cluster, key).is_some() {
            return Err(format!("`{key}` is not supported"));
        }
    }
    let authorities = match files.bytes(cluster, "certificate-authority")? {
        _ if said(cluster, "insecure-skip-tls-verify") == Some("true") => ServerAuthorities::Anybody,
        Some((path, text)) => ServerAuthorities::Own(
            certificates::authorities_of(&path, &text).map_err(|fault| fault.to_string())?,
        ),
        None => ServerAuthorities::System,
    };

    // 2. Who we are.
    let mut server = ApiServer { address: url, authorities, token: None, certificate: None };
    if let Some(user) = user {
        for key in ["exec", "auth-provider", "username", "as"] {
            if entry(user, key).is_some() {
                let instead = "a service account's token does: `token` or `tokenFile`";
                return Err(format!("its user has `{key}`, which is not supported; {instead}"));
            }
        }
        server.token = match (said(user, "tokenFile"), said(user, "token")) {
            (Some(path), _) => Some(ApiToken::File(folder.join(path))),
            (None, Some(token)) => Some(ApiToken::Said(Secret(token.as_bytes().into()))),
            (None, None) => None,
        };
        let certificate = files.bytes(user, "client-certificate")?;
        let key = files.bytes(user, "client-key")?;
        server.certificate = match (certificate, key) {
            (Some((path, chain)), Some((_, key))) => {
                let whole = [chain, b"\n".to_vec(), key].concat();
                Some(Arc::new(certificates::from_text(&path, &whole).map_err(|fault| fault.to_string())?))
            }
            (None, None) => None,
            _ => {
                return Err(
                    "its user has one of `client-certificate` and `client-key`, and not the other".to_owned()
                );
            }
        };
    }
    Ok(Read { server, files: files.read })
}

/// Reads what stands in the file itself or in another one.
struct Files<'a> {
    folder: &'a Path,
    read: Vec<PathBuf>,
}

impl Files<'_> {
    /// Of `KEY-data` or of the file that `KEY` names, with what it is called in messages.
    fn bytes(&mut self, node: &Node, key: &str) -> Result<Option<(PathBuf, Vec<u8>)>, String> {
        let inside = format!("{key}-data");
        if let Some(text) = said(node, &inside) {
            let text: String = text.split_whitespace().collect();
            let bytes = BASE64_STANDARD.decode(text).map_err(|_| format!("`{inside}` is not base64"))?;
            return Ok(Some((PathBuf::from(inside), bytes)));
        }
        let Some(path) = said(node, key) else { return Ok(None) };
        let path = self.folder.join(path);
        self.read.push(path.clone());
        match gather::bytes(&path, LARGEST) {
            Ok(bytes) => Ok(Some((path, bytes))),
            Err(error) => Err(format!("`{key}` can't be read: {}", gather::reason(&error))),
        }
    }
}

fn entry<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    let Value::Table(table) = &node.value else { return None };
    table.iter().find(|(name, _)| name == key).map(|(_, node)| node)
}

fn said<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    match &entry(node, key)?.value {
        Value::Text(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// Of a list of `{ name, KEY }` the one of that name.
fn named<'a>(whole: &'a Node, list: &str, key: &str, name: &str) -> Result<&'a Node, String> {
    let missing = || format!("it has no {key} `{name}`");
    let Some(Value::List(items)) = entry(whole, list).map(|node| &node.value) else { return Err(missing()) };
    let item = items.iter().find(|item| said(item, "name") == Some(name)).ok_or_else(missing)?;
    entry(item, key).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "\
apiVersion: v1
kind: Config
current-context: edge
contexts:
- name: other
  context: { cluster: c, user: nobody }
- name: edge
  context:
    cluster: c
    user: weir
clusters:
- name: c
  cluster:
    server: https://10.0.0.1:6443
users:
- name: weir
  user:
    token: abc
";

    #[test]
    fn the_current_context_counts() {
        let server = read(WHOLE, Path::new("/etc")).unwrap().server;
        assert_eq!(server.address, "https://10.0.0.1:6443/");
        assert_eq!(server.token, Some(ApiToken::Said(Secret(b"abc"[..].into()))));
        let text = WHOLE.replace("token: abc", "tokenFile: token");
        let server = read(&text, Path::new("/etc/weir")).unwrap().server;
        assert_eq!(server.token, Some(ApiToken::File("/etc/weir/token".into())));
    }

    #[test]
    fn what_it_wants_and_cannot_have_is_said() {
        for (from, to, why) in [
            ("current-context: edge", "", "no `current-context`"),
            ("current-context: edge", "current-context: gone", "no context `gone`"),
            ("    user: weir", "    user: gone", "no user `gone`"),
            ("server: https://10.0.0.1:6443", "server: ftp://x", "`server` is neither https nor http"),
            ("token: abc", "exec: { command: aws }", "its user has `exec`"),
            ("token: abc", "client-certificate-data: AA==", "one of `client-certificate` and `client-key`"),
            ("server: https", "certificate-authority: none.pem\n    server: https", "no such file"),
            ("apiVersion: v1", "\t- x", "kubeconfig:"),
        ] {
            let told = read(&WHOLE.replacen(from, to, 1), Path::new("/etc")).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn authorities_and_certificates_stand_inside_or_in_files() {
        let folder = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed(vec!["api".to_owned()]).unwrap();
        let (chain, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        std::fs::write(folder.path().join("ca.pem"), &chain).unwrap();
        let user = format!(
            "client-certificate-data: {}\n    client-key-data: {}",
            BASE64_STANDARD.encode(&chain),
            BASE64_STANDARD.encode(&key)
        );
        let text = WHOLE
            .replace("token: abc", &user)
            .replace("server: ", "certificate-authority: ca.pem\n    server: ");
        let read = read(&text, folder.path()).unwrap();
        assert_eq!(read.files, [folder.path().join("ca.pem")]);
        assert!(
            matches!(read.server.authorities, ServerAuthorities::Own(_)) && read.server.certificate.is_some()
        );
    }
}
