//! `[fleet]` and providers of kind `etcd`: what is written, what comes of it, and what is at fault where.

use std::{os::unix::fs::PermissionsExt, path::Path};

use proxy_user::{
    config::{self, model::ProviderSource},
    store::address::{Login, StoreAddress},
};

/// The lines of what is at fault.
fn faults(text: &str) -> Vec<String> {
    match config::load_text(Path::new("weir.toml"), text) {
        Ok(_) => Vec::new(),
        Err(report) => report.lines().lines().map(str::to_owned).collect(),
    }
}

const SITE: &str = "[entrypoint.http]\nbind = '127.0.0.1:8080'\n[service.a]\nservers = ['127.0.0.1:1']\n[[route]]\nservice = 'a'\n";

#[test]
fn a_store_and_a_host_s_part_in_its_fleet() {
    let text = format!(
        "[fleet]\nstore = 'store'\nhost = 'edge-1'\n[provider.store]\nkind = 'etcd'\nendpoints = ['10.0.0.5', \
         '[2001:db8::5]:2380']\nprefix = 'shop'\nuser = 'weir'\npassword_file = 'password'\n{SITE}"
    );
    let config = config::load_text(Path::new("/etc/weir/weir.toml"), &text).unwrap().config;
    let fleet = config.fleet.unwrap();
    assert_eq!((&*fleet.store, &*fleet.host), ("store", "edge-1"));
    let ProviderSource::Etcd(etcd) = &config.providers[0].source else { panic!("another kind") };
    let address = StoreAddress {
        endpoints: vec!["10.0.0.5:2379".into(), "[2001:db8::5]:2380".into()],
        prefix: "/shop/".into(),
        tls: None,
        login: Some(Login { user: "weir".into(), password_file: Some("/etc/weir/password".into()) }),
    };
    assert_eq!((&etcd.address, &*etcd.host, etcd.reports), (&address, "edge-1", true));
}

#[test]
fn the_keys_of_a_fleet_are_read_and_others_must_not_be_able_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.key");
    let text = format!(
        "[fleet]\nstore = 'store'\nhost = 'edge-1'\nkey_file = 'fleet.key'\n[provider.store]\nkind = 'etcd'\nendpoints = \
         '10.0.0.5'\n{SITE}"
    );
    let load = || config::load_text(&folder.path().join("weir.toml"), &text);
    let fault = |why: &str| {
        let lines = load().unwrap_err().lines();
        assert!(lines.contains("weir.toml:4:12: fleet.key_file: ") && lines.contains(why), "{lines}");
        assert!(lines.contains("error[W111]"), "{lines}");
    };
    fault("no such file");
    std::fs::write(&path, "secret\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    fault("line 1 is not a key");
    std::fs::write(&path, "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n").unwrap();
    let loaded = load().unwrap();
    let keys = loaded.config.fleet.unwrap().keys.unwrap();
    assert_eq!(keys.open("/weir/a", &keys.seal("/weir/a", b"secret").unwrap()).unwrap(), b"secret");
    assert!(loaded.files.contains(&path), "a change of it is seen");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    fault("every user of this host may use it (mode 0644)");
}

#[test]
fn without_a_fleet_a_store_is_only_read() {
    let text = format!("[provider.store]\nkind = 'etcd'\nendpoints = '10.0.0.5:2379'\n{SITE}");
    let config = config::load_text(Path::new("weir.toml"), &text).unwrap().config;
    let ProviderSource::Etcd(etcd) = &config.providers[0].source else { panic!("another kind") };
    assert!(!etcd.reports && etcd.address.prefix == "/weir/");
}

#[test]
fn every_fault_has_its_line() {
    let etcd = "[provider.s]\nkind = 'etcd'\nendpoints = '10.0.0.5:2379'\n";
    for (text, fault) in [
        ("[fleet]\n".to_owned(), "error[W016]: weir.toml:1:1: `[fleet]` has no `store`"),
        (
            format!("{etcd}[fleet]\nstore = 'z'\n"),
            "error[W110]: weir.toml:5:9: fleet.store: there is no provider `z`",
        ),
        (
            "[provider.s]\nkind = 'directory'\npath = '/srv'\n[fleet]\nstore = 's'\n".to_owned(),
            "error[W027]: weir.toml:5:9: fleet.store: provider `s` is no store",
        ),
        (
            format!("{etcd}[fleet]\nstore = 's'\nhost = 'edge 1'\n"),
            "error[W007]: weir.toml:6:8: fleet.host: `edge 1` is not a host's name",
        ),
        (
            "[provider.s]\nkind = 'etcd'\n".to_owned(),
            "error[W016]: weir.toml:1:11: provider `s` has no `endpoints`",
        ),
        (
            "[provider.s]\nkind = 'etcd'\nendpoints = ['http://10.0.0.5:2379']\n".to_owned(),
            "error[W009]: weir.toml:3:14: provider `s`: endpoints: `http://10.0.0.5:2379` is not an address",
        ),
        (
            format!("{etcd}user = 'weir'\n"),
            "error[W016]: weir.toml:4:8: provider `s`: a user and a password go together",
        ),
        (
            format!("{etcd}tls = {{ certificate = 'c.pem' }}\n"),
            "error[W016]: weir.toml:4:23: provider `s`: tls: a certificate and its key go together",
        ),
        (
            format!("{etcd}url = 'https://example.com'\n"),
            "error[W027]: weir.toml:4:7: provider `s`: `url` says nothing to a provider of kind `etcd`",
        ),
    ] {
        let found = faults(&format!("{text}{SITE}"));
        assert!(found.iter().any(|line| line == fault), "{fault}\nis not in\n{}", found.join("\n"));
    }
}
