//! Every configuration that docs/ and packaging/ show is one that Weir takes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use proxy_user::config;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == ending));
    files.sort();
    files
}

/// With files in the place of those that the example names.
fn with_files(folder: &Path, text: &str) -> String {
    let here = folder.display().to_string();
    ["/etc/letsencrypt/live", "/etc/nginx", "/etc/weir", "/etc/ssl"]
        .iter()
        .fold(text.to_owned(), |text, there| text.replace(there, &here))
}

/// What examples name: a certificate of everybody's, authorities, pages, users.
fn prepare(folder: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["app.example.com".into()]).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&key).unwrap().pem();
    let leaf = rcgen::generate_simple_self_signed(vec!["app.example.com".into()]).unwrap();
    fs::create_dir_all(folder.join("certs")).unwrap();
    fs::write(folder.join("certs/app.crt"), leaf.cert.pem()).unwrap();
    fs::write(folder.join("certs/app.key"), leaf.signing_key.serialize_pem()).unwrap();
    for name in ["origin-pull-ca.pem", "upstream-ca.pem", "client-ca.pem"] {
        fs::write(folder.join(name), &authority).unwrap();
    }
    fs::write(folder.join("maintenance.html"), "<!doctype html><title>soon</title>").unwrap();
}

/// Blocks that are configurations on their own: they say where to listen, and what leads where.
fn whole_blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line.trim()) {
            (None, "```toml") => open = Some((number + 1, String::new())),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, text)), _) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks.retain(|(_, text)| {
        text.contains("[entrypoint.") && text.contains("bind") && (text.contains("[[route]]") && text.contains("[service.") || text.contains("[process]"))
            // Shown to be wrong, or with a gap in it.
            && !text.contains('…')
    });
    blocks
}

#[test]
fn every_example_in_packaging_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let examples = files("packaging/examples", "toml");
    assert!(examples.len() >= 3, "{examples:?}");
    for file in examples {
        let text = with_files(folder.path(), &fs::read_to_string(&file).unwrap());
        if let Err(report) = config::load_text(&folder.path().join("weir.toml"), &text) {
            panic!("{}:\n{}", file.display(), report.lines());
        }
    }
}

#[test]
fn every_whole_configuration_in_the_docs_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let (mut count, mut faults) = (0, String::new());
    for file in files("docs", "md") {
        for (line, text) in whole_blocks(&fs::read_to_string(&file).unwrap()) {
            count += 1;
            if let Err(report) =
                config::load_text(&folder.path().join("weir.toml"), &with_files(folder.path(), &text))
            {
                faults.push_str(&format!("{}:{line}:\n{}\n", file.display(), report.lines()));
            }
        }
    }
    assert!(count > 3, "the docs have lost their examples");
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn the_configuration_of_the_daemonset_is_valid() {
    let text = fs::read_to_string(root().join("packaging/kubernetes/daemonset.yaml")).unwrap();
    let inside: String = text
        .lines()
        .skip_while(|line| !line.contains("weir.toml: |"))
        .skip(1)
        .take_while(|line| line.is_empty() || line.starts_with("    "))
        .map(|line| format!("{}\n", line.trim_start()))
        .collect();
    assert!(inside.contains("[entrypoint."), "{inside}");
    config::load_text(Path::new("weir.toml"), &inside).unwrap_or_else(|report| panic!("{}", report.lines()));
}
