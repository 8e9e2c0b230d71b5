//! What providers give, merged with the host's own files: order, conflicts, and what becomes of what is faulty.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, sync::Arc};

use proptest::prelude::*;
use proxy_user::config::{
    self, Loaded,
    documents::{Document, Instead, Supplies, Supply},
};
use tempfile::TempDir;

const OWN: &str = "[entrypoint.web]\nbind = '127.0.0.1:80'\n\
    [provider.first]\nkind = 'directory'\npath = 'sites'\norder = 10\n\
    [provider.second]\nkind = 'http'\nurl = 'https://config.example.com/'\n";

fn site(name: &str) -> String {
    format!(
        "[service.{name}]\nservers = '10.0.0.1:80'\n[[route]]\nhost = '{name}.example'\nservice = '{name}'\n"
    )
}

fn host(own: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("weir.toml"), own).unwrap();
    folder
}

fn documents(provider: &str, texts: &[(&str, &str)]) -> Vec<Document> {
    texts.iter().map(|(name, text)| Document::of(provider, name, *text)).collect()
}

/// What is new at a provider's source, and what of it ran before.
fn supply(provider: &str, wanted: &[(&str, &str)], good: &[(&str, &str)]) -> (Arc<str>, Supply) {
    let (wanted, good) = (documents(provider, wanted), documents(provider, good));
    (provider.into(), Supply { wanted, good, whole: false })
}

fn load(folder: &TempDir, supplies: impl IntoIterator<Item = (Arc<str>, Supply)>) -> Loaded {
    let supplies: Supplies = supplies.into_iter().collect();
    config::load_with(&folder.path().join("weir.toml"), &supplies).unwrap_or_else(|report| panic!("{report}"))
}

fn services(loaded: &Loaded) -> Vec<&str> {
    loaded.config.services.iter().map(|service| &*service.name).collect()
}

#[test]
fn documents_come_after_the_hosts_own_files_by_order_then_by_name() {
    let folder = host(&format!("{OWN}{}", site("own")));
    let loaded = load(
        &folder,
        [
            supply("second", &[("c", &site("c")), ("a", &site("a"))], &[]),
            supply("first", &[("z", &site("z"))], &[]),
            supply("unknown", &[("x", &site("x"))], &[]),
        ],
    );
    assert_eq!(services(&loaded), ["own", "z", "a", "c"]);
    let names: Vec<_> = loaded.config.providers.iter().map(|provider| &*provider.name).collect();
    assert_eq!(names, ["first", "second"]);
    assert!(loaded.taken.faults.is_empty() && loaded.taken.conflicts.is_empty());
    assert_eq!(loaded.taken.documents.len(), 2);
}

#[test]
fn of_two_with_a_name_the_first_counts_and_both_places_are_told() {
    let folder = host(&format!("{OWN}{}", site("shop")));
    let two = "[service.shop]\nservers = '10.0.0.2:80'\n[shutdown]\ngrace = '1s'\n";
    let loaded = load(
        &folder,
        [
            supply("first", &[("a.toml", two)], &[]),
            supply("second", &[("b.toml", "\n[shutdown]\ngrace = '2s'\n")], &[]),
        ],
    );
    assert_eq!(loaded.config.services[0].servers[0].to_string(), "10.0.0.1:80");
    let told: Vec<_> =
        loaded.taken.conflicts.iter().map(|one| format!("{}\n{}", one.line(), one.hint_line())).collect();
    assert!(told[0].starts_with("warning[W101]: first:a.toml:1:10: service `shop` is left out"), "{told:?}");
    assert!(told[0].contains("weir.toml:10:10"), "{told:?}");
    assert!(
        told[1].starts_with("warning[W101]: second:b.toml:2:1: section `shutdown` is left out"),
        "{told:?}"
    );
    assert!(told[1].contains("this one counts: first:a.toml:3:1"), "{told:?}");
    assert_eq!(told.len(), 2);
}

#[test]
fn a_faulty_document_is_left_out_with_its_place_and_the_rest_runs() {
    let folder = host(OWN);
    let broken = "[service.b]\nservers = '10.0.0.1:80'\nservrs = 1\n";
    let loaded = load(&folder, [supply("second", &[("a", &site("a")), ("b", broken)], &[])]);
    assert_eq!(services(&loaded), ["a"]);
    let fault = &loaded.taken.faults[0];
    assert_eq!((&*fault.name, fault.instead, loaded.taken.faults.len()), ("b", Instead::Nothing, 1));
    let told = fault.why();
    assert!(told.starts_with("error[W003]: second:b:3:1: `servrs` is not a key of `service.b`"), "{told}");
    assert!(loaded.report().lines().contains("second:b:3:1"), "the report has it too");
}

#[test]
fn a_faulty_change_keeps_the_last_good_version() {
    let folder = host(OWN);
    let wrong = site("b").replace("10.0.0.1:80", "nowhere");
    let was = site("b").replace("10.0.0.1", "10.0.0.9");
    let loaded = load(&folder, [supply("second", &[("b", &wrong)], &[("b", &was)])]);
    assert_eq!(loaded.config.services[0].servers[0].to_string(), "10.0.0.9:80");
    assert_eq!(loaded.taken.faults[0].instead, Instead::LastGood);
    assert!(loaded.taken.faults[0].why().contains("second:b:2:11"), "{}", loaded.taken.faults[0].why());
    assert_eq!(
        loaded.taken.documents["second"][0].text.as_deref(),
        Ok(was.as_str()),
        "it stays the good one"
    );
}

#[test]
fn what_is_gone_at_its_source_stays_while_others_need_it() {
    let folder = host(&format!("{OWN}[[route]]\nservice = 'a'\n"));
    let loaded = load(&folder, [supply("second", &[("b", &site("b"))], &[("a", &site("a"))])]);
    assert_eq!(services(&loaded), ["a", "b"]);
    let fault = &loaded.taken.faults[0];
    assert_eq!((&*fault.name, fault.instead), ("a", Instead::Itself));
    assert!(fault.why().contains("weir.toml:11:11: route"), "{}", fault.why());
}

#[test]
fn what_a_document_may_not_say_is_told_and_it_is_left_out() {
    let folder = host(&format!("{OWN}{}", site("own")));
    for (text, section) in [
        ("[kernel]\n", "kernel"),
        ("[admin]\nbind = '0.0.0.0:1'\n", "admin"),
        ("[log]\naccess = '/etc/cron.d/mine'\n", "log"),
        ("[access_log.mine]\nto = '/etc/cron.d/mine'\n", "access_log"),
        ("[process]\nsandbox = false\n", "process"),
        ("[state]\ndir = '/tmp'\n", "state"),
        ("[provider.more]\nkind = 'directory'\npath = '/'\n", "provider"),
    ] {
        let loaded = load(&folder, [supply("second", &[("x", text)], &[])]);
        let why = loaded.taken.faults[0].why();
        assert!(why.starts_with("error[W100]: second:x:1:"), "{why}");
        assert!(why.contains(&format!("`[{section}]` is for the host's own configuration to say")), "{why}");
    }
}

#[test]
fn a_fault_of_the_hosts_own_files_is_a_fault_of_the_whole() {
    let folder = host(&format!("{OWN}[[route]]\nservice = 'nowhere'\n"));
    let supplies: Supplies = [supply("second", &[("a", &site("a"))], &[])].into();
    let report = config::load_with(&folder.path().join("weir.toml"), &supplies).unwrap_err();
    assert_eq!(report.errors(), 1, "{report}");
    assert!(report.lines().contains("weir.toml:11:11"), "{report}");
}

#[test]
fn a_fault_in_a_list_that_a_document_names_is_the_documents() {
    let folder = host(&format!("{OWN}{}", site("own")));
    fs::write(folder.path().join("list.txt"), "10.0.0.0/8\nnonsense\n").unwrap();
    let text =
        "[allowlist.office]\nfile = 'list.txt'\n[entrypoint.x]\nbind = '127.0.0.1:81'\nallow = 'office'\n";
    let loaded = load(&folder, [supply("second", &[("x", text)], &[])]);
    assert_eq!(loaded.config.entrypoints.len(), 1);
    assert!(loaded.taken.faults[0].why().contains("list.txt:2:1"), "{}", loaded.taken.faults[0].why());
}

#[test]
fn a_document_that_cannot_be_read_is_told_by_its_name() {
    let folder = host(&format!("{OWN}{}", site("own")));
    let unread = Document {
        text: Err("can't be read: permission denied".to_owned()),
        ..Document::of("second", "x", "")
    };
    let supply = Supply { wanted: vec![unread], ..Supply::default() };
    let loaded = load(&folder, [("second".into(), supply)]);
    assert_eq!(loaded.taken.faults[0].why(), "error[W001]: second:x: can't be read: permission denied");
}

#[test]
fn bare_is_what_can_be_said_before_any_document_is_there() {
    let own = "[process]\nsandbox = false\n[state]\ndir = '/var/lib/x'\n[[route]]\nservice = 'from-a-document'\n\
        [provider.p]\nkind = 'directory'\npath = 'sites'\n";
    let folder = host(own);
    let path = folder.path().join("weir.toml");
    assert!(config::load(&path).is_err());
    let bare = config::load_bare(&path).unwrap().config;
    assert_eq!((bare.providers.len(), bare.process.sandbox), (1, false));
    assert_eq!(bare.state.dir.to_str(), Some("/var/lib/x"));
}

#[test]
fn providers_are_told_what_is_wrong_with_them() {
    for (section, told) in [
        ("", "error[W016]: weir.toml:3:11: provider `p` has no `kind`"),
        ("kind = 'directory'", "error[W016]: weir.toml:3:11: provider `p` has no `path`"),
        ("kind = 'directory'\npath = ''", "error[W016]: weir.toml:5:8: provider `p` has no `path`"),
        (
            "kind = 'directory'\npath = 'x'\nurl = 'https://a.example/'",
            "error[W027]: weir.toml:6:7: provider `p`: `url` says nothing to a provider of kind `directory`",
        ),
        (
            "kind = 'zookeeper'",
            "error[W005]: weir.toml:4:8: `provider.p.kind` is `zookeeper`, which is none of",
        ),
        (
            "kind = 'http'\nurl = 'ftp://a.example/'",
            "error[W035]: weir.toml:5:7: provider `p`: url `ftp://a.example/` is neither",
        ),
        (
            "kind = 'http'\nurl = 'http://a.example/'",
            "warning[W102]: weir.toml:5:7: provider `p`: url `http://a.example/` is asked",
        ),
        (
            "kind = 'http'\nurl = 'https://a.example/'\nevery = '1ms'",
            "error[W008]: weir.toml:6:9: provider `p`: every is `1ms`, out of range",
        ),
        (
            "kind = 'http'\nurl = 'https://a.example/'\nheaders = { Host = 'x' }",
            "error[W028]: weir.toml:6:13: provider `p`: headers: `host` is Weir's own to write",
        ),
        (
            "kind = 'http'\nurl = 'https://a.example/'\nheader_files = { X = '/nowhere/at/all' }",
            "error[W070]: weir.toml:6:22: provider `p`: header_files: `/nowhere/at/all` can't be used: no such file",
        ),
        (
            "kind = 'consul'\naddress = 'https://a.example/v1'",
            "error[W035]: weir.toml:5:11: provider `p`: address `https://a.example/v1` has a path",
        ),
        (
            "kind = 'consul'\naddress = 'http://127.0.0.1:8500'\nprefix = '/'",
            "error[W005]: weir.toml:6:10: provider `p`: prefix `/` is not a key's beginning",
        ),
        (
            "kind = 'docker'\nendpoint = '/var/run/docker.sock'",
            "error[W009]: weir.toml:5:12: provider `p`: endpoint `/var/run/docker.sock` is not an address",
        ),
        (
            "kind = 'docker'\nendpoint = 'tcp://docker.example'",
            "error[W009]: weir.toml:5:12: provider `p`: endpoint `tcp://docker.example` is not an address",
        ),
        (
            "kind = 'docker'\nendpoint = 'tcp://docker.example:2375'",
            "warning[W102]: weir.toml:5:12: provider `p`: endpoint `tcp://docker.example:2375` is asked without TLS",
        ),
        ("kind = 'docker'\ntls = {}", "weir.toml:5:7: provider `p`: tls: there is no TLS over a unix socket"),
        (
            "kind = 'docker'\nevery = '1s'",
            "weir.toml:5:9: provider `p`: `every` says nothing to a provider of kind `docker`",
        ),
        ("kind = 'consul-catalog'", "weir.toml:3:11: provider `p` has no `address`"),
        (
            "kind = 'consul-catalog'\naddress = 'http://127.0.0.1:8500'\ndatacenters = ['dc 1']",
            "weir.toml:6:16: provider `p`: datacenters `dc 1` is not a datacenter's name",
        ),
        (
            "kind = 'directory'\npath = 'x'\norder = 0",
            "error[W024]: weir.toml:6:9: provider `p`: order is `0`, out of range",
        ),
        (
            "kind = 'kubernetes'",
            "error[W016]: weir.toml:3:11: provider `p` names no entrypoint at which its routes come in",
        ),
        (
            "kind = 'kubernetes'\nhttp = 'wbe'",
            "error[W013]: weir.toml:5:8: provider `p`: http names entrypoint `wbe`, which does not exist",
        ),
        (
            "kind = 'kubernetes'\nhttps = 'web'",
            "error[W027]: weir.toml:5:9: provider `p`: https names `web`, which has no `tls`",
        ),
        (
            "kind = 'kubernetes'\nhttp = 'web:0'",
            "error[W009]: weir.toml:5:8: provider `p`: http `web:0` has no usable port",
        ),
        (
            "kind = 'kubernetes'\nhttp = 'web'\nnamespaces = ['Shop']",
            "error[W007]: weir.toml:6:15: provider `p`: namespaces `Shop` is no namespace's name",
        ),
        (
            "kind = 'kubernetes'\nhttp = 'web'\nkubeconfig = '/nowhere'",
            "error[W070]: weir.toml:6:14: provider `p`: kubeconfig: `/nowhere` can't be used: no such file",
        ),
        (
            "kind = 'kubernetes'\nhttp = 'web'\naddress = 'https://a.example'\nkubeconfig = 'x'",
            "error[W027]: weir.toml:7:14: provider `p` has both `address` and `kubeconfig`",
        ),
        (
            "kind = 'kubernetes'\nhttp = 'web'\nca = 'x'",
            "error[W027]: weir.toml:6:6: provider `p`: `ca` says nothing without `address`",
        ),
        (
            "kind = 'kubernetes'\nhttp = 'web'\ningress_class = 'off'\ngateway_class = 'off'",
            "error[W027]: weir.toml:3:11: provider `p` looks at neither Ingresses nor Gateways",
        ),
        (
            "kind = 'consul'\naddress = 'http://127.0.0.1:8500'\nsecrets = true",
            "error[W027]: weir.toml:6:11: provider `p`: `secrets` says nothing to a provider of kind `consul`",
        ),
    ] {
        let text = format!("[entrypoint.web]\nbind = '127.0.0.1:80'\n[provider.p]\n{section}\n");
        let lines = match config::load_text("weir.toml".as_ref(), &text) {
            Ok(loaded) => loaded.report().lines(),
            Err(report) => report.lines(),
        };
        assert!(lines.contains(told), "{section}:\n{lines}");
    }
}

proptest! {
    /// What comes of documents doesn't depend on the order in which they came.
    #[test]
    fn the_order_in_which_words_come_changes_nothing(
        all in proptest::collection::vec((0..2_usize, 0..5_u8, 0..4_u8), 1..10).prop_shuffle(),
    ) {
        let folder = host(OWN);
        let of = |all: &[(usize, u8, u8)]| {
            let mut supplies = Supplies::new();
            for (provider, name, content) in all {
                let provider = ["first", "second"][*provider];
                let supply: &mut Supply = supplies.entry(provider.into()).or_default();
                // A name has one content, whenever it comes.
                let text = if *content == 3 { "broken".to_owned() } else { site(&format!("s{content}")) };
                let name = format!("{name}-{content}");
                if !supply.wanted.iter().any(|known| known.name == name) {
                    supply.wanted.push(Document::of(provider, &name, text));
                }
            }
            load(&folder, supplies)
        };
        let mut sorted = all.clone();
        sorted.sort_unstable();
        let (one, two) = (of(&all), of(&sorted));
        prop_assert!(config::diff::of(&one.config, &two.config).is_empty());
        prop_assert_eq!(one.report().lines(), two.report().lines());
    }
}
