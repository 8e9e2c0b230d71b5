//! Certificates out of Secrets, as files that an entrypoint's `certificates` names as a folder: `NAMESPACE.NAME.pem`, chain and
//! key in one, for nobody else to read. The entrypoint watches them like any other.
//!
//! A configuration never holds a key, and what is kept of documents doesn't either: these files are all there is on disk. Each
//! pair is looked at before it is put there, since one that can't be used would be a fault of the entrypoint.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    cluster::{Key, Known},
    objects::Secret,
};
use crate::{control::trial::write_whole, providers::composed::Composed, tls::certificates};

/// In a folder without any certificate an entrypoint could not begin. It is for no name that anybody asks for.
const PLACEHOLDER: &str = "0-placeholder.pem";
const PLACEHOLDER_NAME: &str = "nobody.invalid";

/// The folder, with at least the placeholder in it.
pub fn prepare(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(PLACEHOLDER);
    if path.exists() {
        return Ok(());
    }
    let own =
        rcgen::generate_simple_self_signed(vec![PLACEHOLDER_NAME.to_owned()]).map_err(io::Error::other)?;
    let text = own.cert.pem() + &own.signing_key.serialize_pem();
    write_whole(&path, text.as_bytes(), 0o600)
}

/// The files for the Secrets that somebody wants, and what is wrong with others: told at the documents of who wants them.
pub fn files(
    wanted: &BTreeSet<(Key, String)>,
    secrets: &Known<Secret>,
    composed: &mut Composed,
) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for (key, document) in wanted {
        let pair = match secrets.get(key) {
            None => Err("there is none of type kubernetes.io/tls".to_owned()),
            Some(Err(why)) => Err(why.clone()),
            Some(Ok(secret)) => pair(secret),
        };
        match pair {
            // Neither a namespace nor a Secret's name has a slash.
            Ok(pair) => _ = files.insert(format!("{}.{}.pem", key.namespace, key.name), pair),
            Err(why) => {
                composed.fault(document, format!("the certificate of secret `{key}` is not served: {why}"));
            }
        }
    }
    files
}

fn pair(secret: &Secret) -> Result<Vec<u8>, String> {
    let part = |name: &str| {
        let text = secret.data.get(name).ok_or_else(|| format!("it has no `{name}`"))?;
        BASE64_STANDARD.decode(text).map_err(|_| format!("`{name}` is not base64"))
    };
    let whole = [part("tls.crt")?, b"\n".to_vec(), part("tls.key")?].concat();
    certificates::from_text(Path::new("it"), &whole).map_err(|fault| fault.to_string())?;
    Ok(whole)
}

/// Puts these files into the folder, each in one step, and takes out others that were put there.
pub fn put(folder: &Path, files: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    prepare(folder)?;
    for (name, text) in files {
        let path = folder.join(name);
        if fs::read(&path).ok().as_deref() != Some(text) {
            write_whole(&path, text, 0o600)?;
        }
    }
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name != PLACEHOLDER && name.ends_with(".pem") && !files.contains_key(name) {
            fs::remove_file(folder.join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::tls::certificates::Certificates;

    fn secret(chain: &str, key: &str) -> Result<Secret, String> {
        let data = [("tls.crt", chain), ("tls.key", key)]
            .map(|(name, text)| (name.to_owned(), BASE64_STANDARD.encode(text)));
        Ok(Secret { data: data.into(), ..Secret::default() })
    }

    #[test]
    fn what_can_be_served_is_a_file_and_the_rest_is_told_without_its_key() {
        let own = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let (one, two) = (own("a.example"), own("b.example"));
        let (chain, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        let secrets = Known::from([
            (Key::new("shop", "fine"), secret(&chain, &key)),
            (Key::new("shop", "mixed"), secret(&chain, &two.signing_key.serialize_pem())),
            (Key::new("shop", "empty"), secret("", "")),
        ]);
        let wanted = ["fine", "mixed", "empty", "missing"]
            .map(|name| (Key::new("shop", name), "ingress/shop/x".to_owned()));
        let mut composed = Composed::default();
        let files = files(&wanted.into(), &secrets, &mut composed);
        assert_eq!(files.keys().collect::<Vec<_>>(), ["shop.fine.pem"]);
        let told = composed.documents("k")[0].text.clone().unwrap_err();
        assert_eq!(told.matches("is not served").count(), 3, "{told}");
        assert!(!told.contains("PRIVATE"), "{told}");

        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("kubernetes/k");
        prepare(&folder).unwrap();
        Certificates::read(std::slice::from_ref(&folder), None).expect("an entrypoint can begin with it");
        put(&folder, &files).unwrap();
        let read = Certificates::read(std::slice::from_ref(&folder), None).unwrap();
        assert_eq!(read.entries.len(), 2);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("shop.fine.pem"))), (0o700, 0o600));
        put(&folder, &BTreeMap::new()).unwrap();
        assert_eq!(Certificates::read(&[folder], None).unwrap().entries.len(), 1, "what is gone is gone");
    }
}
