//! Which files of a folder make a certificate and its key. The layouts are those that people have:
//!
//! - `NAME.crt` or `NAME.pem` with `NAME.key` beside it (also Kubernetes' `tls.crt` and `tls.key`), or with the key inside;
//! - `fullchain.pem` with `privkey.pem`, as certbot writes them; its `cert.pem` and `chain.pem` are parts of that chain;
//! - a folder of folders of either kind, such as `/etc/letsencrypt/live`. One level deep.

use std::path::{Path, PathBuf};

use super::{CertificateFault, fault, unreadable};

/// Where a chain is, and where its key is if it doesn't carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub chain: PathBuf,
    pub key: PathBuf,
}

const CERTBOT_CHAIN: &str = "fullchain.pem";
const CERTBOT_KEY: &str = "privkey.pem";

/// The pairs in `path`, by the names of their files; `path` may itself be the one file. `looked` takes note of folders.
pub fn pairs(path: &Path, looked: &mut Vec<PathBuf>) -> Result<Vec<Pair>, CertificateFault> {
    if !path.is_dir() {
        return Ok(vec![pair(path)]);
    }
    let mut pairs = in_folder(path)?;
    for below in entries(path)?.into_iter().filter(|entry| entry.is_dir()) {
        pairs.extend(in_folder(&below)?);
        looked.push(below);
    }
    if pairs.is_empty() {
        let hint = "put `NAME.crt` or `NAME.pem` there, with `NAME.key` beside each".to_owned();
        return Err(fault(path, "holds no certificate", Some(hint)));
    }
    Ok(pairs)
}

/// Whether it is the certificate for clients that name no host or an unknown one: it is called `default`, or its folder.
pub fn is_default(file: &Path) -> bool {
    let named = |name: Option<&std::ffi::OsStr>| name.is_some_and(|name| name == "default");
    let certbot = file.file_name().is_some_and(|name| name == CERTBOT_CHAIN || name == "tls.crt");
    named(file.file_stem()) || certbot && named(file.parent().and_then(Path::file_name))
}

fn in_folder(folder: &Path) -> Result<Vec<Pair>, CertificateFault> {
    let files = entries(folder)?;
    let certbot = files.iter().any(|file| named(file, CERTBOT_CHAIN));
    let chain = |file: &PathBuf| {
        let part = ["cert.pem", "chain.pem", CERTBOT_KEY].iter().any(|part| named(file, part));
        let extension = file.extension().is_some_and(|extension| extension == "crt" || extension == "pem");
        extension && !(certbot && part) && !file.is_dir()
    };
    Ok(files.into_iter().filter(chain).map(|file| pair(&file)).collect())
}

fn pair(chain: &Path) -> Pair {
    let certbot = chain.with_file_name(CERTBOT_KEY);
    let own = chain.with_extension("key");
    let key = if named(chain, CERTBOT_CHAIN) && certbot.exists() && !own.exists() { certbot } else { own };
    Pair { chain: chain.to_owned(), key }
}

fn named(file: &Path, name: &str) -> bool {
    file.file_name().is_some_and(|own| own == name)
}

/// What is in a folder, by name. Editors' backups and Kubernetes' own links begin with a dot and don't count.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, CertificateFault> {
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    let mut entries: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")))
        .collect();
    entries.sort();
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chains and keys as `CHAIN KEY`, without the folder.
    fn pairs_of(files: &[&str]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let file = folder.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        let within = |path: &Path| path.strip_prefix(folder.path()).unwrap().display().to_string();
        let pairs = pairs(folder.path(), &mut Vec::new()).unwrap();
        pairs.iter().map(|pair| format!("{} {}", within(&pair.chain), within(&pair.key))).collect()
    }

    #[test]
    fn the_layouts_that_people_have_are_understood() {
        for (files, expected) in [
            (
                &["b.crt", "b.key", "a.pem", ".c.crt", "d.key", "readme"][..],
                &["a.pem a.key", "b.crt b.key"][..],
            ),
            (&["tls.crt", "tls.key", "..data/tls.crt"], &["tls.crt tls.key"]),
            (
                &["fullchain.pem", "privkey.pem", "cert.pem", "chain.pem", "README"],
                &["fullchain.pem privkey.pem"],
            ),
            (
                &["live/a.example/fullchain.pem", "x.crt"].map(|file| file.trim_start_matches("live/")),
                &["x.crt x.key", "a.example/fullchain.pem a.example/fullchain.key"],
            ),
            (
                &["a.example/fullchain.pem", "a.example/privkey.pem", "a.example/cert.pem", "b/tls.crt"],
                &["a.example/fullchain.pem a.example/privkey.pem", "b/tls.crt b/tls.key"],
            ),
        ] {
            assert_eq!(pairs_of(files), expected, "{files:?}");
        }
    }

    #[test]
    fn the_default_is_known_by_its_name() {
        for (file, expected) in [
            ("default.crt", true),
            ("default.pem", true),
            ("default/fullchain.pem", true),
            ("default/tls.crt", true),
            ("default/a.crt", false),
            ("a.crt", false),
        ] {
            assert_eq!(is_default(Path::new(file)), expected, "{file}");
        }
    }
}
