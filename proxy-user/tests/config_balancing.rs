//! How a service's work is spread, as it is written: what it becomes, and the exact line that each fault gets.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::Path, time::Duration};

use proxy_user::config::{
    self, diff,
    model::{BalanceWay, Config, HashKey, SameSite},
};

const SOUND: &str = "[entrypoint.web]\nbind = '127.0.0.1:80'\n[[route]]\nservice = 'app'\n";

fn load(text: &str) -> Result<Config, Vec<String>> {
    config::load_text(Path::new("weir.toml"), text)
        .map(|loaded| loaded.config)
        .map_err(|report| report.diagnostics.iter().map(config::Diagnostic::line).collect())
}

/// `[service.app]` with these keys, below line 1.
fn app(keys: &str) -> String {
    let servers = if keys.contains("servers") { "" } else { "\nservers = '10.0.0.1:80'" };
    format!("[service.app]\n{keys}{servers}\n{SOUND}")
}

#[track_caller]
fn only(text: &str, expected: &str) {
    assert_eq!(load(text).unwrap_err(), [expected], "in: {text}");
}

#[test]
fn servers_are_texts_or_tables_addresses_or_names() {
    let keys = "servers = ['10.0.0.1:80', { address = 'App.Internal.:8080', weight = 3, zone = 'b', tier = 2 }, \
                { address = '[2001:db8::1]:80' }]";
    let config = load(&app(keys)).unwrap();
    let servers: Vec<_> = config.services[0].servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["10.0.0.1:80", "app.internal.:8080 weight 3 zone b tier 2", "[2001:db8::1]:80"]);
    assert_eq!(config.services[0].servers[1].addresses().count(), 0, "nobody has asked DNS");
}

#[test]
fn without_a_word_work_is_spread_in_turn() {
    let config = load(&app("")).unwrap();
    let balancing = &config.services[0].balancing;
    assert_eq!(balancing.way, BalanceWay::RoundRobin);
    assert_eq!((balancing.slow_start, balancing.tier_spill, balancing.zone_spill), (Duration::ZERO, 0, 50));
    assert!(balancing.sticky.is_none() && config.host.zone.is_none() && config.dns.servers.is_empty());
    let seconds = (config.dns.min_ttl.as_secs(), config.dns.max_ttl.as_secs(), config.dns.timeout.as_secs());
    assert_eq!(seconds, (5, 300, 2));
}

#[test]
fn every_way_can_be_written() {
    let way = |keys: &str| load(&app(keys)).unwrap().services[0].balancing.way.clone();
    assert_eq!(way("balance = 'least_requests'"), BalanceWay::LeastRequests);
    assert_eq!(way("balance = 'latency'"), BalanceWay::Latency);
    for (text, by) in [
        ("client", HashKey::Client),
        ("path", HashKey::Path),
        ("header:X-User", HashKey::Header("x-user".parse().unwrap())),
        ("cookie:session", HashKey::Cookie("session".into())),
        ("query:id", HashKey::Query("id".into())),
    ] {
        let keys = format!("balance = 'hash'\nhash_by = '{text}'\nhash_bound = 150");
        assert_eq!(way(&keys), BalanceWay::Hash { by, bound: Some(150) });
    }
}

#[test]
fn sticky_is_a_word_or_a_table() {
    let sticky = |keys: &str| load(&app(keys)).unwrap().services[0].balancing.sticky.clone().unwrap();
    let plain = sticky("sticky = 'cookie'");
    assert_eq!((&*plain.name, &*plain.path, plain.http_only, plain.secure), ("weir-app", "/", true, None));
    let whole =
        sticky("sticky = { name = 'lb', max_age = '1d', same_site = 'strict', secure = true, path = '/a' }");
    assert_eq!((&*whole.name, whole.same_site, whole.secure), ("lb", SameSite::Strict, Some(true)));
    assert_eq!(whole.max_age, Some(Duration::from_secs(86_400)));
}

#[test]
fn a_secret_is_read_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let (good, short) = (file("good", "0123456789abcdef0123456789abcdef\n"), file("short", "secret"));
    let keys = |path: &str| app(&format!("sticky = {{ key_file = '{path}' }}"));
    let config = load(&keys(&good)).unwrap();
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
    assert!(!format!("{:?}", diff::of(&load(&app("")).unwrap(), &config)).contains("0123456789abcdef"));
    only(
        &keys(&short),
        &format!("error[W070]: weir.toml:2:23: service `app`: sticky.key_file: `{short}` holds only 6 bytes"),
    );
}

#[test]
fn faults_are_told_where_they_are() {
    for (keys, fault) in [
        (
            "servers = ['app:80', 'APP:80']",
            "W019]: weir.toml:2:22: service `app`: server `APP:80` is listed twice",
        ),
        ("servers = [{ weight = 2 }]", "W016]: weir.toml:2:12: service `app`: a server has no `address`"),
        (
            "servers = [{ address = 'a:80', wait = 2 }]",
            "W003]: weir.toml:2:32: `wait` is not a key of `service.app.servers`",
        ),
        (
            "servers = [{ address = 'a:80', weight = 0 }]",
            "W024]: weir.toml:2:41: service `app`: weight of server `a:80` is `0`, out of range",
        ),
        (
            "servers = '10.0.0.256:80'",
            "W009]: weir.toml:2:11: service `app`: server `10.0.0.256:80` is not an address and port",
        ),
        (
            "servers = 'app.internal:0'",
            "W009]: weir.toml:2:11: service `app`: server `app.internal:0` can't be connected to",
        ),
        (
            "balance = 'random'",
            "W005]: weir.toml:2:11: `service.app.balance` is `random`, which is none of `round_robin`, `least_requests`, `latency`, `hash`",
        ),
        ("balance = 'hash'", "W016]: weir.toml:2:11: service `app`: `balance = \"hash\"` has no `hash_by`"),
        (
            "balance = 'hash'\nhash_by = 'cookie:a b'",
            "W005]: weir.toml:3:11: service `app`: hash_by `cookie:a b` is nothing to hash by",
        ),
        (
            "hash_by = 'client'",
            "W027]: weir.toml:2:11: service `app`: `hash_by` means nothing with `balance = \"round_robin\"`",
        ),
        ("sticky = 'ip'", "W005]: weir.toml:2:10: service `app`: sticky `ip` is not a way to be sticky"),
        (
            "sticky = { name = 'a=b' }",
            "W028]: weir.toml:2:19: service `app`: sticky.name `a=b` is not a cookie's name",
        ),
        ("sticky = { path = '/;' }", "W026]: weir.toml:2:19: service `app`: sticky.path `/;` is not a path"),
        (
            "sticky = { same_site = 'none', secure = false }",
            "W027]: weir.toml:2:41: service `app`: a cookie for `same_site = \"none\"` must be `secure`",
        ),
        ("slow_start = '2h'", "W008]: weir.toml:2:14: service `app`: slow_start is `2h`, out of range"),
        ("zone_spill = 101", "W024]: weir.toml:2:14: service `app`: zone_spill is `101`, out of range"),
    ] {
        only(&app(keys), &format!("error[{fault}"));
    }
    for (section, fault) in [
        (
            "[host]\nzone = 'a b'",
            "W007]: weir.toml:2:8: host.zone: `a b` holds more than letters, digits, `-` and `_`",
        ),
        ("[dns]\nservers = []", "W029]: weir.toml:2:11: dns.servers is empty: nobody could be asked"),
        (
            "[dns]\nservers = 'ns.test:53'",
            "W009]: weir.toml:2:11: dns.servers: `ns.test:53` is a host name, not an IP address",
        ),
        (
            "[dns]\nmin_ttl = '1m'\nmax_ttl = '5s'",
            "W027]: weir.toml:3:11: dns: a name would be asked for again after 5s at the latest, and after 1m at the soonest",
        ),
    ] {
        only(&format!("{section}\n{}", app("")), &format!("error[{fault}"));
    }
}

#[test]
fn a_change_is_told_key_by_key() {
    let before = load(&app("")).unwrap();
    let after =
        load(&app("servers = [{ address = '10.0.0.1:80', weight = 2 }]\nbalance = 'latency'")).unwrap();
    let changes = diff::of(&before, &after);
    let keys: Vec<_> = changes[0].keys.iter().map(|key| (&*key.key, key.after.as_deref())).collect();
    assert_eq!(keys, [("balance", Some("latency")), ("servers", Some("10.0.0.1:80 weight 2"))]);
}
