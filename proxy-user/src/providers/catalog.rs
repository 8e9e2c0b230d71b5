//! `kind = "consul-catalog"`: services whose tags say what they serve, waited on.
//!
//! ```text
//!   which services there are ╮ one of the two     list ─► services with tags of ours ─► their instances ─► documents
//!   how their checks are     ╯ has changed ─────►
//! ```
//!
//! Consul has no one thing to wait for: the list of services doesn't change when a check does. So two queries wait, for each
//! datacenter, and what is there is read anew when one of them comes back. While a datacenter doesn't answer, what it said
//! last counts on; before each has answered once nothing is given, so that what ran before isn't cut by half.

mod instance;

use std::{collections::BTreeMap, sync::Arc};

use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use super::{
    Has, Provider, Teller, Watch, backoff,
    consul::query::{BREATH, LONGEST, Query},
    labels::discovered::{Thing, discovered},
};
use crate::config::{documents::Document, model::ConsulCatalog};
use instance::Instance;

const SERVICES: &str = "/v1/catalog/services";
const CHECKS: &str = "/v1/health/state/any";

pub struct Services {
    pub provider: Arc<str>,
    pub source: ConsulCatalog,
}

/// What a datacenter says.
type News = (usize, Result<Option<Vec<Thing>>, String>);

impl Provider for Services {
    fn watch(self: Box<Self>, teller: Teller) -> Watch {
        Box::pin(async move {
            let source = Arc::new(self.source);
            let (say, mut heard) = mpsc::channel(8);
            // They end when this is dropped.
            let mut followers = JoinSet::new();
            let many = source.datacenters.len();
            for nth in 0..many.max(1) {
                let datacenter = source.datacenters.get(nth).cloned();
                followers.spawn(follow(source.clone(), nth, datacenter, say.clone()));
            }
            let mut gathered = Gathered::new(many.max(1));
            while let Some(news) = heard.recv().await {
                gathered.take(&self.provider, &source, &teller, news).await;
            }
        })
    }
}

/// What all datacenters have said.
struct Gathered {
    things: Vec<Option<Vec<Thing>>>,
    away: BTreeMap<usize, String>,
    documents: Option<Vec<Document>>,
}

impl Gathered {
    fn new(many: usize) -> Self {
        Self { things: vec![None; many], away: BTreeMap::new(), documents: None }
    }

    async fn take(&mut self, provider: &str, source: &ConsulCatalog, teller: &Teller, (nth, said): News) {
        match said {
            Ok(things) => {
                self.away.remove(&nth);
                if let Some(things) = things {
                    self.things[nth] = Some(things);
                }
            }
            Err(why) => {
                let of = source.datacenters.get(nth).map(|name| format!("datacenter `{name}`: "));
                self.away.insert(nth, format!("{}: {}{why}", source.address, of.unwrap_or_default()));
            }
        }
        if let Some(all) = self.things.iter().cloned().collect::<Option<Vec<_>>>() {
            let things: Vec<Thing> = all.into_iter().flatten().collect();
            let documents = discovered(&things, source.exposed_by_default, &[]).documents(provider);
            if self.documents.as_ref() != Some(&documents) {
                self.documents = Some(documents.clone());
                teller.has(Has { documents, revision: None, whole: false }).await;
            } else if self.away.is_empty() {
                teller.same().await;
            }
        }
        if !self.away.is_empty() {
            teller.away(self.away.values().cloned().collect::<Vec<_>>().join("; ")).await;
        }
    }
}

/// Tells of a datacenter for as long as somebody listens.
async fn follow(source: Arc<ConsulCatalog>, nth: usize, datacenter: Option<String>, say: mpsc::Sender<News>) {
    let ConsulCatalog { address, token, authorities, .. } = &*source;
    let place = Place {
        query: Query { address, token: token.as_ref(), authorities },
        datacenter: datacenter.as_deref(),
        several: source.datacenters.len() > 1,
    };
    let mut failures = 0;
    loop {
        let outcome = async {
            let (indexes, things) = place.look().await?;
            failures = 0;
            if say.send((nth, Ok(Some(things)))).await.is_err() {
                return Ok(());
            }
            place.wait(indexes, nth, &say).await
        };
        match outcome.await {
            Ok(()) => sleep(BREATH).await,
            Err(why) => {
                failures += 1;
                if say.send((nth, Err(why))).await.is_err() {
                    return;
                }
                sleep(backoff::wait(failures, LONGEST, fastrand::f64())).await;
            }
        }
    }
}

/// A datacenter, as one asks it.
struct Place<'a> {
    query: Query<'a>,
    datacenter: Option<&'a str>,
    /// Beside others: then it is its servers' zone.
    several: bool,
}

impl Place<'_> {
    /// What is there; and the indexes of both lists, from before that.
    async fn look(&self) -> Result<([u64; 2], Vec<Thing>), String> {
        let (services, list) = self.query.ask(SERVICES, self.datacenter, 0).await?;
        let (checks, _) = self.query.ask(CHECKS, self.datacenter, 0).await?;
        let mut things = Vec::new();
        for name in instance::names(&list.unwrap_or_default())? {
            let path = format!("/v1/health/service/{}", instance::encoded(&name));
            let (_, body) = self.query.ask(&path, self.datacenter, 0).await?;
            let instances: Vec<Instance> = serde_json::from_slice(&body.unwrap_or_default())
                .map_err(|error| format!("what it says of service `{name}` makes no sense: {error}"))?;
            things.extend(instances.into_iter().filter_map(|one| one.thing(self.several)));
        }
        Ok(([services, checks], things))
    }

    /// Until one of the lists has changed.
    async fn wait(
        &self,
        [services, checks]: [u64; 2],
        nth: usize,
        say: &mpsc::Sender<News>,
    ) -> Result<(), String> {
        let until_other = async |path: &str, index: u64| {
            // Waiting for nothing is no waiting.
            let index = index.max(1);
            while self.query.ask(path, self.datacenter, index).await?.0 == index {
                // Its time is over, and nothing has changed.
                let _ = say.send((nth, Ok(None))).await;
            }
            Ok(())
        };
        tokio::select! {
            done = until_other(SERVICES, services) => done,
            done = until_other(CHECKS, checks) => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::Notify,
        time::timeout,
    };

    use super::*;
    use crate::{
        config::model::Secret,
        providers::{Said, Word},
        tls::certificates::ServerAuthorities,
    };

    /// As Consul's documentation shows the answers of its API, shortened.
    const LIST: &str = r#"{"consul":[],"db":["primary"],"shop":["v2","weir.route.shop.host=shop.example"]}"#;

    fn instance(id: &str, checks: &[&str], more: &str) -> String {
        let checks: Vec<_> = checks
            .iter()
            .map(|status| format!(r#"{{"CheckID":"c","Status":"{status}","ServiceID":"{id}"}}"#))
            .collect();
        format!(
            r#"{{"Node":{{"ID":"4","Node":"node-1","Address":"10.1.0.1","Datacenter":"dc1","TaggedAddresses":null}},
                "Service":{{"ID":"{id}","Service":"shop","Tags":["v2","weir.route.shop.host=shop.example"],"Port":80,
                "Address":"","Meta":null,"Weights":{{"Passing":1,"Warning":1}},"CreateIndex":7{more}}},
                "Checks":[{}]}}"#,
            checks.join(",")
        )
    }

    /// A Consul: what it says, and who waits for it to change.
    struct Fake {
        state: Mutex<State>,
        changed: Notify,
        asked: Mutex<Vec<String>>,
    }

    #[derive(Clone)]
    struct State {
        /// Of the list of services, and of the checks.
        indexes: [u64; 2],
        list: &'static str,
        shop: Vec<String>,
        refuses: bool,
    }

    impl Fake {
        fn change(&self, change: impl FnOnce(&mut State)) {
            change(&mut self.state.lock().unwrap());
            self.changed.notify_waiters();
        }

        async fn answer(self: Arc<Self>, mut stream: TcpStream) {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let head = String::from_utf8_lossy(&request[..length]).into_owned();
            let target = head.split(' ').nth(1).unwrap().to_owned();
            self.asked.lock().unwrap().push(head);
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let known = query.split('&').find_map(|pair| pair.strip_prefix("index=")?.parse::<u64>().ok());
            let which = usize::from(path != SERVICES);
            loop {
                let changed = self.changed.notified();
                let state = self.state.lock().unwrap().clone();
                if state.refuses {
                    stream.write_all(b"HTTP/1.1 500 No leader\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                    return;
                }
                if known == Some(state.indexes[which]) {
                    changed.await;
                    continue;
                }
                let body = match path {
                    SERVICES => state.list.to_owned(),
                    CHECKS => "[]".to_owned(),
                    "/v1/health/service/shop" => format!("[{}]", state.shop.join(",")),
                    other => panic!("nobody should ask for {other}"),
                };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nX-Consul-Index: {}\r\nContent-Length: {}\r\n\r\n{body}",
                    state.indexes[which],
                    body.len()
                );
                // Who doesn't wait any more has hung up.
                let _ = stream.write_all(answer.as_bytes()).await;
                return;
            }
        }
    }

    async fn word(heard: &mut mpsc::Receiver<Said>) -> Word {
        loop {
            match timeout(Duration::from_secs(20), heard.recv()).await.unwrap().unwrap().word {
                Word::Same => {}
                other => return other,
            }
        }
    }

    /// The text of the service's document.
    fn service(word: &Word) -> String {
        let Word::Has(has) = word else { panic!("{word:?}") };
        let text =
            has.documents.iter().find(|one| one.name == "service/shop").unwrap().text.as_ref().unwrap();
        let line = text.lines().find(|line| line.starts_with("servers")).unwrap();
        line.split("  #: ").next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn instances_serve_while_their_checks_pass_and_changes_are_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let state = State {
            indexes: [40, 50],
            list: LIST,
            shop: vec![
                instance("shop-1", &["passing", "passing"], ""),
                instance("shop-2", &["passing", "critical"], ""),
                instance("shop-1-sidecar-proxy", &["passing"], r#","Kind":"connect-proxy""#),
            ],
            refuses: false,
        };
        let fake =
            Arc::new(Fake { state: Mutex::new(state), changed: Notify::new(), asked: Mutex::default() });
        let serving = fake.clone();
        let serve = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serving.clone().answer(stream));
            }
        });
        let (say, mut heard) = mpsc::channel::<Said>(8);
        let provider = Arc::<str>::from("services");
        let source = ConsulCatalog {
            address,
            datacenters: vec!["dc1".into()],
            exposed_by_default: true,
            token: Some(Secret(b"s3cret"[..].into())),
            authorities: ServerAuthorities::System,
        };
        let watch = Box::new(Services { provider: provider.clone(), source }).watch(Teller {
            provider,
            number: 1,
            say,
        });
        let watch = tokio::spawn(watch);
        assert_eq!(service(&word(&mut heard).await), "servers = [\"10.1.0.1:80\"]");
        // One without any check is as well as one can tell.
        let other = instance("shop-3", &[], "").replace(r#""Port":80"#, r#""Port":8080"#);
        fake.change(|state| {
            state.shop = vec![instance("shop-1", &["critical"], ""), other];
            state.indexes[1] = 51;
        });
        assert_eq!(service(&word(&mut heard).await), "servers = [\"10.1.0.1:8080\"]");
        // None is well: the service stays, for its page.
        fake.change(|state| {
            state.shop = vec![instance("shop-1", &["warning"], "")];
            state.indexes[1] = 52;
        });
        assert_eq!(service(&word(&mut heard).await), "servers = []");
        fake.change(|state| {
            state.list = r#"{"consul":[],"db":["primary"]}"#;
            state.indexes[0] = 41;
        });
        let Word::Has(has) = word(&mut heard).await else { panic!("it has nothing, and says so") };
        assert_eq!((has.documents.len(), &*has.documents[0].name), (1, "nothing"));
        // A restored store, whose index is lower; and a token that may read nothing.
        fake.change(|state| {
            state.list = "{}";
            state.indexes = [3, 4];
        });
        let Word::Away(why) = word(&mut heard).await else { panic!("an empty catalog isn't believed") };
        assert!(why.contains("datacenter `dc1`: it names no service at all"), "{why}");
        fake.change(|state| state.refuses = true);
        let Word::Away(why) = word(&mut heard).await else { panic!("it is away") };
        assert!(why.contains("the server answered 500"), "{why}");
        fake.change(|state| {
            (state.refuses, state.list) = (false, LIST);
            state.shop = vec![instance("shop-1", &["passing"], "")];
        });
        assert_eq!(service(&word(&mut heard).await), "servers = [\"10.1.0.1:80\"]");
        let asked = fake.asked.lock().unwrap();
        assert!(asked.iter().all(|head| head.contains("dc=dc1") && head.contains("x-consul-token: s3cret")));
        assert!(asked.iter().any(|head| head.contains("index=50&wait=60s")), "{asked:?}");
        watch.abort();
        serve.abort();
    }
}
