//! Configuration from elsewhere: a folder, a URL, a Consul. What their documents say is seen in where a redirect leads.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;
use weir_lab::{
    lab::{
        Island,
        provided::Edge,
        raw::{Raw, serve},
        stand::PATIENCE,
        wait,
        weir::ADMIN,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const REMOTE: &str = "127.0.0.1:7001";
const CONSUL: &str = "127.0.0.1:7002";

/// A site that sends its visitors on to `to`.
fn site(name: &str, to: &str) -> String {
    format!("[[route]]\nhost = '{name}.example'\nmiddleware = [{{ redirect = {{ host = '{to}' }} }}]\n")
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
