//! `tls`, `hsts`, `http3` and `redirect`: what is understood, and the exact line that a slip gets.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::Path, sync::Arc, time::Duration};

use proxy_user::config::{
    self, Loaded,
    model::{Alpn, CipherSuites, Need, TlsVersion, UnknownHost},
};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

const REST: &str = "[service.app]\nservers = '10.0.0.1:80'\n[[route]]\nservice = 'app'\n";

/// A folder with a self-signed certificate in `c.pem`, which may be an authority's too, and `weir.toml`.
fn folder(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_pair(&folder, "c.pem", 2020..2040);
    fs::write(folder.path().join("weir.toml"), text).unwrap();
    folder
}

fn write_pair(folder: &TempDir, name: &str, years: std::ops::Range<i32>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["app.example.com".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).unwrap();
    fs::write(folder.path().join(name), own.pem() + &key.serialize_pem()).unwrap();
}

fn load(folder: &TempDir) -> Result<Loaded, Vec<String>> {
    config::load(&folder.path().join("weir.toml")).map_err(|report| {
        let place = format!("{}/", folder.path().display());
        report.diagnostics.iter().map(|one| one.line().replace(&place, "")).collect()
    })
}

/// An entrypoint with these keys in its `tls`, which begin at column 9 of line 3.
fn with_tls(keys: &str) -> String {
    format!("[entrypoint.web]\nbind = '127.0.0.1:443'\ntls = {{ {keys} }}\n{REST}")
}

#[track_caller]
fn only(text: &str, expected: &str) {
    assert_eq!(load(&folder(text)).map(|_| ()).unwrap_err(), [expected], "in: {text}");
}

#[test]
fn what_is_left_out_has_its_default() {
    let loaded = load(&folder(&with_tls("certificates = 'c.pem'"))).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let entrypoint = &loaded.config.entrypoints[0];
    let tls = entrypoint.tls.as_ref().unwrap();
    assert_eq!((tls.min_version, tls.ciphers), (TlsVersion::V1_2, CipherSuites::Intermediate));
    assert_eq!(
        (tls.alpn.as_slice(), tls.unknown_host),
        (&[Alpn::H2, Alpn::Http11][..], UnknownHost::Default)
    );
    assert_eq!(tls.expiry_warning, Duration::from_secs(30 * 86_400));
    assert!(tls.clients.is_none() && tls.hosts.is_empty() && !tls.client_headers);
    assert!(entrypoint.hsts.is_none() && entrypoint.redirect.is_none());
}

#[test]
fn all_of_it_is_understood() {
    let text = "[entrypoint.web]\nbind = '127.0.0.1:443'\nhsts = { max_age = '2y', include_subdomains = true, preload = true }\n\
         [entrypoint.web.tls]\ncertificates = ['c.pem', 'c.pem']\nciphers = 'modern'\nalpn = 'http/1.1'\n\
         unknown_host = 'refuse'\nexpiry_warning = '14d'\nclient_headers = true\n\
         [entrypoint.web.tls.host.'pull.example.com']\nclient_ca = 'c.pem'\n\
         [entrypoint.web.tls.host.'*.open.example.com']\nclient_auth = 'none'\n\
         [entrypoint.plain]\nbind = '127.0.0.1:80'\nredirect = 'https:8443'\nredirect_status = 301\n\
         redirect_except = '/health'\n\
         [service.app]\nservers = '10.0.0.1:80'\ntls = { server_name = 'a', ca = 'c.pem', client_certificate = 'c.pem' }\n\
         [[route]]\nservice = 'app'\n";
    let loaded = load(&folder(text)).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let (web, plain) = (&loaded.config.entrypoints[0], &loaded.config.entrypoints[1]);
    assert_eq!(web.hsts.as_ref().unwrap(), "max-age=63072000; includeSubDomains; preload");
    let tls = web.tls.as_ref().unwrap();
    assert_eq!((tls.min_version, tls.unknown_host), (TlsVersion::V1_3, UnknownHost::Refuse));
    assert_eq!((tls.alpn.as_slice(), tls.certificates.entries.len()), (&[Alpn::Http11][..], 2));
    let needs: Vec<_> =
        tls.hosts.iter().map(|host| host.clients.as_ref().map(|clients| clients.need)).collect();
    assert_eq!(needs, [None, Some(Need::Require)]);
    let redirect = plain.redirect.as_ref().unwrap();
    assert_eq!((redirect.port, redirect.status.as_u16(), &*redirect.except[0]), (Some(8443), 301, "/health"));
    let tls = loaded.config.services[0].tls.as_ref().unwrap();
    assert_eq!(tls.certificate.as_ref().unwrap().names, ["app.example.com"]);
}

#[test]
fn tls_settings_are_checked() {
    for (keys, expected) in [
        (
            "certificates = 'c.pem', alpn = ['h2', 'http1.1']",
            "error[W005]: weir.toml:3:47: entrypoint `web`: tls.alpn `http1.1` is neither `h2` nor `http/1.1`",
        ),
        (
            "certificates = 'c.pem', alpn = []",
            "error[W029]: weir.toml:3:40: entrypoint `web`: tls.alpn is an empty list",
        ),
        (
            "certificates = 'c.pem', alpn = ['h2', 'h2']",
            "error[W006]: weir.toml:3:47: entrypoint `web`: tls.alpn `h2` is written twice",
        ),
        (
            "certificates = 'c.pem', min_version = '1.1'",
            "error[W005]: weir.toml:3:47: `entrypoint.web.tls.min_version` is `1.1`, which is none of `1.2`, `1.3`",
        ),
        (
            "certificates = 'c.pem', ciphers = 'modern', min_version = '1.2'",
            "error[W027]: weir.toml:3:67: entrypoint `web`: `modern` cipher suites are those of TLS 1.3 alone",
        ),
        (
            "certificates = 'c.pem', client_auth = 'request'",
            "error[W027]: weir.toml:3:47: entrypoint `web`: `client_auth` without `client_ca` does nothing",
        ),
        (
            "certificates = 'c.pem', client_ca = 'c.pem', client_auth = 'none'",
            "error[W027]: weir.toml:3:68: entrypoint `web`: tls.client_auth is `none`, which is for single hosts",
        ),
        (
            "certificates = 'c.pem', client_headers = true",
            "error[W027]: weir.toml:3:50: entrypoint `web`: `client_headers` without `client_ca` has no certificate to tell of",
        ),
        (
            "certificates = 'c.pem', host.'a.b:443' = { client_ca = 'c.pem' }",
            "error[W025]: weir.toml:3:38: entrypoint `web`: tls.host `a.b:443` holds a port",
        ),
        (
            "certificates = 'c.pem', host.'a.b' = {}",
            "error[W016]: weir.toml:3:46: entrypoint `web`: tls.host `a.b` has no `client_ca`",
        ),
        (
            "certificates = 'c.pem', host.'a.b' = { client_auth = 'none', client_ca = 'c.pem' }",
            "error[W027]: weir.toml:3:82: entrypoint `web`: tls.host `a.b`: `client_auth = \"none\"` makes `client_ca` pointless",
        ),
        (
            "certificates = 'c.pem', host = { 'a.b' = { client_auth = 'none' }, 'A.b' = { client_auth = 'none' } }",
            "error[W006]: weir.toml:3:42: entrypoint `web`: tls.host `a.b` is written twice",
        ),
        (
            "certificates = 'c.pem', expiry_warning = '2y'",
            "error[W008]: weir.toml:3:50: entrypoint `web`: tls.expiry_warning is `2y`, out of range",
        ),
        (
            "certificates = ['c.pem', 'gone']",
            "error[W021]: weir.toml:3:24: entrypoint `web`: `gone` can't be read: no such file",
        ),
    ] {
        only(&with_tls(keys), expected);
    }
}

#[test]
fn redirects_and_hsts_are_checked() {
    let plain = |keys: &str| format!("[entrypoint.web]\nbind = '127.0.0.1:80'\n{keys}\n{REST}");
    for (keys, expected) in [
        (
            "redirect = 'http'",
            "error[W005]: weir.toml:3:12: entrypoint `web`: redirect `http` is neither `https` nor `https:PORT`",
        ),
        (
            "redirect = 'https:0'",
            "error[W005]: weir.toml:3:12: entrypoint `web`: redirect `https:0` is neither `https` nor `https:PORT`",
        ),
        (
            "redirect = 'https'\nredirect_status = 303",
            "error[W024]: weir.toml:4:19: entrypoint `web`: redirect_status is `303`, which is no redirect",
        ),
        (
            "redirect = 'https'\nredirect_except = 'health'",
            "error[W026]: weir.toml:4:19: entrypoint `web`: redirect_except `health` doesn't begin with `/`",
        ),
        (
            "redirect_status = 301",
            "error[W027]: weir.toml:3:19: entrypoint `web`: `redirect_status` without `redirect` does nothing",
        ),
        (
            "redirect = 'https'\ntls = { certificates = 'c.pem' }",
            "error[W027]: weir.toml:3:12: entrypoint `web` speaks HTTPS already: `redirect` would go round in circles",
        ),
        (
            "hsts = {}",
            "error[W027]: weir.toml:3:8: entrypoint `web`: `hsts` without `tls` does nothing: browsers ignore it there",
        ),
        (
            "hsts = { preload = true }\ntls = { certificates = 'c.pem' }",
            "error[W027]: weir.toml:3:20: entrypoint `web`: browsers don't take such an `hsts` for preloading",
        ),
    ] {
        only(&plain(keys), expected);
    }
}

#[test]
fn the_certificate_for_servers_is_checked() {
    let with = |keys: &str| {
        format!(
            "[entrypoint.web]\nbind = '127.0.0.1:80'\n[service.app]\nservers = '10.0.0.1:80'\n\
             tls = {{ server_name = 'a', {keys} }}\n[[route]]\nservice = 'app'\n"
        )
    };
    only(
        &with("client_key = 'c.pem'"),
        "error[W027]: weir.toml:5:41: service `app`: `client_key` without `client_certificate` does nothing",
    );
    only(
        &with("client_certificate = 'gone.pem'"),
        "error[W021]: weir.toml:5:49: service `app`: `gone.pem` can't be read: no such file",
    );
}

#[test]
fn an_entrypoint_that_sends_all_on_needs_no_route() {
    let text = "[entrypoint.web]\nbind = '127.0.0.1:80'\nredirect = 'https'\n";
    assert!(load(&folder(text)).unwrap().warnings.is_empty());
}

#[test]
fn certificates_that_trouble_visitors_are_warnings() {
    let folder = folder(&with_tls("certificates = ['c.pem', 'old.pem', 'early.pem']"));
    write_pair(&folder, "old.pem", 2010..2011);
    write_pair(&folder, "early.pem", 2090..2091);
    let warnings = load(&folder).unwrap().warnings;
    let lines: Vec<_> = warnings.iter().map(config::Diagnostic::line).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].contains("[W042]") && lines[0].ends_with("old.pem` expired on 2011-01-01 00:00 UTC"),
        "{lines:?}"
    );
    assert!(lines[1].ends_with("early.pem` is valid only from 2090-01-01 00:00 UTC"), "{lines:?}");
}

#[test]
fn in_the_place_of_what_runs_a_broken_certificate_is_a_warning() {
    let folder = folder(&with_tls("certificates = 'c.pem'"));
    let running = Arc::new(load(&folder).unwrap().config);
    fs::write(folder.path().join("c.pem"), "half a").unwrap();
    let path: &Path = &folder.path().join("weir.toml");
    assert!(config::load(path).is_err());
    let loaded = config::load_again(path, &config::documents::Supplies::new(), running.clone()).unwrap();
    assert!(loaded.warnings[0].line().ends_with("the certificate that was there before stays in use"));
    let key = |config: &config::model::Config| {
        Arc::as_ptr(&config.entrypoints[0].tls.as_ref().unwrap().certificates.entries[0].key)
    };
    assert_eq!(key(&loaded.config), key(&running));
    assert!(loaded.files.contains(&folder.path().join("c.pem")));
}

#[test]
fn http3_needs_tls() {
    only(
        &format!("[entrypoint.web]\nbind = '127.0.0.1:443'\nhttp3 = true\n{REST}"),
        "error[W027]: weir.toml:3:9: entrypoint `web`: `http3 = true` without `tls`: HTTP/3 is always encrypted",
    );
    let with = with_tls("certificates = 'c.pem'").replace("tls =", "http3 = true\ntls =");
    assert!(load(&folder(&with)).unwrap().config.entrypoints[0].http3);
    assert!(!load(&folder(&with.replace("true", "false"))).unwrap().config.entrypoints[0].http3);
}

#[test]
fn what_is_to_be_ordered_is_checked() {
    let with = |acme: &str, names: &str| {
        format!(
            "[acme]\nagree_to_terms = true\n{acme}\n[entrypoint.web]\nbind = '127.0.0.1:443'\n\
             tls = {{ acme = {names} }}\n[entrypoint.plain]\nbind = '127.0.0.1:80'\n{REST}"
        )
    };
    let loaded =
        load(&folder(&with("contact = 'ops@example.com'", "['B.example.com', 'a.example.com']"))).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let tls = loaded.config.entrypoints[0].tls.as_ref().unwrap();
    assert_eq!(tls.acme.iter().map(|name| &**name).collect::<Vec<_>>(), ["a.example.com", "b.example.com"]);
    assert!(tls.certificates.entries.is_empty());
    for (acme, names, expected) in [
        (
            "directory = 'http://ca.example/dir'",
            "'a.example.com'",
            "error[W035]: weir.toml:3:13: acme.directory `http://ca.example/dir` is not an https:// URL",
        ),
        (
            "contact = ['ops']",
            "'a.example.com'",
            "error[W005]: weir.toml:3:12: acme.contact `ops` is not a mail address",
        ),
        (
            "challenge = 'dns-01'",
            "'a.example.com'",
            "error[W005]: weir.toml:3:13: `acme.challenge` is `dns-01`, which is none of `http-01`, `tls-alpn-01`",
        ),
        (
            "",
            "['a.example.com', '*.example.com']",
            "error[W025]: weir.toml:6:34: entrypoint `web`: tls.acme `*.example.com` can't be ordered",
        ),
        (
            "",
            "'192.0.2.1'",
            "error[W025]: weir.toml:6:16: entrypoint `web`: tls.acme `192.0.2.1` can't be ordered",
        ),
        (
            "",
            "'localhost'",
            "error[W025]: weir.toml:6:16: entrypoint `web`: tls.acme `localhost` can't be ordered",
        ),
        ("", "[]", "error[W029]: weir.toml:6:16: entrypoint `web`: tls.acme is an empty list"),
    ] {
        only(&with(acme, names), expected);
    }
    only(
        &with("", "'a.example.com'").replace("agree_to_terms = true", ""),
        "error[W016]: weir.toml:1:1: acme: nobody has agreed to the authority's terms",
    );
    only(
        &with_tls("acme = 'a.example.com'"),
        "error[W016]: weir.toml:3:16: entrypoint `web`: tls.acme: there is no `[acme]` to order from",
    );
}

#[test]
fn an_order_that_cant_succeed_is_a_warning() {
    let lines = |text: &str| -> Vec<String> {
        load(&folder(text))
            .unwrap()
            .warnings
            .iter()
            .map(|one| one.line().rsplit('/').next().unwrap().to_owned())
            .collect()
    };
    let acme = "[acme]\nagree_to_terms = true\n";
    assert_eq!(
        lines(&format!("{acme}{}", with_tls("acme = 'a.example.com'"))),
        ["weir.toml:1:1: acme: no entrypoint speaks plain HTTP, by which `http-01` is asked"]
    );
    assert_eq!(
        lines(&format!("{acme}{}", with_tls("certificates = 'c.pem'"))),
        ["weir.toml:1:1: `[acme]` is never used: no entrypoint has `tls = { acme = … }`"]
    );
    let by_tls = acme.replace("[acme]", "[acme]\nchallenge = 'tls-alpn-01'");
    assert_eq!(lines(&format!("{by_tls}{}", with_tls("acme = 'a.example.com'"))), [""; 0]);
}
