//! Configuration from elsewhere: a folder, a URL, a Consul. What their documents say is seen in where a redirect leads.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use weir_lab::{
    lab::{
        Island,
        client::Browser,
        process::Process,
        raw::{Raw, serve},
        stand::PATIENCE,
        wait,
        weir::{ADMIN, Ran, finish, program},
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const WEB: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);
const REMOTE: &str = "127.0.0.1:7001";
const CONSUL: &str = "127.0.0.1:7002";

/// A daemon on the loopback of an island, where its sources are too.
struct Edge {
    process: Process,
    island: Arc<Island>,
}

/// A site that sends its visitors on to `to`.
fn site(name: &str, to: &str) -> String {
    format!("[[route]]\nhost = '{name}.example'\nmiddleware = [{{ redirect = {{ host = '{to}' }} }}]\n")
}

fn config(island: &Island) -> PathBuf {
    island.folder().join("weir.toml")
}

impl Edge {
    fn start(island: Arc<Island>, providers: &str) -> anyhow::Result<Self> {
        let folder = island.folder().display();
        fs::write(
            config(&island),
            format!(
                "[kernel]\nmode = 'off'\n[admin]\nbind = '{ADMIN}'\n[log]\naccess = 'off'\n[state]\ndir = '{folder}/state'\n\
                 [entrypoint.http]\nbind = '{WEB}'\n{providers}"
            ),
        )?;
        let mut command = island.namespace.command(program()?)?;
        command.arg("run").arg(config(&island)).env("NO_COLOR", "1");
        let process = Process::start("weir", command, &island.folder().join("weir.log"))?;
        let edge = Self { process, island };
        let admin = edge.browser(ADMIN)?;
        wait::until_true("the daemon is up", PATIENCE, || Ok(admin.get("/ping").is_ok()))
            .with_context(|| edge.process.log_text())?;
        Ok(edge)
    }

    fn browser(&self, at: SocketAddr) -> anyhow::Result<Browser> {
        Browser::plain(&self.island.namespace, at)
    }

    /// Where the site sends its visitors; nothing, if there is no such site.
    fn leads(&self, name: &str) -> anyhow::Result<Option<String>> {
        let reply = self.browser(WEB)?.with_host(&format!("{name}.example")).get("/")?;
        let to = reply.header("location").and_then(|to| to.strip_prefix("http://"));
        Ok(to.map(|to| to.trim_end_matches('/').to_owned()))
    }

    fn until_leads(&self, name: &str, to: &str) -> Done {
        wait::until_true(&format!("{name} leads to {to}"), PATIENCE, || {
            Ok(self.leads(name)?.as_deref() == Some(to))
        })
        .with_context(|| self.process.log_text())
    }

    fn provider(&self, name: &str) -> anyhow::Result<Value> {
        let status = self.browser(ADMIN)?.get("/api/v1/status")?.json()?;
        let all = status["providers"].as_array().context("no providers")?;
        Ok(all.iter().find(|one| one["name"] == name).cloned().unwrap_or_default())
    }

    fn metric(&self, line: &str) -> anyhow::Result<bool> {
        Ok(self.browser(ADMIN)?.get("/metrics")?.text().lines().any(|known| known == line))
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<Ran> {
        let mut command = self.island.namespace.command(program()?)?;
        command.args(arguments).env("NO_COLOR", "1").env("WEIR_ADMIN", ADMIN.to_string());
        finish(command)
    }

    fn check(&self, flags: &[&str]) -> anyhow::Result<Ran> {
        let config = config(&self.island).display().to_string();
        self.run(&[&["check", &config], flags].concat())
    }

    /// SIGTERM, and a new one with the same state.
    fn restart(mut self, providers: &str) -> anyhow::Result<Self> {
        self.process.signal(nix::sys::signal::Signal::SIGTERM)?;
        self.process.wait(PATIENCE)?;
        Self::start(self.island.clone(), providers)
    }
}

fn folder_of(island: &Island, every: &str) -> String {
    let sites = island.folder().join("sites");
    format!("[provider.folder]\nkind = 'directory'\npath = '{}'\nevery = '{every}'\n", sites.display())
}

fn write(folder: &Path, name: &str, text: &str) -> Done {
    fs::create_dir_all(folder.join(name).parent().context("no folder")?)?;
    Ok(fs::write(folder.join(name), text)?)
}

/// Points the link elsewhere in one step.
fn swap(link: &Path, to: &str) -> Done {
    let next = link.with_extension("next");
    symlink(to, &next)?;
    Ok(fs::rename(next, link)?)
}

#[test]
fn a_folder_is_followed_through_a_swapped_link_and_where_no_event_tells() -> Done {
    needs!(Need::Root, Need::Weir);
    let island = Arc::new(Island::build()?);
    let (folder, sites) = (island.folder().to_owned(), island.folder().join("sites"));
    write(&folder, "v1/a.toml", &site("a", "one"))?;
    write(&folder, "v1/more/b.toml", &site("b", "one"))?;
    write(&folder, "v2/a.toml", &site("a", "two"))?;
    symlink("v1", &sites)?;
    // Read again without an event only when nobody waits for it any more.
    let edge = Edge::start(island.clone(), &folder_of(&island, "1h"))?;
    assert_eq!(edge.leads("a")?.as_deref(), Some("one"), "documents are there when the daemon is");
    assert_eq!(edge.leads("b")?.as_deref(), Some("one"));
    swap(&sites, "v2")?;
    edge.until_leads("a", "two")?;
    wait::until_true("what is gone is gone", PATIENCE, || Ok(edge.leads("b")?.is_none()))?;
    write(&folder, "v2/c.toml", &site("c", "two"))?;
    edge.until_leads("c", "two")?;

    // The same length and the same times: only the content tells.
    let edge = edge.restart(&folder_of(&island, "1s"))?;
    let file = fs::File::options().write(true).open(folder.join("v2/a.toml"))?;
    let modified = file.metadata()?.modified()?;
    write(&folder, "v2/a.toml", &site("a", "six"))?;
    file.set_modified(modified)?;
    edge.until_leads("a", "six")?;

    // An empty folder is one that isn't mounted.
    fs::create_dir(folder.join("v3"))?;
    swap(&sites, "v3")?;
    wait::until_true("the provider is away", PATIENCE, || Ok(edge.provider("folder")?["state"] == "away"))?;
    assert_eq!(edge.leads("a")?.as_deref(), Some("six"));
    assert!(edge.metric("weir_provider_up{provider=\"folder\",kind=\"directory\"} 0")?);
    Ok(())
}

#[test]
fn a_faulty_document_keeps_its_last_good_version_and_a_second_definition_is_left_out_and_told() -> Done {
    needs!(Need::Root, Need::Weir);
    let island = Arc::new(Island::build()?);
    let sites = island.folder().join("sites");
    write(&sites, "a.toml", &site("a", "one"))?;
    write(&sites, "b.toml", &site("b", "one"))?;
    let edge = Edge::start(island.clone(), &folder_of(&island, "1h"))?;
    edge.until_leads("a", "one")?;
    let checked = edge.check(&[])?;
    assert_eq!(checked.code, 0, "{checked:?}");
    assert!(checked.stdout.contains("with 2 documents of 1 provider"), "{checked:?}");

    write(&sites, "b.toml", "[[route]]\nhots = 'b.example'\n")?;
    write(&sites, "d.toml", "[page.p]\nhtml = 'missing.html'\n")?;
    write(&sites, "a.toml", &format!("{}[page.maintenance]\nretry_after = '1m'\n", site("a", "two")))?;
    write(&sites, "e.toml", "[page.maintenance]\nretry_after = '2m'\n")?;
    edge.until_leads("a", "two")?;
    wait::until_true("two documents are faulty", PATIENCE, || {
        Ok(edge.provider("folder")?["faults"].as_array().is_some_and(|faults| faults.len() == 2))
    })?;
    assert_eq!(edge.leads("b")?.as_deref(), Some("one"), "its last good version");
    let provider = edge.provider("folder")?;
    assert_eq!(
        (&provider["faults"][0]["name"], &provider["faults"][0]["instead"]),
        (&json!("b.toml"), &json!("last_good"))
    );
    assert_eq!(
        (&provider["faults"][1]["name"], &provider["faults"][1]["instead"]),
        (&json!("d.toml"), &json!("nothing"))
    );
    assert_eq!((&provider["state"], &provider["documents"]), (&json!("fresh"), &json!(3)));
    let conflict = provider["conflicts"][0].to_string();
    assert!(conflict.contains("e.toml:1:7: page `maintenance` is left out"), "{conflict}");
    for line in [
        "weir_provider_faults{provider=\"folder\"} 2",
        "weir_provider_conflicts{provider=\"folder\"} 1",
        "weir_provider_documents{provider=\"folder\"} 3",
    ] {
        assert!(edge.metric(line)?, "{line}");
    }
    let place = sites.join("b.toml").display().to_string() + ":2:1";
    let status = edge.run(&["status"])?;
    assert!(status.stdout.contains(&place), "{status:?}");
    let events = edge.browser(ADMIN)?.get("/api/v1/events")?.text();
    assert!(events.contains("document_faulty") && events.contains("document_conflict"), "{events}");
    assert!(edge.process.log_text().contains(&place));
    let checked = edge.check(&[])?;
    assert_eq!(checked.code, 2, "{checked:?}");
    assert!(
        checked.stderr.contains("hots") && checked.stderr.contains("its last good version stays"),
        "{checked:?}"
    );
    assert_eq!(edge.check(&["--offline"])?.code, 0, "what runs is sound");

    write(&sites, "b.toml", &site("b", "two"))?;
    fs::remove_file(sites.join("d.toml"))?;
    fs::remove_file(sites.join("e.toml"))?;
    edge.until_leads("b", "two")?;
    wait::until_true("nothing is wrong any more", PATIENCE, || {
        let provider = edge.provider("folder")?;
        Ok(provider["faults"] == json!([]) && provider["conflicts"] == json!([]))
    })
}

/// An HTTP source, and a Consul: what they say can be changed, and they can go away.
#[derive(Default)]
struct Sources {
    away: AtomicBool,
    remote: Mutex<String>,
    asked: Mutex<Vec<String>>,
    /// The index, and the text of the key `weir/c.toml`.
    consul: Mutex<(u64, String)>,
    more: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sources {
    fn open(island: &Island) -> anyhow::Result<Arc<Self>> {
        let sources = Arc::new(Self::default());
        let this = sources.clone();
        serve(&island.namespace, REMOTE, move |_, raw| this.answer(raw, Self::remote))?;
        let this = sources.clone();
        serve(&island.namespace, CONSUL, move |_, raw| this.answer(raw, Self::consul))?;
        Ok(sources)
    }

    fn answer(&self, mut raw: Raw, say: fn(&Self, &str) -> String) -> Done {
        let head = raw.head()?;
        lock(&self.asked).push(head.clone());
        let answer = say(self, &head);
        if self.away.load(Ordering::SeqCst) { Ok(()) } else { raw.say(answer) }
    }

    fn remote(&self, head: &str) -> String {
        let text = lock(&self.remote).clone();
        let etag = format!("\"{}\"", text.len());
        if head.contains(&format!("if-none-match: {etag}")) {
            return format!("HTTP/1.1 304 Not Modified\r\nETag: {etag}\r\n\r\n");
        }
        let body = json!({ "documents": { "r.toml": text } }).to_string();
        format!("HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    /// As the documentation of its API has it: an answer to a query with the current index comes when there is a newer one.
    fn consul(&self, head: &str) -> String {
        let wanted = head.split("index=").nth(1).and_then(|rest| rest.split(['&', ' ']).next()?.parse().ok());
        let state = lock(&self.consul);
        let stale = |state: &mut (u64, String)| Some(state.0) == wanted && !self.away.load(Ordering::SeqCst);
        let state = self.more.wait_while(state, stale).unwrap_or_else(PoisonError::into_inner);
        let value = BASE64_STANDARD.encode(&state.1);
        let body =
            json!([{ "Key": "weir/c.toml", "Value": value, "ModifyIndex": state.0, "Flags": 0 }]).to_string();
        format!(
            "HTTP/1.1 200 OK\r\nX-Consul-Index: {}\r\nContent-Length: {}\r\n\r\n{body}",
            state.0,
            body.len()
        )
    }

    fn consul_says(&self, index: u64, text: &str) {
        *lock(&self.consul) = (index, text.to_owned());
        self.more.notify_all();
    }

    fn asked(&self, part: &str) -> bool {
        lock(&self.asked).iter().any(|head| head.contains(part))
    }
}

#[test]
fn a_url_and_a_consul_are_followed_and_what_they_gave_last_serves_while_they_are_away() -> Done {
    needs!(Need::Root, Need::Weir);
    let island = Arc::new(Island::build()?);
    fs::write(island.folder().join("token"), "remote-s3cret\n")?;
    let sources = Sources::open(&island)?;
    *lock(&sources.remote) = site("r", "one");
    sources.consul_says(40, &site("c", "one"));
    let providers = format!(
        "[provider.remote]\nkind = 'http'\nurl = 'http://{REMOTE}/edge.json'\nevery = '1s'\norder = 20\n\
         header_files = {{ X-Token = 'token' }}\n[provider.kv]\nkind = 'consul'\naddress = 'http://{CONSUL}'\n"
    );
    let edge = Edge::start(island.clone(), &providers)?;
    assert_eq!((edge.leads("r")?.as_deref(), edge.leads("c")?.as_deref()), (Some("one"), Some("one")));
    assert!(sources.asked("x-token: remote-s3cret"));
    wait::until_true("the entity tag spares the body", PATIENCE, || Ok(sources.asked("if-none-match: ")))?;
    wait::until_true("Consul is waited on", PATIENCE, || Ok(sources.asked("index=40&wait=60s")))?;

    *lock(&sources.remote) = site("r", "another");
    edge.until_leads("r", "another")?;
    let changed = SystemTime::now();
    sources.consul_says(41, &site("c", "two"));
    edge.until_leads("c", "two")?;
    let took = changed.elapsed()?;
    assert!(took.as_secs() < 5, "a blocking query is answered at once, not after {took:?}");
    // A store that was restored.
    sources.consul_says(7, &site("c", "old"));
    edge.until_leads("c", "old")?;
    sources.consul_says(8, &site("c", "new"));
    edge.until_leads("c", "new")?;

    sources.away.store(true, Ordering::SeqCst);
    sources.more.notify_all();
    for name in ["remote", "kv"] {
        wait::until_true("it is away", PATIENCE, || Ok(edge.provider(name)?["state"] == "away"))?;
    }
    let checked = edge.check(&["--offline"])?;
    assert!(checked.stdout.contains("with 2 documents of 2 providers"), "{checked:?}");
    let edge = edge.restart(&providers)?;
    assert_eq!((edge.leads("r")?.as_deref(), edge.leads("c")?.as_deref()), (Some("another"), Some("new")));
    assert!(edge.process.log_text().contains("provider `remote` is away"));
    let status = edge.run(&["status"])?;
    assert!(status.stdout.contains("provider `kv` (consul): 1 document at 8"), "{status:?}");
    assert!(status.stdout.contains("AWAY since"), "{status:?}");

    *lock(&sources.remote) = site("r", "again");
    sources.away.store(false, Ordering::SeqCst);
    edge.until_leads("r", "again")?;
    let events = edge.browser(ADMIN)?.get("/api/v1/events")?.text();
    assert!(events.contains("provider_away") && events.contains("provider_back"), "{events}");
    Ok(())
}
