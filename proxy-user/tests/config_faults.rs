//! Bad files, and the exact line that each one gets.

use std::path::Path;

use proxy_user::config;

/// What makes a file whole around the line that is wrong in it. Cases stand above or below it.
const SOUND: &str = r#"
[entrypoint.web]
bind = "127.0.0.1:8080"
[service.app]
servers = ["10.0.0.1:80"]
[[route]]
name = "all"
service = "app"
"#;

fn faults(text: &str) -> Vec<String> {
    match config::load_text(Path::new("weir.toml"), text) {
        Ok(_) => Vec::new(),
        Err(report) => report.diagnostics.iter().map(config::Diagnostic::line).collect(),
    }
}

/// A case beside a sound rest: exactly this one line.
#[track_caller]
fn only(case: &str, expected: &str) {
    assert_eq!(faults(&format!("{case}\n{SOUND}")), [expected], "in: {case}");
}

#[test]
fn unknown_keys_are_faults() {
    only("[kernl]", "error[W003]: weir.toml:1:2: `kernl` is not a section");
    only("[kernel]\nmod = 'off'", "error[W003]: weir.toml:2:1: `mod` is not a key of `kernel`");
    only(
        "[page.maintenance]\nretry = '5s'",
        "error[W003]: weir.toml:2:1: `retry` is not a key of `page.maintenance`",
    );
}

#[test]
fn what_later_versions_bring_is_refused_as_such() {
    only(
        "[[route]]\nhost='a'\nservice='app'\nshadow='app'",
        "error[W004]: weir.toml:4:1: `route.shadow` is not yet supported in this version",
    );
}

#[test]
fn a_service_is_made_of_servers_or_of_other_services() {
    for (case, line) in [
        (
            "servers = '10.0.0.2:80'\nsplit = { app = 1 }",
            "error[W027]: weir.toml:3:9: service `x` has both `servers` and `split`",
        ),
        (
            "split = { app = 1 }\nfailover = 'app'",
            "error[W027]: weir.toml:3:12: service `x` has both `split` and `failover`",
        ),
        (
            "failover = 'app'\nhealth = { path = '/' }",
            "error[W027]: weir.toml:3:10: service `x` is made of other services, and has `health`",
        ),
        (
            "failover = 'app'\nwhen_all_down = 'try'",
            "error[W027]: weir.toml:3:17: service `x` is made of other services, and has `when_all_down`",
        ),
        ("failover = []", "error[W029]: weir.toml:2:12: service `x`: `failover` is an empty list"),
        ("failover = ['app', 'app']", "error[W027]: weir.toml:2:20: service `x`: `app` is listed twice"),
        (
            "failover = ['app', 'ap']",
            "error[W012]: weir.toml:2:20: service `x` falls over to service `ap`, which does not exist",
        ),
        (
            "split = { app = 1, ap = 2 }",
            "error[W012]: weir.toml:2:20: service `x` is split into service `ap`, which does not exist",
        ),
        ("split = {}", "error[W081]: weir.toml:2:9: service `x` is split into nothing"),
        ("split = { app = 0 }", "error[W081]: weir.toml:2:9: service `x`: all weights of the split are 0"),
        ("split = { app = -1 }", "error[W081]: weir.toml:2:17: service `x`: the weight of `app` is `-1`"),
        (
            "split = { app = 10001 }",
            "error[W081]: weir.toml:2:17: service `x`: the weight of `app` is `10001`",
        ),
        (
            "split = { app = '1' }",
            "error[W005]: weir.toml:2:17: `service.x.split.app` must be a whole number, not a string",
        ),
        (
            "split = { app = 1 }\nsticky = 'server'",
            "error[W083]: weir.toml:3:10: service `x`: sticky is `server`, which names no cookie",
        ),
        (
            "split = { app = 1 }\nsticky = 'cookie:a b'",
            "error[W083]: weir.toml:3:10: service `x`: sticky is `cookie:a b`, which names no cookie",
        ),
        (
            "failover = 'app'\nsticky = 'cookie'",
            "error[W027]: weir.toml:3:10: service `x` is made of other services, and has `sticky`",
        ),
        (
            "failover = 'app'\nfall_over = true",
            "error[W027]: weir.toml:3:13: service `x` has `fall_over` without `split`",
        ),
        (
            "service = 'app'",
            "error[W016]: weir.toml:2:11: service `x` leads to another service, and does nothing else",
        ),
        (
            "mirror = { to = 'app' }",
            "error[W016]: weir.toml:2:10: service `x` mirrors, but has no `service` that answers",
        ),
        ("service = 'app'\nmirror = {}", "error[W016]: weir.toml:3:10: service `x`: `mirror` has no `to`"),
        (
            "service = 'app'\nmirror = { to = 'app' }",
            "error[W027]: weir.toml:3:17: service `x` is mirrored to the service that answers",
        ),
        (
            "service = 'app'\nmirror = { to = 'y', share = '10' }",
            "error[W082]: weir.toml:3:30: service `x`: mirror.share: `10` has no `%`",
        ),
        (
            "service = 'app'\nmirror = { to = 'y', share = '101%' }",
            "error[W082]: weir.toml:3:30: service `x`: mirror.share is `101%`, out of range",
        ),
        (
            "service = 'app'\nmirror = { to = 'y', body_limit = '1GiB' }",
            "error[W039]: weir.toml:3:35: service `x`: mirror.body_limit is `1GiB`, out of range",
        ),
        (
            "split = { app = 1 }\njudge = { variant = 'app' }",
            "error[W027]: weir.toml:3:9: service `x` has a judge, but not two variants",
        ),
        (
            "split = { app = 1, y = 1 }\njudge = {}",
            "error[W016]: weir.toml:3:9: service `x`: `judge` has no `variant`",
        ),
        (
            "split = { app = 1, y = 1 }\njudge = { variant = 'z' }",
            "error[W012]: weir.toml:3:21: service `x` judges service `z`, which does not exist",
        ),
        (
            "split = { app = 1, y = 1 }\njudge = { variant = 'y', steps = ['5', '5'] }",
            "error[W005]: weir.toml:3:34: service `x`: judge.steps are not steps",
        ),
        (
            "split = { app = 1, y = 1 }\njudge = { variant = 'y', confidence = '100%' }",
            "error[W082]: weir.toml:3:39: service `x`: judge.confidence is `100%`, out of range",
        ),
    ] {
        let rest = format!("{SOUND}\n[service.y]\nservers = '10.0.0.3:80'");
        assert_eq!(faults(&format!("[service.x]\n{case}\n{rest}")), [line], "in: {case}");
    }
}

#[test]
fn services_lead_to_servers_in_the_end() {
    only(
        "[service.a]\nfailover = ['b', 'app']\n[service.b]\nsplit = { c = 1 }\n[service.c]\nfailover = 'a'",
        "error[W080]: weir.toml:1:10: service `a` leads to itself: a → b → c → a",
    );
    only("[service.a]\nsplit = { a = 1 }", "error[W080]: weir.toml:1:10: service `a` leads to itself: a → a");
    let deep = |to: u32| {
        let each = (1..=to).map(|n| {
            format!(
                "[service.s{n}]\nfailover = '{}'\n",
                if n == 1 { "app".into() } else { format!("s{}", n - 1) }
            )
        });
        each.collect::<String>()
    };
    let fine = format!("{SOUND}\n[[route]]\nhost = 'a'\nservice = 's7'\n{}", deep(7));
    assert_eq!(faults(&fine), [""; 0]);
    only(&deep(8), "error[W080]: weir.toml:15:10: service `s8` is more than 8 services deep");
}

#[test]
fn a_route_may_be_split_and_mirrored_itself() {
    let route = |keys: &str| format!("[[route]]\nname = 'r'\nhost = 'a'\n{keys}");
    for (keys, line) in [
        (
            "split = { app = 1, ap = 1 }",
            "error[W012]: weir.toml:4:20: route `r` is split into service `ap`, which does not exist",
        ),
        (
            "service = 'app'\nsplit = { app = 1 }",
            "error[W027]: weir.toml:4:11: route `r` has both `service` and `split`",
        ),
        (
            "service = 'app'\nsticky = 'cookie'",
            "error[W027]: weir.toml:5:10: route `r` has `sticky` without `split`",
        ),
        ("mirror = { to = 'app' }", "error[W016]: weir.toml:1:1: route `r` has no `service`"),
        (
            "service = 'app'\nmirror = { to = 'app' }",
            "error[W027]: weir.toml:5:17: route `r` is mirrored to the service that answers",
        ),
    ] {
        only(&route(keys), line);
    }
    only(
        "[[route]]\nname = 'app'\nhost = 'a'\nsplit = { app = 1 }",
        "error[W006]: weir.toml:4:9: route `app` would make a second service `app`",
    );
}

#[test]
fn values_of_the_wrong_kind_are_faults() {
    only("log = 5", "error[W005]: weir.toml:1:7: `log` must be a table, not a whole number");
    only(
        "[kernel]\nmode = 'xpd'",
        "error[W005]: weir.toml:2:8: `kernel.mode` is `xpd`, which is none of `auto`, `xdp`, `tc`, `off`",
    );
    only(
        "[kernel]\ninterfaces = 1",
        "error[W005]: weir.toml:2:14: `kernel.interfaces` must be a string or a list, not a whole number",
    );
    only(
        "[kernel]\ninterfaces = ['a', 1]",
        "error[W005]: weir.toml:2:20: `kernel.interfaces` must be a string, not a whole number",
    );
    only(
        "[shutdown]\ngrace = 5",
        "error[W005]: weir.toml:2:9: `shutdown.grace` must be a string, not a whole number",
    );
    only(
        "[log]\naccess = 'stdot'",
        "error[W005]: weir.toml:2:10: log.access is `stdot`, which is neither `stdout` nor `off` nor a path",
    );
}

#[test]
fn durations_say_what_is_wrong_with_them() {
    only("[shutdown]\ngrace = '5'", "error[W008]: weir.toml:2:9: shutdown.grace: `5` has no unit");
    only(
        "[shutdown]\ngrace = 'soon'",
        "error[W008]: weir.toml:2:9: shutdown.grace: `soon` is not a duration",
    );
    only("[upgrade]\nready = '10m'", "error[W008]: weir.toml:2:9: upgrade.ready is `10m`, out of range");
    only("[upgrade]\nready = '0s'", "error[W008]: weir.toml:2:9: upgrade.ready is `0s`, out of range");
    only("[upgrade]\ndrain = '8d'", "error[W008]: weir.toml:2:9: upgrade.drain is `8d`, out of range");
    only(
        "[upgrade]\ndrain = 'for ever'",
        "error[W008]: weir.toml:2:9: upgrade.drain: `for ever` is not a duration",
    );
    only("[shutdown]\ngrace = '2h'", "error[W008]: weir.toml:2:9: shutdown.grace is `2h`, out of range");
    only(
        "[page.maintenance]\nretry_after = '1500ms'",
        "error[W008]: weir.toml:2:15: page `maintenance`: retry_after is `1500ms`, not whole seconds",
    );
}

#[test]
fn the_kernels_settings_are_checked() {
    only(
        "[kernel]\ninterfaces = 'a/b'",
        "error[W030]: weir.toml:2:14: kernel.interfaces: `a/b` is not an interface name",
    );
    only(
        "[kernel]\nbpffs = 'bpf'",
        "error[W032]: weir.toml:2:9: kernel.bpffs: `bpf` is not an absolute path",
    );
}

#[test]
fn how_a_list_is_fetched_is_checked() {
    let list = |keys: &str| format!("[allowlist.l]\nurl = 'https://a.example/l'\n{keys}");
    for (url, because) in [
        ("ftp://a.example/l", "is neither https nor http"),
        ("a.example/l", "is not a URL"),
        ("https://", "is not a URL"),
        ("https://me:secret@a.example/l", "carries a user name"),
        ("https://a.example/l#v4", "has a fragment"),
        ("https://a b/l", "is not a URL"),
        ("https://-/l", "has no usable host"),
    ] {
        only(
            &format!("[allowlist.l]\nurl = '{url}'"),
            &format!("error[W035]: weir.toml:2:7: allowlist `l`: url `{url}` {because}"),
        );
    }
    only(
        "[allowlist.l]\nurl = ['https://a.example/l', 'https://a.example/l']",
        "error[W006]: weir.toml:2:31: allowlist `l`: url `https://a.example/l` is written twice",
    );
    only("[allowlist.l]\nurl = []", "error[W029]: weir.toml:2:7: allowlist `l`: url is an empty list");
    only(
        &list("json = 'result.ipv4'"),
        "error[W036]: weir.toml:3:8: allowlist `l`: json `result.ipv4` is not a JSON pointer",
    );
    only(&list("json = []"), "error[W029]: weir.toml:3:8: allowlist `l`: json is an empty list");
    only(
        &list("refresh = '500ms'"),
        "error[W008]: weir.toml:3:11: allowlist `l`: refresh is `500ms`, out of range",
    );
    only(
        &list("refresh = 'of'"),
        "error[W008]: weir.toml:3:11: allowlist `l`: refresh: `of` is not a duration",
    );
    only(
        &list("timeout = '2m'"),
        "error[W008]: weir.toml:3:11: allowlist `l`: timeout is `2m`, out of range",
    );
    only(
        &list("shrink_limit = 101"),
        "error[W024]: weir.toml:3:16: allowlist `l`: shrink_limit is `101`, out of range",
    );
    only(
        "[allowlist.l]\nprefixes = '192.0.2.0/24'\nrefresh = '1h'",
        "error[W027]: weir.toml:3:11: allowlist `l`: `refresh` without `url` does nothing",
    );
    only(
        "[allowlist.cloudflare]\nprefixes = '192.0.2.0/24'\nshrink_limit = 1",
        "error[W027]: weir.toml:3:16: allowlist `cloudflare`: `shrink_limit` without `url` does nothing",
    );
    only("[state]\ndir = 'state'", "error[W032]: weir.toml:2:7: state.dir: `state` is not an absolute path");
}

#[test]
fn prefixes_are_checked() {
    let list = |prefix: &str| format!("[allowlist.l]\nprefixes = '{prefix}'");
    only(
        &list("10.1.2.3/8"),
        "error[W010]: weir.toml:2:12: allowlist `l`: `10.1.2.3/8` has bits set behind its length of 8",
    );
    only(&list("10.0.0.0/33"), "error[W010]: weir.toml:2:12: allowlist `l`: `10.0.0.0/33` is not a prefix");
    only("[allowlist.l]", "error[W029]: weir.toml:1:12: allowlist `l` holds no prefix: nobody could come in");
    only(
        "[allowlist.l]\nfile = '/nowhere/l.txt'",
        "error[W011]: weir.toml:2:8: allowlist `l`: file `/nowhere/l.txt` can't be used: no such file",
    );
}

#[test]
fn entrypoints_are_checked() {
    let more = |rest: &str| format!("[entrypoint.more]\nbind = '10.0.0.1:80'\n{rest}");
    only("[entrypoint.more]", "error[W016]: weir.toml:1:13: entrypoint `more` has no address to listen on");
    only(
        "[entrypoint.'a b']\nbind = '10.0.0.1:80'",
        "error[W007]: weir.toml:1:13: the entrypoint name `a b` holds more than letters, digits, `-` and `_`",
    );
    only(
        "[entrypoint.more]\nbind = '10.0.0.1'",
        "error[W009]: weir.toml:2:8: entrypoint `more`: `10.0.0.1` has no port",
    );
    only(
        "[entrypoint.more]\nbind = ':80'",
        "error[W009]: weir.toml:2:8: entrypoint `more`: `:80` has no address",
    );
    only(
        "[entrypoint.more]\nbind = '10.0.0.1:0'",
        "error[W009]: weir.toml:2:8: entrypoint `more`: `10.0.0.1:0` has port 0, which is another port at every start",
    );
    only(
        &more("allow = 'cloudflair'"),
        "error[W014]: weir.toml:3:9: entrypoint `more` allows allowlist `cloudflair`, which does not exist",
    );
    only(&more("allow = []"), "error[W029]: weir.toml:3:9: entrypoint `more`: `allow` is an empty list");
    only(
        &more("client_ip = { header = 'X', trust = 'cf' }"),
        "error[W014]: weir.toml:3:37: entrypoint `more`: client_ip trusts allowlist `cf`, which does not exist",
    );
    only(
        &more("client_ip = { header = 'X' }"),
        "error[W016]: weir.toml:3:13: entrypoint `more`: client_ip trusts nobody: the header would never be used",
    );
    only(
        &more("client_ip = { trust = 'cloudflare' }"),
        "error[W016]: weir.toml:3:13: entrypoint `more`: client_ip has no `header`",
    );
    only(
        &more("client_ip = { header = 'a b', trust = 'cloudflare' }"),
        "error[W028]: weir.toml:3:24: entrypoint `more`: client_ip: `a b` is not a header's name",
    );
    only(&more("tls = {}"), "error[W016]: weir.toml:3:7: entrypoint `more`: `tls` has no `certificates`");
    only(
        &more("tls = { certificates = '/nowhere/c' }"),
        "error[W021]: weir.toml:3:24: entrypoint `more`: `/nowhere/c` can't be read: no such file",
    );
}

#[test]
fn two_listeners_on_one_port_are_a_fault() {
    let sound = |bind: &str| faults(&format!("{SOUND}[entrypoint.more]\nbind = {bind}"));
    assert_eq!(
        sound("'127.0.0.1:8080'"),
        [
            "error[W018]: weir.toml:10:8: entrypoint `more` can't listen on `127.0.0.1:8080`: entrypoint `web` listens on `127.0.0.1:8080`"
        ]
    );
    assert_eq!(
        sound("'0.0.0.0:8080'"),
        [
            "error[W018]: weir.toml:10:8: entrypoint `more` can't listen on `0.0.0.0:8080`: entrypoint `web` listens on `127.0.0.1:8080`"
        ]
    );
    assert_eq!(
        sound("['0.0.0.0:90', '10.0.0.1:90']"),
        ["error[W018]: weir.toml:10:23: entrypoint `more` listens twice on `0.0.0.0:90`, as `10.0.0.1:90`"]
    );
    assert_eq!(
        sound("'127.0.0.1:9190'\n[admin]\nbind='127.0.0.1:9190'"),
        [
            "error[W018]: weir.toml:10:8: entrypoint `more` can't listen on `127.0.0.1:9190`: the admin interface listens on `127.0.0.1:9190`"
        ]
    );
    assert_eq!(
        sound("'127.0.0.1:9190'"),
        [
            "error[W018]: weir.toml:10:8: entrypoint `more` can't listen on `127.0.0.1:9190`: the admin interface listens on `127.0.0.1:9190`"
        ],
        "also where the admin address is the default"
    );
    assert_eq!(sound("'[::]:8080'"), [""; 0], "IPv6 is another port");
}

#[test]
fn retries_are_checked() {
    let more = |key: &str| format!("[service.more]\nservers = '10.0.0.9:80'\n{key}");
    for (retry, fault) in [
        ("attempts = 0", "error[W024]: weir.toml:3:22: service `more`: retry.attempts is `0`, out of range"),
        ("within = '0s'", "error[W008]: weir.toml:3:20: service `more`: retry.within is `0s`, out of range"),
        (
            "buffer = '1GiB'",
            "error[W039]: weir.toml:3:20: service `more`: retry.buffer is `1GiB`, out of range",
        ),
        (
            "methods = 'post'",
            "error[W061]: weir.toml:3:21: service `more`: retry.methods: `post` is not a method",
        ),
        (
            "statuses = ['503', '5xx']",
            "error[W005]: weir.toml:3:30: service `more`: retry.statuses `5xx` is no status from 400 to 599",
        ),
        (
            "budget = '20'",
            "error[W005]: weir.toml:3:20: service `more`: retry.budget `20` is not a percentage",
        ),
        (
            "budget = '101%'",
            "error[W024]: weir.toml:3:20: service `more`: retry.budget `101%` is out of range",
        ),
        (
            "backoff = '1m'",
            "error[W008]: weir.toml:3:21: service `more`: retry.backoff is `1m`, out of range",
        ),
    ] {
        only(&more(&format!("retry = {{ {retry} }}")), fault);
    }
    for (hedge, fault) in [
        ("", "error[W016]: weir.toml:3:9: service `more`: `hedge` has no `after`"),
        (
            "after = 'p100'",
            "error[W005]: weir.toml:3:19: service `more`: hedge.after `p100` is no percentile",
        ),
        ("after = '2h'", "error[W008]: weir.toml:3:19: service `more`: hedge.after is `2h`, out of range"),
        (
            "after = 'p95', most = '0%'",
            "error[W024]: weir.toml:3:33: service `more`: hedge.most `0%` is out of range",
        ),
    ] {
        only(&more(&format!("hedge = {{ {hedge} }}")), fault);
    }
}

#[test]
fn services_are_checked() {
    let more = |rest: &str| format!("[service.more]\nservers = '10.0.0.9:80'\n{rest}");
    only("[service.more]", "error[W016]: weir.toml:1:10: service `more` has no server");
    only("[service.more]\nservers = []", "error[W016]: weir.toml:2:11: service `more` has no server");
    only(
        "[service.more]\nservers = ['1.1.1.1:80', '1.1.1.1:80']",
        "error[W019]: weir.toml:2:26: service `more`: server `1.1.1.1:80` is listed twice",
    );
    only(
        "[service.more]\nservers = 'app.local'",
        "error[W009]: weir.toml:2:11: service `more`: server `app.local` has no port",
    );
    only(
        "[service.more]\nservers = '0.0.0.0:80'",
        "error[W009]: weir.toml:2:11: service `more`: server `0.0.0.0:80` can't be connected to",
    );
    only(
        &more("when_all_down = 'page:gone'"),
        "error[W015]: weir.toml:3:23: service `more`: when_all_down wants page `gone`, which does not exist",
    );
    only(
        &more("when_all_down = 'maintenance'"),
        "error[W005]: weir.toml:3:17: service `more`: when_all_down `maintenance` is neither a page nor `try`",
    );
    only(
        &more("when_all_down = 'service:app'"),
        "error[W004]: weir.toml:3:17: service `more`: falling back to another service is not yet supported in this version",
    );
    only(&more("health = {}"), "error[W016]: weir.toml:3:10: service `more`: `health` has no `path`");
    only(
        &more("health = { path = 'x' }"),
        "error[W026]: weir.toml:3:19: service `more`: health.path `x` is not a path",
    );
    only(
        &more("health = { path = '/', fall = 0 }"),
        "error[W024]: weir.toml:3:31: service `more`: health.fall is `0`, out of range",
    );
    only(
        &more("health = { path = '/', every = '1ms' }"),
        "error[W008]: weir.toml:3:32: service `more`: health.every is `1ms`, out of range",
    );
    only(
        &more("health = { path = '/', timeout = '2s' }"),
        "error[W027]: weir.toml:3:34: service `more`: health: a probe may take 2s, but the next one comes after 1s",
    );
    for (written, fault) in [
        (
            "health = { path = '/', tcp = true }",
            "error[W027]: weir.toml:3:30: service `more`: health asks by `path` and by `tcp`",
        ),
        (
            "health = { tcp = true, status = '200' }",
            "error[W027]: weir.toml:3:33: service `more`: health.status does nothing where `tcp` asks",
        ),
        (
            "health = { tls = true }",
            "error[W016]: weir.toml:3:10: service `more`: `health` doesn't say for which name to shake hands",
        ),
        (
            "health = { send = 'PING' }",
            "error[W016]: weir.toml:3:10: service `more`: health sends something and expects nothing: every server would be \
             well",
        ),
        (
            "health = { expect = '\\q' }",
            "error[W074]: weir.toml:3:21: service `more`: health.expect: `\\\\q` has an escape that doesn't exist",
        ),
        (
            "health = { script = [{}, { expect = 'x' }] }",
            "error[W016]: weir.toml:3:22: service `more`: health.script: a step neither sends nor expects anything",
        ),
        (
            "health = { path = '/', status = '200-99' }",
            "error[W073]: weir.toml:3:33: service `more`: health.status: `200-99` is not a status",
        ),
        (
            "health = { path = '/', expect_body_regex = 'a(' }",
            "error[W060]: weir.toml:3:44: service `more`: health.expect_body_regex `a(` is not a regular expression: \
             unclosed group",
        ),
        (
            "health = { path = '/', method = 'CONNECT' }",
            "error[W061]: weir.toml:3:33: service `more`: health.method `CONNECT` is not a method for a probe",
        ),
        (
            "health = { path = '/', fast = '2s' }",
            "error[W027]: weir.toml:3:31: service `more`: health: between two verdicts probes come every 1s, but in transition \
             only every 2s",
        ),
        (
            "health = { path = '/', port = 0 }",
            "error[W024]: weir.toml:3:31: service `more`: health.port is `0`, out of range",
        ),
        (
            "eject = { most = '0%' }",
            "error[W072]: weir.toml:3:18: service `more`: eject.most is `0%`, out of range",
        ),
        (
            "eject = { most = '1/2' }",
            "error[W072]: weir.toml:3:18: service `more`: eject.most: `1/2` is not a share",
        ),
        (
            "eject = { for = '10m', longest = '1m' }",
            "error[W027]: weir.toml:3:34: service `more`: eject.longest is 1m, shorter than the first time",
        ),
        ("breaker = {}", "error[W016]: weir.toml:3:11: service `more`: nothing would open its breaker"),
        (
            "breaker = { errors = '50%', quantile = '90%' }",
            "error[W027]: weir.toml:3:40: service `more`: breaker.quantile does nothing without `latency`",
        ),
        ("panic = '101%'", "error[W072]: weir.toml:3:9: service `more`: panic: `101%` is not a share"),
        (
            "timeouts = { unacknowledged = '10ms' }",
            "error[W008]: weir.toml:3:31: service `more`: timeouts.unacknowledged is `10ms`, out of range",
        ),
    ] {
        only(&more(written), fault);
    }
    only(
        &more("health = { path = '/', host = 'a b' }"),
        "error[W028]: weir.toml:3:31: service `more`: health.host `a b` is not a host",
    );
    only(
        &more("health = { path = '/', drain_on = ['404', 'gone'] }"),
        "error[W024]: weir.toml:3:43: service `more`: health.drain_on `gone` is not the status of an answer",
    );
    only(
        &more("health = { path = '/', drain_on = '100' }"),
        "error[W024]: weir.toml:3:35: service `more`: health.drain_on `100` is not the status of an answer",
    );
    only(
        &more("health = { path = '/', drain_header = 'X Drain' }"),
        "error[W028]: weir.toml:3:39: service `more`: health.drain_header `X Drain` is not a header's name",
    );
    only(
        &more("timeouts = { connect = '2m' }"),
        "error[W008]: weir.toml:3:24: service `more`: timeouts.connect is `2m`, out of range",
    );
    only(
        &more("pool = { idle = -1 }"),
        "error[W024]: weir.toml:3:17: service `more`: pool.idle is `-1`, out of range",
    );
    only(
        &more("pool = { warm = 3, idle = 2 }"),
        "error[W027]: weir.toml:3:17: service `more`: pool.warm is 3, but only 2 connections are kept",
    );
    only(
        &more("send_proxy = 'v2'\npool = { warm = 1 }"),
        "error[W027]: weir.toml:4:17: service `more` opens connections ahead, but `send_proxy` makes each of them one \
         client's own",
    );
    only(
        &more("pool = { idle_timeout = '2h' }"),
        "error[W008]: weir.toml:3:25: service `more`: pool.idle_timeout is `2h`, out of range",
    );
    only(&more("tls = {}"), "error[W016]: weir.toml:3:7: service `more`: `tls` has no `server_name`");
    only(
        &more("tls = { server_name = 'https://a' }"),
        "error[W031]: weir.toml:3:23: service `more`: tls.server_name `https://a` is not a DNS name",
    );
    only(
        &more("tls = { server_name = 'a', ca = '/nowhere/ca' }"),
        "error[W022]: weir.toml:3:33: service `more`: `/nowhere/ca` can't be read: no such file",
    );
    only(
        &more("tls = { server_name = 'a', insecure = true, ca = 'x' }"),
        "error[W027]: weir.toml:3:39: service `more`: `insecure = true` makes `ca` pointless",
    );
}

#[test]
fn whether_a_list_is_a_cdns_is_yes_or_no() {
    only(
        "[allowlist.x]\nprefixes = '192.0.2.0/24'\ncdn = 'yes'",
        "error[W005]: weir.toml:3:7: `allowlist.x.cdn` must be `true` or `false`, not a string",
    );
}

#[test]
fn limits_of_sources_are_rates_in_their_range() {
    let with = |limit: &str| {
        format!(
            "[entrypoint.more]\nbind = '127.0.0.1:90'\nsource_limit = {{ {limit} }}\n[kernel]\ninterfaces = 'eth0'"
        )
    };
    for (limit, line) in [
        ("", "W016]: weir.toml:3:16: entrypoint `more`: `source_limit` limits nothing"),
        (
            "connections = '1000001/s'",
            "W037]: weir.toml:3:32: entrypoint `more`: source_limit.connections: `1000001/s` is out of range",
        ),
        (
            "connections = '1/h'",
            "W037]: weir.toml:3:32: entrypoint `more`: source_limit.connections: `1/h` is not a rate",
        ),
        (
            "connections = '1/s', connection_burst = 10000001",
            "W024]: weir.toml:3:58: entrypoint `more`: source_limit.connection_burst is `10000001`, out of range",
        ),
        (
            "connections = '1/s', cdn = 1",
            "W005]: weir.toml:3:45: `entrypoint.more.source_limit.cdn` must be `true` or `false`, not a whole number",
        ),
        (
            "connections = '1/s', bursts = 5",
            "W003]: weir.toml:3:39: `bursts` is not a key of `entrypoint.more.source_limit`",
        ),
        (
            "connections = '1/s', packet_burst = 5",
            "W027]: weir.toml:3:54: entrypoint `more`: source_limit.packet_burst says nothing without `packets`",
        ),
        (
            "connections = '50'",
            "W037]: weir.toml:3:32: entrypoint `more`: source_limit.connections: `50` is not a rate",
        ),
        (
            "packets = '0/s'",
            "W037]: weir.toml:3:28: entrypoint `more`: source_limit.packets: `0/s` is out of range",
        ),
        (
            "packets = '1/m', packet_burst = 0",
            "W024]: weir.toml:3:50: entrypoint `more`: source_limit.packet_burst is `0`, out of range",
        ),
        (
            "packets = '1/m', connection_burst = 5",
            "W027]: weir.toml:3:54: entrypoint `more`: source_limit.connection_burst says nothing without `connections`",
        ),
    ] {
        only(&with(limit), &format!("error[{line}"));
    }
}

#[test]
fn a_shadow_needs_something_to_rehearse() {
    let entrypoint = "[entrypoint.more]\nbind = '127.0.0.1:90'\n";
    only(
        &format!("{entrypoint}shadow = true"),
        "error[W027]: weir.toml:3:10: entrypoint `more`: `shadow = true` without `allow` has nobody to judge packets by",
    );
    let of_type = faults(&format!("{entrypoint}shadow = 'yes'\n{SOUND}"));
    assert!(of_type.len() == 1 && of_type[0].contains("weir.toml:3:10"), "{of_type:?}");
}

#[test]
fn a_guarded_wildcard_and_an_open_address_of_it_are_refused() {
    // The gate would guard both.
    let open = "[entrypoint.open]\nbind = '10.0.0.1:443'\n";
    let guarded = "[entrypoint.guarded]\nallow = 'cloudflare'\nbind = ";
    for bind in ["'0.0.0.0:443'", "'[::ffff:10.0.0.1]:443'", "'10.0.0.1:443'"] {
        let found = faults(&format!("{guarded}{bind}\n{open}{SOUND}"));
        assert!(found.len() == 1 && found[0].starts_with("error[W018]"), "{bind}: {found:?}");
    }
}

#[test]
fn routes_are_checked() {
    let route = |rest: &str| format!("[[route]]\nhost = 'a'\n{rest}");
    only(&route(""), "error[W016]: weir.toml:1:1: route `a` has no `service`");
    only(
        &route("service = 'ap'"),
        "error[W012]: weir.toml:3:11: route `a` sends to service `ap`, which does not exist",
    );
    only(
        &route("service = 'app'\nentrypoint = 'wbe'"),
        "error[W013]: weir.toml:4:14: route `a` is limited to entrypoint `wbe`, which does not exist",
    );
    only(
        &route("service = 'app'\nentrypoint = []"),
        "error[W029]: weir.toml:4:14: route `a`: `entrypoint` is an empty list",
    );
    only(
        &route("service = 'app'\nentrypoint = 'web'\nentrypoints = 'web'"),
        "error[W027]: weir.toml:5:15: route `a` has both `entrypoint` and `entrypoints`",
    );
    only(
        &route("service = 'app'\nname = ''"),
        "error[W007]: weir.toml:4:8: the route name `` doesn't have 1 to 64 printable characters",
    );
    only(
        &route("service = 'app'\npath = 'x'"),
        "error[W026]: weir.toml:4:8: route: path `x` doesn't begin with `/`",
    );
    only(
        "[[route]]\nhost = 'a:80'\nservice = 'app'",
        "error[W025]: weir.toml:2:8: route: host `a:80` holds a port",
    );
    only(
        "[[route]]\nservice = 'app'",
        "error[W020]: weir.toml:8:1: routes `*` and `all` match the same requests",
    );
    only(
        "[[route]]\nservice = 'app'\nentrypoint = 'web'",
        "error[W020]: weir.toml:9:1: routes `*` and `all` match the same requests",
    );
    only(&route("service = 'app'\nname = 'all'"), "error[W006]: weir.toml:11:8: two routes are named `all`");
}

#[test]
fn a_file_without_entrypoint_is_a_fault() {
    assert_eq!(faults(""), ["error[W017]: weir.toml: there is no entrypoint: nothing would be listened on"]);
}

#[test]
fn a_syntax_error_is_one_fault() {
    only("[kernel]\nmode = off", "error[W002]: weir.toml:2:8: text without quotes");
    only("[kernel]\nmode = 'off", "error[W002]: weir.toml:2:12: this text is never closed");
    only("[kernel]\nmode = \"off", "error[W002]: weir.toml:2:12: this text is never closed");
    only("[kernel]\nmode =", "error[W002]: weir.toml:2:7: there is no value");
    only("[kernel]\ninterfaces = [\"eth0\"", "error[W002]: weir.toml:2:14: this list is never closed");
    only(
        "[kernel\nmode = 'off'",
        "error[W002]: weir.toml:1:8: a broken section header: unclosed table, expected `]`",
    );
    only(
        "[admin]\nbind = 127.0.0.1:9190",
        "error[W002]: weir.toml:2:13: `127.0.0.1:9190` is not a TOML value",
    );
    only("[log]\nformat = 'json'\nformat = 'json'", "error[W006]: weir.toml:3:1: `format` is written twice");
    only("[log]\n[kernel]\n[log]", "error[W006]: weir.toml:3:2: `[log]` is written twice");
}

#[test]
fn one_fault_never_hides_or_breeds_another() {
    let text = r#"
[kernl]
mode = "off"
[kernel]
mode = "xpd"
bpffs = 5
[entrypoint.web]
bind = 0.0.0.0:80
allow = ["cloudflare", "ofice"]
[entrypoint.tls]
bind = ["0.0.0.0:443", "nowhere"]
tls = { certificates = "/nowhere/c", client_ca = "/nowhere/ca" }
[allowlist.office]
prefixes = ["10.1.2.3/8", 7, "10.0.0.0/40"]
[service.app]
servers = ["10.0.0.1:80", "10.0.0.1:80"
health = { path = "ping", every = "5" }
[service.shop]
server = ["10.0.0.1:80"]
when_all_down = "page:maintenence"
[[route]]
name = "shop"
service = "shop-v2"
split = { app = 20 }
[[route]]
service = "app"
entrypoint = "wbe"
"#;
    let expected = [
        "error[W003]: weir.toml:2:2: `kernl` is not a section",
        "error[W005]: weir.toml:5:8: `kernel.mode` is `xpd`, which is none of `auto`, `xdp`, `tc`, `off`",
        "error[W005]: weir.toml:6:9: `kernel.bpffs` must be a string, not a whole number",
        "error[W002]: weir.toml:8:11: `0.0.0.0:80` is not a TOML value",
        "error[W014]: weir.toml:9:24: entrypoint `web` allows allowlist `ofice`, which does not exist",
        "error[W009]: weir.toml:11:24: entrypoint `tls`: `nowhere` is not an address and port",
        "error[W021]: weir.toml:12:24: entrypoint `tls`: `/nowhere/c` can't be read: no such file",
        "error[W022]: weir.toml:12:50: entrypoint `tls`: `/nowhere/ca` can't be read: no such file",
        "error[W010]: weir.toml:14:13: allowlist `office`: `10.1.2.3/8` has bits set behind its length of 8",
        "error[W005]: weir.toml:14:27: `allowlist.office.prefixes` must be a string, not a whole number",
        "error[W010]: weir.toml:14:30: allowlist `office`: `10.0.0.0/40` is not a prefix",
        "error[W002]: weir.toml:16:11: this list is never closed",
        "error[W026]: weir.toml:17:19: service `app`: health.path `ping` is not a path",
        "error[W008]: weir.toml:17:35: service `app`: health.every: `5` has no unit",
        "error[W003]: weir.toml:19:1: `server` is not a key of `service.shop`",
        "error[W015]: weir.toml:20:23: service `shop`: when_all_down wants page `maintenence`, which does not exist",
        "error[W012]: weir.toml:23:11: route `shop` sends to service `shop-v2`, which does not exist",
        "error[W027]: weir.toml:23:11: route `shop` has both `service` and `split`",
        "error[W013]: weir.toml:27:14: route `*` is limited to entrypoint `wbe`, which does not exist",
    ];
    assert_eq!(faults(text), expected);
}

#[test]
fn what_a_route_asks_for_is_checked() {
    let route = |keys: &str| format!("[[route]]\nname = 'r'\nservice = 'app'\nhost = 'a'\n{keys}");
    for (keys, line) in [
        ("method = 'get'", "error[W061]: weir.toml:5:10: route `r`: `get` is not a method"),
        ("method = []", "error[W029]: weir.toml:5:10: route `r`: `method` is an empty list"),
        ("header = { 'X Y' = '1' }", "error[W028]: weir.toml:5:12: route `r`: `X Y` is not a header's name"),
        (
            "header = { X = { regex = '(' } }",
            "error[W060]: weir.toml:5:26: route `r`: `X`: `(` is not a regular expression: unclosed group",
        ),
        (
            "header = { X = { exact = 'y' } }",
            "error[W003]: weir.toml:5:18: `exact` is not a key of `route.header.X`",
        ),
        ("query = { q = {} }", "error[W005]: weir.toml:5:15: route `r`: `q` doesn't say how it is meant"),
        (
            "query = { q = 1 }",
            "error[W005]: weir.toml:5:15: `route.query.q` must be a string or a table, not a whole number",
        ),
        (
            "client = 'offic'",
            "error[W014]: weir.toml:5:10: route `r`: client is on allowlist `offic`, which does not exist",
        ),
        (
            "client = '10.0.0.1/8'",
            "error[W010]: weir.toml:5:10: route `r`: client `10.0.0.1/8` has bits set behind its length of 8",
        ),
        ("priority = 5000", "error[W024]: weir.toml:5:12: route `r`: priority is `5000`, out of range"),
        (
            "path = { regex = '[' }",
            "error[W060]: weir.toml:5:18: route: path: `[` is not a regular expression: unclosed character class",
        ),
        ("path = { exact = 'x' }", "error[W026]: weir.toml:5:18: route: path `x` doesn't begin with `/`"),
        (
            "path = { exact = '/x', regex = '/y' }",
            "error[W005]: weir.toml:5:8: route: path doesn't say how it is meant",
        ),
        ("not = { method = 'put' }", "error[W061]: weir.toml:5:18: route `r`: not: `put` is not a method"),
        (
            "not = { path = ['/a', 'b'] }",
            "error[W026]: weir.toml:5:23: route `r`: not.path `b` doesn't begin with `/`",
        ),
        ("not = { hots = 'a' }", "error[W003]: weir.toml:5:9: `hots` is not a key of `route.not`"),
    ] {
        only(&route(keys), line);
    }
    assert_eq!(
        faults(&format!("[[route]]\nhost = ['a', 'b:1', {{ regex = '*' }}]\nservice = 'app'\n{SOUND}")),
        [
            "error[W025]: weir.toml:2:14: route: host `b:1` holds a port",
            "error[W060]: weir.toml:2:31: route: host: `*` is not a regular expression: repetition operator missing expression",
        ],
        "one fault doesn't hide the next"
    );
}

#[test]
fn limits_are_checked() {
    let limits = |keys: &str| format!("[entrypoint.a]\nbind = '127.0.0.1:1'\nlimits = {{ {keys} }}");
    for (keys, line) in [
        ("fields = 5", "[W024]: weir.toml:3:21: entrypoint `a`: limits.fields is `5`, out of range"),
        (
            "head = '64K'",
            "[W039]: weir.toml:3:19: entrypoint `a`: limits.head: `64K` has a unit that means two things",
        ),
        ("head = '2MiB'", "[W039]: weir.toml:3:19: entrypoint `a`: limits.head is `2MiB`, out of range"),
        (
            "head_time = '10ms'",
            "[W008]: weir.toml:3:24: entrypoint `a`: limits.head_time is `10ms`, out of range",
        ),
        ("streams = 0", "[W024]: weir.toml:3:22: entrypoint `a`: limits.streams is `0`, out of range"),
        (
            "connections = -1",
            "[W024]: weir.toml:3:26: entrypoint `a`: limits.connections is `-1`, out of range",
        ),
        ("body = '1s'", "[W003]: weir.toml:3:12: `body` is not a key of `entrypoint.a.limits`"),
    ] {
        only(&limits(keys), &format!("error{line}"));
    }
}

#[test]
fn the_proxy_protocol_is_checked() {
    let entrypoint = |keys: &str| format!("[entrypoint.a]\nbind = '127.0.0.1:1'\nproxy_protocol = {keys}");
    for (keys, line) in [
        ("{}", "[W016]: weir.toml:3:18: entrypoint `a`: proxy_protocol is taken from nobody"),
        ("{ from = [] }", "[W016]: weir.toml:3:27: entrypoint `a`: proxy_protocol is taken from nobody"),
        (
            "{ from = 'x' }",
            "[W014]: weir.toml:3:27: entrypoint `a`: proxy_protocol is taken from allowlist `x`, which does not exist",
        ),
        (
            "{ from = 'cloudflare', timeout = '2m' }",
            "[W008]: weir.toml:3:51: entrypoint `a`: proxy_protocol.timeout is `2m`, out of range",
        ),
    ] {
        only(&entrypoint(keys), &format!("error{line}"));
    }
    only(
        "[[route]]\nhost = 'b'\nservice = 'b'\n[service.b]\nservers = '10.0.0.2:80'\nsend_proxy = 'v3'",
        "error[W005]: weir.toml:6:14: `service.b.send_proxy` is `v3`, which is none of `v1`, `v2`",
    );
    only(
        "[[route]]\nhost = 'b'\nservice = 'b'\n[service.b]\nservers = '10.0.0.2:80'\nprotocol = 'h2'",
        "error[W005]: weir.toml:6:12: `service.b.protocol` is `h2`, which is none of `http1`, `http2`, `auto`",
    );
}

#[test]
fn middleware_is_checked() {
    let used = |keys: &str| {
        format!("[middleware.m]\n{keys}\n[[route]]\nhost = 'm'\nservice = 'app'\nmiddleware = 'm'")
    };
    for (keys, line) in [
        ("", "error[W016]: weir.toml:1:13: middleware `m` does nothing"),
        ("hedaers = {}", "error[W003]: weir.toml:2:1: `hedaers` is not a key of `middleware.m`"),
        (
            "add_path = '/a'\nstrip_path = '/b'",
            "error[W027]: weir.toml:2:12: middleware `m` has both `strip_path` and `add_path`",
        ),
        (
            "add_path = 'a'",
            "error[W026]: weir.toml:2:12: middleware `m`: add_path `a` doesn't begin with `/`",
        ),
        ("strip_path = '/'", "error[W026]: weir.toml:2:14: middleware `m`: strip_path `/` changes nothing"),
        (
            "replace_path = { regex = '/a' }",
            "error[W016]: weir.toml:2:16: middleware `m`: there is no `replace_path.to`",
        ),
        (
            "replace_path = { regex = '/(a)', to = '/$2' }",
            "error[W060]: weir.toml:2:39: middleware `m`: `/$2` names the group `2`, which `/(a)` has not",
        ),
        ("redirect = {}", "error[W016]: weir.toml:2:12: middleware `m`: the redirect leads nowhere else"),
        (
            "redirect = { scheme = 'ftp' }",
            "error[W005]: weir.toml:2:23: middleware `m`: the scheme `ftp` is neither `https` nor `http`",
        ),
        (
            "redirect = { host = 'a', status = 200 }",
            "error[W024]: weir.toml:2:35: middleware `m`: status `200` is none of 301, 302, 303, 307 and 308",
        ),
        ("clients = {}", "error[W016]: weir.toml:2:11: middleware `m`: it lets in everybody"),
        (
            "clients = { deny = 'nobody' }",
            "error[W014]: weir.toml:2:20: middleware `m`: deny is on allowlist `nobody`, which does not exist",
        ),
        ("basic_auth = {}", "error[W016]: weir.toml:2:14: middleware `m`: there are no users"),
        (
            "basic_auth = { users = 'alice:{SHA}xyz' }",
            "error[W064]: weir.toml:2:24: middleware `m`: user `alice`: its hash is neither bcrypt's nor Argon2's",
        ),
        (
            "forward_auth = { service = 'ap' }",
            "error[W012]: weir.toml:2:28: middleware `m` asks service `ap`, which does not exist",
        ),
        (
            "rate_limit = { rate = '10' }",
            "error[W037]: weir.toml:2:23: middleware `m`: rate `10` is not a rate",
        ),
        (
            "rate_limit = { rate = '0/s' }",
            "error[W037]: weir.toml:2:23: middleware `m`: rate `0/s` is out of range",
        ),
        (
            "rate_limit = { rate = '1/s', by = 'ip' }",
            "error[W005]: weir.toml:2:35: middleware `m`: `ip` is neither `client` nor `route` nor `header:NAME`",
        ),
        ("concurrency = 0", "error[W024]: weir.toml:2:15: middleware `m`: concurrency is `0`, out of range"),
        (
            "body_limit = '10MB'",
            "error[W039]: weir.toml:2:14: middleware `m`: body_limit: `10MB` has a unit that means two things",
        ),
        ("buffer = '1GiB'", "error[W039]: weir.toml:2:10: middleware `m`: buffer is `1GiB`, out of range"),
        ("timeouts = {}", "error[W016]: weir.toml:2:12: middleware `m`: there is no timeout"),
        (
            "compress = { with = 'deflate' }",
            "error[W005]: weir.toml:2:21: middleware `m`: `deflate` is none of `zstd`, `br` and `gzip`",
        ),
        (
            "compress = { types = 'text' }",
            "error[W005]: weir.toml:2:22: middleware `m`: `text` is not a media type",
        ),
        (
            "headers = { request = { set = { Connection = 'x' } } }",
            "error[W028]: weir.toml:2:33: middleware `m`: `Connection` is Weir's own to set",
        ),
        (
            "headers = { request = { set = { A = '{hots}' } } }",
            "error[W028]: weir.toml:2:37: middleware `m`: `{hots}` is nothing that could be filled in",
        ),
        (
            "headers = { request = { remove = 'Host' } }",
            "error[W028]: weir.toml:2:34: middleware `m`: a request has exactly one `Host`",
        ),
    ] {
        only(&used(keys), line);
    }
    only(
        "[[route]]\nhost = 'm'\nservice = 'app'\nmiddleware = ['m']",
        "error[W063]: weir.toml:4:15: route `m` names middleware `m`, which does not exist",
    );
    only(
        "[[route]]\nhost = 'm'\nservice = 'app'\nmiddleware = [{ add_path = 'x' }]",
        "error[W026]: weir.toml:4:28: route `m`: middleware 1: add_path `x` doesn't begin with `/`",
    );
    only(
        "[[route]]\nhost = 'm'\nmiddleware = [{ add_path = '/x' }]",
        "error[W016]: weir.toml:1:1: route `m` has no `service`",
    );
    assert_eq!(
        faults(&format!("[[route]]\nhost = 'm'\nmiddleware = [{{ redirect = {{ host = 'n' }} }}]\n{SOUND}")),
        [""; 0],
        "a redirect needs no service"
    );
}

#[test]
fn pages_name_statuses_and_variables_that_there_are() {
    let more = |keys: &str| format!("[service.more]\nservers = ['10.0.0.2:80']\n{keys}");
    only(
        &more("pages = { '200' = 'maintenance' }"),
        "error[W085]: weir.toml:3:11: service `more`: pages: `200` is not a status, or none that a page can stand in for",
    );
    only(
        &more("pages = { '5xx' = 'maintenance', '503' = 'error' }"),
        "error[W027]: weir.toml:3:34: service `more`: pages: `503` overlaps with `5xx`",
    );
    only(
        &more("pages = { '503' = 'sory' }"),
        "error[W015]: weir.toml:3:19: service `more`: pages wants page `sory`, which does not exist",
    );
    only(
        "[page.maintenance]\nstatus = 200",
        "error[W024]: weir.toml:2:10: page `maintenance`: status is `200`, out of range",
    );
    only("[page.sorry]", "error[W016]: weir.toml:1:7: page `sorry` has no `html`");
    only(
        "[page.maintenance]\nservice = 'pages'",
        "error[W012]: weir.toml:2:11: page `maintenance` comes from service `pages`, which does not exist",
    );
    only(
        "[page.maintenance]\npath = '/sorry'",
        "error[W016]: weir.toml:2:8: page `maintenance` has `path`, but no `service` to ask",
    );
    only(
        "[page.maintenance]\nassets = '/nowhere'",
        "error[W023]: weir.toml:2:10: page `maintenance`: the assets in `/nowhere` can't be served: no such file",
    );
}

#[test]
fn maintenance_has_a_time_and_is_about_something() {
    for (case, expected) in [
        ("from = 'soon'", "error[W086]: weir.toml:2:8: maintenance: from `soon` is not a date and time"),
        (
            "until = '2026-12-01T22:00'",
            "error[W086]: weir.toml:2:9: maintenance: until `2026-12-01T22:00` doesn't say in which time zone",
        ),
        (
            "from = '2026-12-02T00:00Z'\nuntil = '2026-12-01T00:00Z'",
            "error[W027]: weir.toml:3:9: maintenance: it ends (`2026-12-01T00:00Z`) before it begins",
        ),
        ("route = 'al'", "error[W087]: weir.toml:2:9: maintenance: there is no route `al`"),
        ("route = []", "error[W029]: weir.toml:2:9: maintenance: `route` is an empty list"),
        ("host = 'a b'", "error[W025]: weir.toml:2:8: maintenance: host `a b` is not a host name"),
        (
            "allow = 'office'",
            "error[W014]: weir.toml:2:9: maintenance: allow is on allowlist `office`, which does not exist",
        ),
        (
            "except = '/'",
            "error[W027]: weir.toml:2:10: maintenance: `except` lets `/` through, which is everything",
        ),
        (
            "page = 'sorry'",
            "error[W015]: weir.toml:2:8: maintenance: page is page `sorry`, which does not exist",
        ),
        (
            "weekly = { days = 'someday', from = '02:00', until = '04:00' }",
            "error[W086]: weir.toml:2:19: maintenance: weekly.days: `someday` is not a day",
        ),
        (
            "weekly = { days = 'sun', from = '2', until = '04:00' }",
            "error[W086]: weir.toml:2:33: maintenance: weekly.from `2` is not a time of day",
        ),
        (
            "weekly = { days = 'sun', from = '02:00', until = '04:00', zone = 'Europe/Berln' }",
            "error[W086]: weir.toml:2:66: maintenance: weekly.zone `Europe/Berln` has a time zone `Europe/Berln` that this host doesn't know",
        ),
        (
            "weekly = { from = '02:00', until = '04:00' }",
            "error[W016]: weir.toml:2:10: maintenance: `weekly` has no `days`",
        ),
    ] {
        only(&format!("[[maintenance]]\n{case}"), expected);
    }
}

#[test]
fn what_is_wrong_with_a_log_is_said_at_its_place() {
    let log = |keys: &str| format!("[access_log.x]\n{keys}");
    for (case, line) in [
        (
            "[log]\nformat = 'jason'".to_owned(),
            "error[W005]: weir.toml:2:10: log.format is `jason`, which is neither `json` nor `combined` nor a text with variables",
        ),
        (
            "[log]\nkernel = 'loud'".to_owned(),
            "error[W005]: weir.toml:2:10: `log.kernel` is `loud`, which is none of `off`, `debug`",
        ),
        (
            "[log]\nformat = '{statu}'".to_owned(),
            "error[W005]: weir.toml:2:10: log.format: `{statu}` is no variable",
        ),
        (
            "[log]\nformat = '{status'".to_owned(),
            "error[W005]: weir.toml:2:10: log.format: `{{status}` is no variable",
        ),
        (
            log("format = 'json'"),
            "error[W016]: weir.toml:1:13: access_log `x` has no `to`: nobody knows where it goes",
        ),
        (
            log("to = 'journal'"),
            "error[W005]: weir.toml:2:6: access_log `x`: to is `journal`, which is neither `stdout` nor `journald` nor `syslog` nor a path",
        ),
        (
            log("to = 'syslog+tcp://a.example'"),
            "error[W009]: weir.toml:2:6: access_log `x`: to: `syslog+tcp://a.example` is no place for a syslog",
        ),
        (
            log("to = 'stdout'\nrotate = { size = '1MiB' }"),
            "error[W027]: weir.toml:3:10: access_log `x`: `rotate` is for a file, and this one doesn't go to a file",
        ),
        (
            log("to = '/x'\nrotate = { keep = 3 }"),
            "error[W016]: weir.toml:3:10: access_log `x`: rotate has neither `size` nor `age`",
        ),
        (
            log("to = '/x'\nrotate = { size = '1KiB' }"),
            "error[W039]: weir.toml:3:19: access_log `x`: rotate.size is `1KiB`, out of range",
        ),
        (
            log("to = 'syslog'\nsyslog = { tag = 'a b' }"),
            "error[W005]: weir.toml:3:18: access_log `x`: syslog.tag `a b` can't be a tag",
        ),
        (
            log("to = 'syslog'\nsyslog = { ca = 'x' }"),
            "error[W027]: weir.toml:3:17: access_log `x`: `syslog.ca` without `syslog+tls` does nothing",
        ),
        (
            log("to = '/x'\nstatus = '5xx'"),
            "error[W073]: weir.toml:3:10: access_log `x`: status: `5xx` is not a status",
        ),
        (
            log("to = '/x'\nroutes = 'al'"),
            "error[W087]: weir.toml:3:10: access_log `x` names route `al`, which does not exist",
        ),
        (
            log("to = '/x'\npaths = 'api'"),
            "error[W005]: weir.toml:3:9: access_log `x`: paths: `api` doesn't begin with `/`",
        ),
        (
            log("to = '/x'\nsample = '101%'"),
            "error[W082]: weir.toml:3:10: access_log `x`: sample is `101%`, out of range",
        ),
        (
            log("to = '/x'\nformat = 'combined'\nrequest_headers = 'a'"),
            "error[W027]: weir.toml:4:19: access_log `x`: `request_headers` has no place in this `format`",
        ),
        (
            log("to = '/x'\n[log]\nformat = 'json'"),
            "error[W027]: weir.toml:4:10: `log.format` is about `log.access`, which is off beside `[access_log.NAME]`",
        ),
        (
            log("to = '/x'\n[access_log.y]\nto = '/x'"),
            "error[W027]: weir.toml:4:6: access_log `y`: `/x` is written by the access log `x` already",
        ),
    ] {
        only(&case, line);
    }
}

#[test]
fn what_is_wrong_with_tracing_is_said_at_its_place() {
    let tracing = |keys: &str| format!("[tracing]\n{keys}");
    for (case, line) in [
        (
            tracing("sample = '1%'"),
            "error[W016]: weir.toml:1:1: `[tracing]` has no `endpoint`: there is no collector",
        ),
        (
            tracing("endpoint = 'a.example:4317'"),
            "error[W035]: weir.toml:2:12: tracing.endpoint: `a.example:4317` is neither http nor https",
        ),
        (
            tracing("endpoint = 'http://a.example/x'"),
            "error[W035]: weir.toml:2:12: tracing.endpoint: `http://a.example/x` has a path, and gRPC has its own",
        ),
        (
            tracing("endpoint = 'http://u:p@a.example'"),
            "error[W035]: weir.toml:2:12: tracing.endpoint: `http://u:p@a.example` carries a user name",
        ),
        (
            tracing("endpoint = 'http://a.example'\nca = 'x'"),
            "error[W027]: weir.toml:3:6: `tracing.ca` without `https` does nothing",
        ),
        (
            tracing("endpoint = 'http://a.example'\nheaders = { 'a b' = 'secret' }"),
            "error[W028]: weir.toml:3:13: tracing.headers: `a b` has no usable name",
        ),
        (
            "[metrics]\nevery = '30s'".to_owned(),
            "error[W016]: weir.toml:1:1: `[metrics]` has no `endpoint`: there is no collector",
        ),
        (
            "[metrics]\nendpoint = 'http://a.example'\nevery = '10ms'".to_owned(),
            "error[W008]: weir.toml:3:9: metrics.every is `10ms`, out of range",
        ),
        (
            "[metrics]\nendpoint = 'http://a.example'\nprotocol = 'http'\nheaders = { ok = \"a\\nb\" }"
                .to_owned(),
            "error[W028]: weir.toml:4:18: metrics.headers: `ok` has no usable value",
        ),
    ] {
        only(&case, line);
    }
}

#[test]
fn what_is_said_of_passthrough_by_port_is_checked() {
    for (case, lines) in [
        (
            "[entrypoint.t]\nbind = '127.0.0.1:25'\nprotocol = 'smtp'",
            &[
                "[W005]: weir.toml:3:12: `entrypoint.t.protocol` is `smtp`, which is none of `http`, `tcp`, `udp`",
            ][..],
        ),
        (
            "[entrypoint.t]\nbind = '127.0.0.1:25'\nprotocol = 'tcp'\nredirect = 'https'\nlimits = { fields = 20 }",
            &[
                "[W027]: weir.toml:4:12: entrypoint `t`: `redirect` means nothing where `protocol` is `tcp`: its bytes are passed \
                 through untouched",
                "[W027]: weir.toml:5:10: entrypoint `t`: `limits` means nothing where `protocol` is `tcp`: its bytes are passed \
                 through untouched",
            ],
        ),
        (
            "[entrypoint.t]\nbind = '127.0.0.1:53'\nprotocol = 'udp'\nsyn_cookies = 'always'",
            &[
                "[W027]: weir.toml:4:15: entrypoint `t`: `syn_cookies` means nothing where `protocol` is `udp`: its bytes are passed \
               through untouched",
            ],
        ),
        (
            "[entrypoint.t]\nbind = '127.0.0.1:8080'\nprotocol = 'tcp'",
            &[
                "[W018]: weir.toml:6:8: entrypoint `web` can't listen on `127.0.0.1:8080`: entrypoint `t` listens on `127.0.0.1:8080`",
            ],
        ),
        ("[entrypoint.u]\nbind = '127.0.0.1:8080'\nprotocol = 'udp'", &[]),
        (
            "[kernel]\nnat_ports = '40000'",
            &["[W005]: weir.toml:2:13: kernel.nat_ports: `40000` is not a range of ports"],
        ),
        (
            "[kernel]\nnat_ports = '9-1'",
            &["[W005]: weir.toml:2:13: kernel.nat_ports: `9-1` is not a range of ports"],
        ),
        (
            "[kernel]\nnat_ports = '80-40000'",
            &["[W024]: weir.toml:2:13: kernel.nat_ports: `80-40000` is out of range"],
        ),
        (
            "[kernel]\nnat_ports = '2000-2099'",
            &["[W024]: weir.toml:2:13: kernel.nat_ports: `2000-2099` is out of range"],
        ),
        ("[kernel]\nmax_flows = 1023", &["[W024]: weir.toml:2:13: kernel.max_flows is `1023`, out of range"]),
        (
            "[kernel]\nnat_ports = '8000-9000'",
            &[
                "[W018]: weir.toml:5:8: entrypoint `web` listens on port 8080, which is one of `kernel.nat_ports` (8000-9000)",
            ],
        ),
        (
            "[entrypoint.t]\nbind = '127.0.0.1:25565'\nprotocol = 'tcp'",
            &[
                "[W018]: weir.toml:2:8: entrypoint `t` listens on port 25565, which is one of `kernel.nat_ports` (20000-29999)",
            ],
        ),
        (
            "[entrypoint.u]\nbind = '127.0.0.1:53'\nprotocol = 'udp'\n[[route]]\nentrypoint = 'u'\npassthrough = 'x'\n\
             [service.x]\nservers = '10.0.0.2:53'\nsource = 'keep'",
            &[
                "[W027]: weir.toml:6:15: route `u`: entrypoint `u` carries UDP, and service `x` wants to see the client's address \
               (`source = \"keep\"`), which only the kernel keeps, and `kernel.interfaces` names none",
            ],
        ),
        (
            "[entrypoint.u]\nbind = '127.0.0.1:53'\nprotocol = 'udp'\n[[route]]\nentrypoint = 'u'\npassthrough = 'x'\n\
             [service.x]\nservers = '10.0.0.2:53'\nsend_proxy = 'v2'",
            &[
                "[W027]: weir.toml:6:15: route `u`: entrypoint `u` carries UDP, and service `x` wants the PROXY protocol \
               (`send_proxy`)",
            ],
        ),
        (
            "[service.x]\nservers = '10.0.0.2:25'\nsource = 'keep'\noffload = 'off'\nsend_proxy = 'v2'",
            &[
                "[W027]: weir.toml:3:10: service `x`: `source = \"keep\"` and `offload = \"off\"`: only the kernel keeps the client's \
                 address, and that goes through the daemon",
                "[W027]: weir.toml:3:10: service `x`: `source = \"keep\"` and `send_proxy`: only the kernel keeps the client's \
                 address, and that goes through the daemon",
            ],
        ),
        (
            "[service.x]\nfailover = ['app']\noffload = 'off'",
            &["[W027]: weir.toml:3:11: service `x` is made of other services, and has `offload`"],
        ),
    ] {
        let lines: Vec<_> = lines.iter().map(|line| format!("error{line}")).collect();
        assert_eq!(faults(&format!("{case}\n{SOUND}")), lines, "in: {case}");
    }
}
