//! Good configurations: what they become, and what is warned of.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{path::Path, time::Duration};

use http::Method;
use proxy_user::{
    config::{
        self, Loaded,
        model::{
            AccessLogFormat, AccessLogTarget, AdminAddr, AllowlistId, Ask, Cgroup, EntrypointId, HealthCheck,
            Hedge, HedgeAfter, HostMatch, KernelMode, MadeOf, PageId, Retry, Server, ServiceId, Slow, Step,
            WhenAllDown,
        },
    },
    tls::certificates::ServerAuthorities,
};

fn load(text: &str) -> Loaded {
    match config::load_text(Path::new("/etc/weir/weir.toml"), text) {
        Ok(loaded) => loaded,
        Err(report) => panic!("{report}"),
    }
}

fn shown(servers: &[Server]) -> Vec<String> {
    servers.iter().map(ToString::to_string).collect()
}

#[test]
fn the_embedded_default_is_valid_and_loopback_only() {
    let loaded = config::embedded_default();
    assert!(loaded.warnings.is_empty(), "{}", loaded.report());
    assert!(loaded.files.is_empty());
    let config = loaded.config;
    assert_eq!(config.entrypoints[0].bind, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(shown(&config.services[0].servers), ["127.0.0.1:8081"]);
    let socket = AdminAddr::Unix("/run/weir/admin.sock".into());
    assert_eq!(config.admin.bind, [AdminAddr::Tcp("127.0.0.1:9190".parse().unwrap()), socket]);
    assert!(config.admin.by_default);
    assert_eq!(config.kernel.mode, KernelMode::Auto);
    assert!(config.kernel.interfaces.is_empty());
    let WhenAllDown::Page(page) = config.services[0].when_all_down else { panic!("a page") };
    assert!(config.pages[page.0].html.starts_with(b"<!doctype html>"));
}

#[test]
fn services_are_made_of_services_in_sections_and_in_routes() {
    let more = "
[service.new]
servers = '10.0.0.9:80'
[service.both]
split = { new = 20, app = 80 }
sticky = 'cookie:which'
[service.both.judge]
variant = 'new'
margin_errors = '0.25%'
[service.safe]
failover = ['both', 'app']
[[route]]
host = 'safe'
service = 'safe'
[[route]]
name = 'shop.example/x'
host = 'shop.example'
split = { app = 1, new = 0 }
sticky = 'cookie'
fall_over = false
mirror = { to = 'safe', share = '12.5%', body_limit = '0B' }
";
    let loaded = load(&format!("{LEAST}{more}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.report());
    let config = loaded.config;
    let id =
        |name: &str| ServiceId(config.services.iter().position(|service| *service.name == *name).unwrap());
    let made_of = |name: &str| config.services[id(name).0].made_of.clone().unwrap();
    let MadeOf::Split(both) = made_of("both") else { panic!("a split") };
    assert_eq!(both.variants, [(id("new"), 20), (id("app"), 80)], "in the order in which they are written");
    assert_eq!((both.sticky.as_deref(), both.fall_over), (Some("which"), true));
    let judge = both.judge.unwrap();
    assert_eq!((judge.variant, judge.margin_errors, judge.confidence), (id("new"), 25, 9500));
    assert_eq!(judge.steps, [1, 5, 20, 50, 100]);
    assert_eq!(made_of("safe"), MadeOf::Failover(vec![id("both"), id("app")]));
    let MadeOf::Split(shop) = made_of("shop.example/x") else { panic!("a split") };
    assert_eq!((shop.sticky.as_deref(), shop.fall_over), (Some("weir_shop_example_x"), false));
    let MadeOf::Mirror(mirror) = made_of("shop.example/x mirror") else { panic!("a mirror") };
    assert_eq!((mirror.service, mirror.to, mirror.share), (id("shop.example/x"), id("safe"), 1250));
    let route = config.routes.iter().find(|route| *route.name == *"shop.example/x").unwrap();
    assert_eq!(route.service, Some(id("shop.example/x mirror")));
}

#[test]
fn cloudflare_is_a_cdn_and_other_lists_are_when_they_say_so() {
    for (lists, wanted) in [
        ("", [("cloudflare", true)].as_slice()),
        ("[allowlist.cloudflare]\ncdn = false\n", &[("cloudflare", false)]),
        ("[allowlist.cloudflare]\nprefixes = '192.0.2.0/24'\n", &[("cloudflare", true)]),
        (
            "[allowlist.edge]\nprefixes = '192.0.2.0/24'\ncdn = true\n[allowlist.office]\nprefixes = '192.0.2.0/24'\n",
            &[("edge", true), ("office", false), ("cloudflare", true)],
        ),
    ] {
        let config = load(&format!("{lists}{LEAST}")).config;
        let got: Vec<_> = config.allowlists.iter().map(|list| (&*list.name, list.cdn)).collect();
        assert_eq!(got, wanted, "{lists}");
    }
}

#[test]
fn a_limit_that_nobody_meets_is_warned_of() {
    let warned = |kernel: &str, allow: &str, cdn: bool| {
        let loaded = load(&format!(
            "{kernel}[entrypoint.web]\nbind = '127.0.0.1:80'\n{allow}source_limit = {{ packets = '600/m', cdn = {cdn} }}\n\
             [service.app]\nservers = '10.0.0.1:80'\n[[route]]\nservice = 'app'\n"
        ));
        let limit = loaded.config.entrypoints[0].source_limit.unwrap();
        assert_eq!((limit.packets.unwrap().burst, limit.connections), (20, None));
        loaded.report().to_string()
    };
    let kernel = "[kernel]\ninterfaces = 'eth0'\n";
    let cloudflare = "allow = 'cloudflare'\n";
    assert!(
        warned(kernel, cloudflare, false)
            .contains("warning[W049]: /etc/weir/weir.toml:6:16: entrypoint `web`")
    );
    assert_eq!(warned(kernel, cloudflare, true), "");
    assert_eq!(warned(kernel, "", false), "");
    assert!(warned("", "", false).contains("`source_limit` is not enforced"));
}

#[test]
fn a_shadowed_entrypoint_is_warned_of_as_long_as_it_is() {
    let with = |shadow: bool| {
        load(&format!(
            "[entrypoint.web]\nbind = '127.0.0.1:80'\nallow = 'cloudflare'\nshadow = {shadow}\n\
             [service.app]\nservers = '10.0.0.1:80'\n[[route]]\nservice = 'app'\n"
        ))
    };
    let loaded = with(true);
    assert!(loaded.config.entrypoints[0].shadow);
    assert_eq!(loaded.warnings.len(), 1);
    assert!(
        loaded
            .report()
            .to_string()
            .contains("warning[W048]: /etc/weir/weir.toml:4:10: entrypoint `web` is shadowed"),
        "{}",
        loaded.report()
    );
    let loaded = with(false);
    assert!(!loaded.config.entrypoints[0].shadow && loaded.warnings.is_empty());
}

#[test]
fn everything_that_is_written_arrives() {
    let loaded = load(
        r#"
[kernel]
interfaces = ["eth0", "eth1", "eth0"]
mode = "tc"
bpffs = "/run/bpf"
[admin]
bind = ["127.0.0.1:9000", "unix:/run/weir/admin.sock"]
[log]
access = "./access.log"
format = "combined"
[shutdown]
grace = "5s"
[allowlist.office]
prefixes = ["192.0.2.0/24", "192.0.2.7", "192.0.2.0/24", "2001:db8::/32"]
[entrypoint.web]
bind = ["0.0.0.0:80", "[::]:80"]
allow = ["office", "cloudflare"]
client_ip = { header = "CF-Connecting-IP", trust = "cloudflare" }
[entrypoint.local]
bind = "127.0.0.1:81"
[service.app]
servers = ["10.0.0.1:443", "[2001:db8::1]:443"]
tls = { server_name = "app.example.com" }
health = { path = "/ping?deep=1", host = "ping.example.com", every = "2s", timeout = "1s", fall = 3, rise = 4, drain_on = "404", drain_header = "X-Drain" }
timeouts = { connect = "1s", first_byte = "5m" }
retry = { attempts = 5, within = "1m", buffer = "1MiB", methods = "POST", statuses = ["429", "500-504"], budget = "50%", backoff = "0s" }
hedge = { after = "p90", most = "10%" }
pool = { warm = 2, idle = 9, idle_timeout = "20s" }
when_all_down = "try"
[service.plain]
servers = "10.0.0.2:80"
[page.maintenance]
retry_after = "2m"
[[route]]
host = "App.Example.com"
path = "/a/b/"
service = "app"
entrypoint = "web"
[[route]]
name = "rest"
host = "*.example.com"
service = "plain"
entrypoints = ["local", "web"]
"#,
    );
    assert!(loaded.warnings.is_empty(), "{}", loaded.report());
    let config = loaded.config;
    assert_eq!(config.kernel.interfaces, ["eth0".into(), "eth1".into()]);
    assert_eq!((config.kernel.mode, config.kernel.bpffs.as_path()), (KernelMode::Tc, Path::new("/run/bpf")));
    let socket = AdminAddr::Unix("/run/weir/admin.sock".into());
    assert_eq!(config.admin.bind, [AdminAddr::Tcp("127.0.0.1:9000".parse().unwrap()), socket]);
    let [access] = &config.log.access[..] else { panic!("{:?}", config.log.access) };
    assert_eq!(access.to, AccessLogTarget::File { path: "/etc/weir/access.log".into(), rotate: None });
    assert_eq!(access.format, AccessLogFormat::Combined);
    assert_eq!(config.shutdown.grace, Duration::from_secs(5));

    let office = &config.allowlists[0];
    let prefixes: Vec<_> = office.prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(
        (&*office.name, prefixes),
        ("office", ["192.0.2.0/24", "192.0.2.7/32", "2001:db8::/32"].map(String::from).to_vec())
    );
    assert_eq!((&*config.allowlists[1].name, config.allowlists[1].prefixes.len()), ("cloudflare", 22));

    let web = &config.entrypoints[0];
    assert_eq!((&*web.name, web.bind.len()), ("web", 2));
    assert_eq!(web.allow, [AllowlistId(0), AllowlistId(1)]);
    let client_ip = web.client_ip.as_ref().unwrap();
    assert_eq!(
        (client_ip.header.as_str(), &client_ip.trust[..]),
        ("cf-connecting-ip", &[AllowlistId(1)][..])
    );
    assert!(config.entrypoints[1].allow.is_empty() && config.entrypoints[1].client_ip.is_none());

    let app = &config.services[0];
    assert_eq!(shown(&app.servers), ["10.0.0.1:443", "[2001:db8::1]:443"]);
    let tls = app.tls.as_ref().unwrap();
    assert_eq!(tls.server_name.to_str(), "app.example.com");
    assert!(matches!(tls.authorities, ServerAuthorities::System));
    let health = app.health.as_ref().unwrap();
    assert_eq!(
        (path_of(health), health.host.as_ref().unwrap().as_bytes()),
        ("/ping?deep=1", &b"ping.example.com"[..])
    );
    assert_eq!((health.every, health.timeout), (Duration::from_secs(2), Duration::from_secs(1)));
    assert_eq!((health.fall, health.rise), (3, 4));
    let Ask::Http(check) = &health.ask else { panic!("over HTTP") };
    assert_eq!(check.drain.statuses, [http::StatusCode::NOT_FOUND]);
    assert_eq!(check.drain.header, Some(http::HeaderName::from_static("x-drain")));
    assert_eq!(app.timeouts.connect, Duration::from_secs(1));
    assert_eq!(app.timeouts.first_byte, Duration::from_secs(300));
    assert_eq!(
        app.retry,
        Retry {
            attempts: 5,
            within: Duration::from_secs(60),
            buffer: 1 << 20,
            methods: vec![Method::POST],
            statuses: vec![429..=429, 500..=504],
            budget: 50,
            backoff: Duration::ZERO,
        }
    );
    assert_eq!(app.hedge, Some(Hedge { after: HedgeAfter::Quantile(90), most: 10 }));
    assert_eq!(config.services[1].hedge, None);
    assert_eq!((app.pool.warm, app.pool.idle, app.pool.idle_timeout.as_secs()), (2, 9, 20));
    assert_eq!(app.when_all_down, WhenAllDown::Try);
    assert_eq!(config.services[1].when_all_down, WhenAllDown::Page(PageId(0)));

    assert_eq!(config.pages.len(), 2, "the page for errors is always there too");
    assert_eq!(config.pages[0].retry_after, Duration::from_secs(120));
    assert!(config.pages[0].html.starts_with(b"<!doctype html>"), "the built-in text stays");

    let first = &config.routes[0];
    assert_eq!(
        (&*first.name, first.path.to_string().as_str(), first.service),
        ("app.example.com/a/b", "/a/b", Some(ServiceId(0)))
    );
    assert_eq!(first.hosts, [HostMatch::Exact("app.example.com".into())]);
    assert_eq!(first.entrypoints, [EntrypointId(0)]);
    let rest = &config.routes[1];
    assert_eq!(
        (&*rest.name, rest.path.to_string().as_str(), rest.service),
        ("rest", "/", Some(ServiceId(1)))
    );
    assert_eq!(rest.hosts, [HostMatch::Wildcard("example.com".into())]);
    assert_eq!(rest.entrypoints, [EntrypointId(0), EntrypointId(1)]);
}

fn path_of(check: &HealthCheck) -> &str {
    let Ask::Http(http) = &check.ask else { panic!("over HTTP: {check:?}") };
    http.path.as_str()
}

const LEAST: &str = "[entrypoint.web]\nbind = '127.0.0.1:80'\n[service.app]\nservers = '10.0.0.1:80'\n[[route]]\nservice = 'app'\n";

#[test]
fn what_isnt_written_has_its_default() {
    let config = load(&LEAST.replace("servers", "health = { path = '/' }\nservers")).config;
    assert_eq!(
        (config.kernel.mode, config.kernel.bpffs.as_path()),
        (KernelMode::Auto, Path::new("/sys/fs/bpf"))
    );
    let [access] = &config.log.access[..] else { panic!("{:?}", config.log.access) };
    assert_eq!((&access.to, &access.format), (&AccessLogTarget::Stdout, &AccessLogFormat::Json));
    assert!(access.filter.takes_all() && config.log.level == "info" && config.tracing.is_none());
    let told = load(&format!("[log]\nkernel = 'debug'\n{LEAST}")).config;
    assert!(!config.log.kernel && told.log.kernel);
    assert_eq!(config.shutdown.grace, Duration::from_secs(30));
    assert_eq!(config.upgrade.ready, Duration::from_secs(30));
    assert_eq!(config.upgrade.drain, Duration::from_secs(3600));
    let app = &config.services[0];
    let health = app.health.as_ref().unwrap();
    assert_eq!((health.every, health.timeout), (Duration::from_secs(1), Duration::from_millis(250)));
    assert_eq!((health.fall, health.rise), (2, 2));
    assert_eq!((health.fast, health.port), (Duration::from_millis(250), None));
    assert_eq!((app.eject.is_some(), app.breaker.is_some(), app.panic), (false, false, 0));
    assert_eq!(config.kernel.cgroup, Cgroup::Auto);
    assert_eq!(app.timeouts.connect, Duration::from_millis(300));
    assert_eq!(app.timeouts.first_byte, Duration::from_secs(60));
    let retry = &app.retry;
    assert_eq!((retry.attempts, retry.within, retry.buffer), (3, Duration::from_secs(30), 64 << 10));
    assert_eq!((&retry.methods[..], &retry.statuses[..], retry.budget), (&[][..], &[502..=504][..], 20));
    assert_eq!(retry.backoff, Duration::from_millis(25));
    assert_eq!((app.pool.warm, app.pool.idle, app.pool.idle_timeout.as_secs()), (0, 256, 4));
    assert_eq!(app.timeouts.unacknowledged, Duration::from_secs(30));
    let WhenAllDown::Page(page) = app.when_all_down else { panic!("a page") };
    assert_eq!(
        (&*config.pages[page.0].name, config.pages[page.0].retry_after),
        ("maintenance", Duration::from_secs(30))
    );
    assert_eq!((&*config.routes[0].name, &config.routes[0].hosts[..]), ("*", &[HostMatch::Any][..]));
}

#[test]
fn each_way_to_ask_a_server_arrives() {
    let ask = |health: &str| {
        let text = LEAST.replace("servers", &format!("health = {{ {health} }}\nservers"));
        load(&text).config.services[0].health.clone().unwrap().ask
    };
    assert_eq!(ask("tcp = true"), Ask::Tcp);
    assert_eq!(ask("tls = true, host = 'a.example'"), Ask::Tls);
    assert_eq!(ask("grpc = 'shop.v1.Cart'"), Ask::Grpc("shop.v1.Cart".into()));
    let steps = vec![Step::Send("PING\r\n".into()), Step::Expect("+PONG".into())];
    for written in [
        "send = 'PING\\r\\n', expect = '+PONG'",
        "send = \"PING\\r\\n\", expect = '+PONG'",
        "script = [{ send = 'PING\\x0d\\x0a' }, { expect = '+PONG' }]",
    ] {
        assert_eq!(ask(written), Ask::Script { steps: steps.clone(), tls: false }, "{written}");
    }
    assert!(matches!(ask("expect = '220 ', tls = true"), Ask::Script { tls: true, .. }));
    let Ask::Http(http) = ask("path = '/', method = 'HEAD', status = ['200-299', '401']") else { panic!() };
    assert_eq!((http.method.as_str(), http.status), ("HEAD", vec![200..=299, 401..=401]));
}

#[test]
fn ejection_and_breaker_arrive() {
    let text = LEAST.replace(
        "servers",
        "eject = { after = 3, for = '2s', longest = '1m', most = '34%', status = '500-599' }\n\
         breaker = { errors = '50%', latency = '2s', quantile = '99%', over = '30s', recover = '0s' }\n\
         panic = '30%'\nservers",
    );
    let config = load(&text).config;
    let service = &config.services[0];
    let eject = service.eject.as_ref().unwrap();
    assert_eq!((eject.after, eject.most, eject.first), (3, 34, Duration::from_secs(2)));
    assert_eq!((eject.longest, &eject.status[..]), (Duration::from_secs(60), &[500..=599][..]));
    let breaker = service.breaker.as_ref().unwrap();
    assert_eq!((breaker.network, breaker.errors, breaker.at_least), (None, Some(50), 20));
    assert_eq!(breaker.latency, Some(Slow { limit: Duration::from_secs(2), quantile: 99 }));
    assert_eq!((breaker.over, breaker.open), (Duration::from_secs(30), Duration::from_secs(5)));
    assert_eq!((breaker.recover, service.panic), (Duration::ZERO, 30));
}

#[test]
fn a_probe_faster_than_the_default_timeout_has_a_shorter_one() {
    let config = load(&LEAST.replace("servers", "health = { path = '/', every = '100ms' }\nservers")).config;
    assert_eq!(config.services[0].health.as_ref().unwrap().timeout, Duration::from_millis(100));
}

#[test]
fn a_written_cloudflare_list_replaces_the_built_in_one() {
    let text = "[allowlist.cloudflare]\nprefixes = '192.0.2.0/24'\n".to_owned()
        + &LEAST.replace("'127.0.0.1:80'", "'127.0.0.1:80'\nallow = 'cloudflare'");
    let config = load(&text).config;
    assert_eq!(config.allowlists.len(), 1);
    assert_eq!(config.allowlists[0].prefixes, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(config.entrypoints[0].allow, [AllowlistId(0)]);
}

#[test]
fn what_is_odd_but_works_is_a_warning() {
    let warnings = |text: &str| {
        let lines = load(text).warnings.iter().map(config::Diagnostic::line).collect::<Vec<_>>();
        lines.into_iter().map(|line| line.replace("/etc/weir/", "")).collect::<Vec<_>>()
    };
    assert_eq!(warnings(LEAST), [""; 0]);
    let unused =
        format!("{LEAST}[service.old]\nservers = '10.0.0.9:80'\n[allowlist.lan]\nprefixes = '10.0.0.0/8'\n");
    assert_eq!(
        warnings(&unused),
        [
            "warning[W040]: weir.toml:7:10: service `old` is never used: no route or service leads to it",
            "warning[W040]: weir.toml:9:12: allowlist `lan` is never used: nothing refers to it",
        ]
    );
    assert_eq!(
        warnings("[entrypoint.web]\nbind = '127.0.0.1:80'"),
        ["warning[W041]: weir.toml:1:13: no route applies to entrypoint `web`: every request gets 404"]
    );
    assert_eq!(
        warnings(&LEAST.replace("servers", "tls = { server_name = 'a', insecure = true }\nservers")),
        ["warning[W043]: weir.toml:4:39: service `app`: the servers' certificates are not checked"]
    );
}

#[test]
fn the_built_in_list_is_fetched_and_may_be_told_how() {
    let of = |text: &str| {
        let config = load(&format!("{text}{LEAST}")).config;
        let list = config.allowlists.into_iter().find(|list| &*list.name == "cloudflare").unwrap();
        (list.prefixes.len(), list.written.len(), list.fetch)
    };
    let (all, written, fetch) = of("");
    let fetch = fetch.unwrap();
    assert_eq!((all, written, fetch.floor.len()), (22, 0, 22));
    assert_eq!(fetch.source.urls, ["https://api.cloudflare.com/client/v4/ips"]);
    assert_eq!(fetch.refresh, Some(Duration::from_secs(12 * 3600)));
    assert_eq!((fetch.timeout, fetch.shrink_limit), (Duration::from_secs(15), 50));

    let (all, _, fetch) = of("[allowlist.cloudflare]\nrefresh = 'off'\nshrink_limit = 0\n");
    let fetch = fetch.unwrap();
    assert_eq!((all, fetch.refresh, fetch.shrink_limit), (22, None, 0));
    assert_eq!(fetch.source.json.len(), 2, "still the built-in source");

    let (all, _, fetch) = of("[allowlist.cloudflare]\nurl = 'https://mirror.example/ips'\n");
    let fetch = fetch.unwrap();
    assert_eq!((all, fetch.floor.len(), fetch.source.json.len()), (22, 22, 0));

    // With members of its own it is another list.
    let (all, written, fetch) = of("[allowlist.cloudflare]\nprefixes = '192.0.2.0/24'\n");
    assert_eq!((all, written), (1, 1));
    assert!(fetch.is_none());
}

#[test]
fn a_list_may_consist_of_what_is_written_and_what_is_fetched() {
    let loaded = load(&format!(
        "[state]\ndir = '/srv/weir'\n[allowlist.cdn]\nprefixes = '192.0.2.0/24'\n\
         url = ['https://a.example/4?x', 'http://[2001:db8::1]:81/6']\njson = '/a/*/b'\n{LEAST}"
    ));
    let list = &loaded.config.allowlists[0];
    let fetch = list.fetch.as_ref().unwrap();
    assert_eq!((list.prefixes.len(), list.written.len(), fetch.floor.len()), (1, 1, 0));
    assert_eq!(fetch.source.urls.len(), 2);
    assert_eq!(fetch.source.json, ["/a/*/b"]);
    assert_eq!(loaded.config.state.dir, Path::new("/srv/weir"));
    let plain = loaded.warnings.iter().find(|warning| warning.code == config::Code::PlainList);
    assert_eq!(
        plain.map(config::Diagnostic::line).unwrap_or_default(),
        "warning[W046]: /etc/weir/weir.toml:5:33: allowlist `cdn`: `http://[2001:db8::1]:81/6` is fetched without TLS"
    );
}

/// The warnings of routes beside `[service.app]`, one a line.
fn warned(routes: &str) -> Vec<String> {
    let text =
        format!("[entrypoint.web]\nbind = '127.0.0.1:80'\n[service.app]\nservers = '10.0.0.1:80'\n{routes}");
    load(&text).warnings.iter().map(config::Diagnostic::line).collect()
}

fn routes(each: &[&str]) -> String {
    each.iter()
        .enumerate()
        .map(|(nth, keys)| format!("[[route]]\nname = '{nth}'\nservice = 'app'\n{keys}\n"))
        .collect()
}

#[test]
fn routes_of_one_place_differ_by_their_conditions() {
    let loaded = load(&format!(
        "[entrypoint.web]\nbind = '127.0.0.1:80'\n[allowlist.office]\nprefixes = '10.0.0.0/8'\n\
         [service.app]\nservers = '10.0.0.1:80'\n{}",
        routes(&[
            "host = ['A.example', { regex = 'b[0-9]' }]\npath = { exact = '/x/' }",
            "method = ['GET', 'HEAD']\nheader = { X-Canary = '1', Accept = { regex = '.*json.*' } }",
            "query = { preview = '1' }\nclient = ['office', '192.0.2.1']",
            "not = { host = 'c.example', path = ['/a', { exact = '/b' }], client = 'office' }\npriority = -5",
            "path = { regex = '/v[0-9]+' }",
        ])
    ));
    assert!(loaded.warnings.is_empty(), "{}", loaded.report());
    let shown: Vec<String> = loaded
        .config
        .routes
        .iter()
        .map(|route| {
            let hosts: Vec<_> = route.hosts.iter().map(ToString::to_string).collect();
            let all: Vec<_> = route.when.iter().map(ToString::to_string).collect();
            let not: Vec<_> = route.not.iter().map(|not| format!("not {not}")).collect();
            format!("{} {} {}", hosts.join(","), route.path, [all, not].concat().join(", "))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "a.example,~b[0-9] =/x/ ",
            "* / method GET HEAD, header accept~.*json.*, header x-canary=1",
            "* / query preview=1, client in 2 networks",
            "* / not host c.example, not path /a, not path =/b, not client in 1 networks",
            "* ~/v[0-9]+ ",
        ]
    );
}

#[test]
fn a_route_that_no_request_can_take_is_warned_of() {
    for (keys, nobody_takes) in [
        (&["host = 'a'\npriority = 1", "host = 'a'\npath = '/x'"][..], Some("1")),
        (&["priority = 1", "host = 'a'"], Some("1")),
        (&["host = '*.b'\npriority = 1", "host = 'a.b'"], Some("1")),
        (&["host = 'a'\npath = '/x'", "host = 'a'\npath = { regex = '.*' }"], Some("0")),
        (&["host = 'a'\nmethod = ['GET', 'PUT']", "host = 'a'\nmethod = 'PUT'"], Some("1")),
        (&["host = 'a'\nclient = '10.0.0.0/8'", "host = 'a'\nclient = '10.1.0.0/16'"], Some("1")),
        (&["host = 'a'\nmethod = 'PUT'", "host = 'a'\nmethod = ['GET', 'PUT']"], None),
        (&["host = 'a'\npriority = 1\nmethod = 'PUT'", "host = 'a'"], None),
        (&["host = 'a'\npriority = 1", "host = ['a', 'b']"], None),
        (&["host = 'a'", "host = '*.a'", "host = 'a'\npath = '/x'", ""], None),
    ] {
        let expected: Vec<_> = nobody_takes.into_iter().collect();
        let warned = warned(&routes(keys));
        assert_eq!(warned.len(), expected.len(), "{keys:?}: {warned:?}");
        for (warned, name) in warned.iter().zip(expected) {
            assert!(
                warned.starts_with("warning[W062]")
                    && warned.contains(&format!("route `{name}` is never taken")),
                "{warned}"
            );
        }
    }
}

#[test]
fn limits_and_protocols_arrive_and_have_defaults() {
    let loaded = load(
        "[allowlist.lb]\nprefixes = '10.0.0.2'\n\
         [entrypoint.a]\nbind = '127.0.0.1:80'\nproxy_protocol = { from = 'lb' }\n\
         limits = { fields = 50, head = '16KiB', connections = 0, connections_per_client = 7, stream_idle = '1h' }\n\
         [entrypoint.b]\nbind = '127.0.0.1:81'\n\
         [service.app]\nservers = '10.0.0.1:80'\nprotocol = 'http2'\nsend_proxy = 'v2'\n[[route]]\nservice = 'app'\n",
    );
    assert!(loaded.warnings.is_empty(), "{}", loaded.report());
    let [a, b] = &loaded.config.entrypoints[..] else { panic!("two entrypoints") };
    assert_eq!((a.limits.fields, a.limits.head, a.limits.connections), (50, 16_384, None));
    assert_eq!((a.limits.connections_per_client, a.limits.stream_idle), (Some(7), Duration::from_secs(3600)));
    let proxies = a.proxy_protocol.as_ref().unwrap();
    assert_eq!((proxies.from.len(), proxies.timeout), (1, Duration::from_secs(5)));
    assert_eq!((b.limits.fields, b.limits.head, b.limits.connections), (100, 65_536, Some(50_000)));
    assert_eq!((b.limits.head_time, b.limits.body_idle), (Duration::from_secs(10), Duration::from_secs(30)));
    assert!(b.proxy_protocol.is_none());
    let service = &loaded.config.services[0];
    assert_eq!(format!("{:?} {:?}", service.protocol, service.send_proxy), "Http2 Some(V2)");
}
