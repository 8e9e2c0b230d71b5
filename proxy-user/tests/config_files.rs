//! What lies in files: several configuration files, lists, pages, certificates; and what a watcher is told to watch.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::Path};

use proxy_user::config::{self, Loaded, Report};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tempfile::TempDir;

const APP: &str = "[service.app]\nservers = '10.0.0.1:80'\n[[route]]\nservice = 'app'\n";
const WEB: &str = "[entrypoint.web]\nbind = '127.0.0.1:80'\n";

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

/// Loads `name` in the folder, or the folder itself.
fn load(folder: &TempDir, name: &str) -> Result<Loaded, Report> {
    config::load(&if name.is_empty() { folder.path().to_owned() } else { folder.path().join(name) })
}

/// The lines of a report, without the folder's own path.
fn lines(folder: &TempDir, outcome: Result<Loaded, Report>) -> Vec<String> {
    let report = outcome.expect_err("a fault");
    let place = format!("{}/", folder.path().display());
    report.lines().lines().map(|line| line.replace(&place, "")).collect()
}

#[test]
fn a_folder_is_one_configuration() {
    let folder = folder(&[("10-web.toml", WEB), ("20-app.toml", APP), ("notes.txt", "not read")]);
    let loaded = load(&folder, "").unwrap();
    assert_eq!((loaded.config.entrypoints.len(), loaded.config.routes.len()), (1, 1));
    let expected =
        [folder.path().to_owned(), folder.path().join("10-web.toml"), folder.path().join("20-app.toml")];
    assert_eq!(loaded.files, expected);
}

#[test]
fn a_name_in_two_files_shows_both_places() {
    let folder = folder(&[
        ("a.toml", &format!("{WEB}{APP}[log]\n")),
        ("b.toml", "[log]\n[service.app]\nservers = '10.0.0.2:80'"),
    ]);
    assert_eq!(
        lines(&folder, load(&folder, "")),
        [
            "error[W006]: b.toml:1:1: section `log` is written in two files",
            "  hint: first written here: a.toml:7:1; keep one of the two; `weir explain W006` says more",
            "error[W006]: b.toml:2:10: service `app` is defined twice",
            "  hint: first defined here: a.toml:3:10; keep one of the two; `weir explain W006` says more",
        ]
    );
}

#[test]
fn faults_of_all_files_come_together() {
    let folder = folder(&[
        ("a.toml", "mode = off"),
        ("b.toml", "[entrypoint.web]\nbin = '127.0.0.1:80'"),
        ("c.toml", APP),
    ]);
    let report = load(&folder, "").unwrap_err();
    let codes: Vec<_> = report.diagnostics.iter().map(|diagnostic| diagnostic.code.number()).collect();
    assert_eq!(codes, [2, 3], "{report}");
    assert_eq!(report.errors(), 2);
}

#[test]
fn a_missing_file_is_a_fault() {
    let folder = folder(&[]);
    assert_eq!(
        lines(&folder, load(&folder, "weir.toml")),
        [
            "error[W001]: weir.toml: can't be read: no such file",
            "  hint: `weir run` without a file starts with a built-in configuration to try; `weir explain W001` says more",
        ]
    );
    assert_eq!(
        load(&folder, "weir.toml").unwrap_err().files,
        [folder.path().join("weir.toml")],
        "its coming is noticed"
    );
}

#[test]
fn a_file_that_is_no_text_is_a_fault() {
    let folder = folder(&[]);
    fs::write(folder.path().join("weir.toml"), b"[log]\n\xff\xfe").unwrap();
    assert_eq!(
        lines(&folder, load(&folder, "weir.toml"))[0],
        "error[W001]: weir.toml: can't be read: line 2 is not UTF-8 text"
    );
}

#[test]
fn a_list_file_is_read_beside_the_file_that_names_it() {
    let list = "# the office\n192.0.2.0/24\n\n  2001:db8::/32   # and its IPv6\n192.0.2.7\n";
    let text = format!(
        "[allowlist.office]\nfile = 'lists/office.txt'\nprefixes = '10.0.0.0/8'\n{WEB}allow = 'office'\n{APP}"
    );
    let folder = folder(&[("weir.toml", &text), ("lists/office.txt", list)]);
    let loaded = load(&folder, "weir.toml").unwrap();
    let prefixes: Vec<_> = loaded.config.allowlists[0].prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32", "192.0.2.7/32"]);
    assert!(loaded.files.contains(&folder.path().join("lists/office.txt")));
}

#[test]
fn faults_in_a_list_file_point_into_it() {
    let text = format!("[allowlist.office]\nfile = 'office.txt'\n{WEB}allow = 'office'\n{APP}");
    let folder = folder(&[("weir.toml", &text), ("office.txt", "192.0.2.0/24\n  192.0.2.9/24 # x\n")]);
    let report = load(&folder, "weir.toml");
    assert!(
        report.as_ref().unwrap_err().render(false).contains("\n2 |   192.0.2.9/24 # x\n  |   ^^^^^^^^^^^^\n")
    );
    assert_eq!(
        lines(&folder, report)[0],
        "error[W010]: office.txt:2:3: allowlist `office`: `192.0.2.9/24` has bits set behind its length of 24"
    );
}

#[test]
fn a_file_that_is_no_list_doesnt_bury_the_rest() {
    let text = format!("[allowlist.office]\nfile = 'office.txt'\n{WEB}{APP}");
    let folder = folder(&[("weir.toml", &text), ("office.txt", &"no prefix\n".repeat(5000))]);
    let report = load(&folder, "weir.toml").unwrap_err();
    assert_eq!(report.errors(), 21);
}

#[test]
fn a_page_is_held_in_memory() {
    let text = format!("[page.maintenance]\nhtml = 'sorry.html'\n{WEB}{APP}");
    let folder = folder(&[("weir.toml", &text), ("sorry.html", "<p>sorry")]);
    let loaded = load(&folder, "weir.toml").unwrap();
    assert_eq!(&loaded.config.pages[0].html[..], b"<p>sorry");
    assert!(loaded.files.contains(&folder.path().join("sorry.html")));
}

#[test]
fn a_page_that_cant_be_served_is_a_fault() {
    let text = |file: &str| format!("[page.maintenance]\nhtml = '{file}'\n{WEB}{APP}");
    for (file, why) in [
        ("gone.html", "no such file"),
        ("empty.html", "it is empty"),
        ("large.html", "it has 1048577 bytes, and 1048576 are the most"),
        ("..", "it is a folder, not a file"),
    ] {
        let folder = folder(&[
            ("weir.toml", &text(file)),
            ("empty.html", " \n"),
            ("large.html", &"x".repeat((1 << 20) + 1)),
        ]);
        let expected =
            format!("error[W023]: weir.toml:2:8: page `maintenance`: file `{file}` can't be served: {why}");
        assert_eq!(lines(&folder, load(&folder, "weir.toml"))[0], expected);
    }
}

/// An authority's PEM, and a certificate with its key.
fn authority_and_certificate(names: &[&str]) -> (String, String, String) {
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(params, authority_key);
    let key = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    (authority.pem(), certificate.pem(), key.serialize_pem())
}

#[test]
fn certificates_and_authorities_are_read_and_watched() {
    let (authority, certificate, key) = authority_and_certificate(&["app.example.com"]);
    let text = format!(
        "{WEB}tls = {{ certificates = 'certs', client_ca = 'ca.pem' }}\n\
         {APP}[service.app.tls]\nserver_name = 'a.b'\nca = 'ca.pem'\n"
    );
    let text = text.replace("[[route]]\nservice = 'app'\n", "") + "[[route]]\nservice = 'app'\n";
    let folder = folder(&[
        ("weir.toml", &text),
        ("ca.pem", &authority),
        ("certs/app.crt", &certificate),
        ("certs/app.key", &key),
    ]);
    let loaded = load(&folder, "weir.toml").unwrap();
    let tls = loaded.config.entrypoints[0].tls.as_ref().unwrap();
    assert_eq!(tls.certificates.entries[0].names, ["app.example.com"]);
    assert_eq!(tls.clients.as_ref().unwrap().authorities.0.len(), 1);
    for file in ["ca.pem", "certs", "certs/app.crt", "certs/app.key"] {
        assert!(loaded.files.contains(&folder.path().join(file)), "{file}");
    }
}

#[test]
fn every_fault_of_a_certificate_folder_is_reported() {
    let (_, certificate, _) = authority_and_certificate(&["a"]);
    let (_, _, other_key) = authority_and_certificate(&["b"]);
    let folder = folder(&[
        ("weir.toml", &format!("{WEB}tls = {{ certificates = 'certs' }}\n{APP}")),
        ("certs/a.crt", &certificate),
        ("certs/a.key", &other_key),
        ("certs/b.pem", "nonsense"),
        ("certs/c.crt", &certificate),
    ]);
    let found = lines(&folder, load(&folder, "weir.toml"));
    let found: Vec<_> = found.iter().filter(|line| line.starts_with("error")).collect();
    assert_eq!(
        found,
        [
            "error[W021]: weir.toml:3:24: entrypoint `web`: `certs/a.crt` and its private key don't belong together",
            "error[W021]: weir.toml:3:24: entrypoint `web`: `certs/b.pem` holds no certificate",
            "error[W021]: weir.toml:3:24: entrypoint `web`: `certs/c.crt` has no private key",
        ]
    );
}

/// The examples, with the files that they name put beside them.
#[test]
fn the_packaged_examples_are_valid() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/examples");
    let (authority, certificate, key) = authority_and_certificate(&["app.example.com"]);
    let mut seen = 0;
    for entry in fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap().replace("\"/etc/weir/", "\"");
        let folder = folder(&[
            ("weir.toml", &text),
            ("origin-pull-ca.pem", &authority),
            ("upstream-ca.pem", &authority),
            ("certs/app.crt", &certificate),
            ("certs/app.key", &key),
        ]);
        let loaded =
            load(&folder, "weir.toml").unwrap_or_else(|report| panic!("{}: {report}", path.display()));
        assert!(loaded.warnings.is_empty(), "{}: {}", path.display(), loaded.report());
        seen += 1;
    }
    assert!(seen >= 3);
}
