//! Documents of what was discovered: routes, services and middlewares that nobody has written as text, but that stand in
//! containers' labels, a catalog's tags or a cluster's objects.
//!
//! ```text
//!   object ─► sections ╮
//!   object ─► sections ├─ Composed ─► one document for each name, sorted: the same things give the same text
//!   object ─► a fault  ╯
//! ```
//!
//! A document is named after the thing that it is about (`service/shop`, `ingress/default/shop`), and diagnostics call it by
//! that: `docker:service/shop`. Where a line was made of something that has a name of its own, say a label, it carries that
//! along, and a fault in the line names it. What can't be made sections of is a fault of that object alone. Nothing here
//! knows where things were discovered, and nothing is validated: that is for the configuration, which these are part of.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest;
use toml::{Table, Value};

use super::Document;
use crate::config::{
    SAID_BY,
    inline::{bare, line_of},
};

/// What Weir's names have at most.
const LONGEST_NAME: usize = 64;

/// All that was discovered at a source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Composed {
    /// By the documents' names.
    objects: BTreeMap<String, Object>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Object {
    sections: Vec<Section>,
    /// What is wrong with it, as ends of sentences that begin with its name.
    faults: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Middleware,
    Service,
    Route,
}

/// A section of configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    pub kind: Kind,
    pub name: String,
    /// What it was made of, where the document's name doesn't say so.
    by: Option<String>,
    /// By dotted keys, as they are written.
    keys: BTreeMap<String, Key>,
}

#[derive(Debug, Clone, PartialEq)]
struct Key {
    value: Value,
    by: Option<String>,
}

/// A server that was discovered. What isn't said is as the language has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// `ADDRESS:PORT`, `[ADDRESS]:PORT` or `NAME:PORT`.
    pub address: String,
    pub weight: Option<u32>,
    pub zone: Option<String>,
    pub tier: Option<u32>,
}

// === impl Composed ===

impl Composed {
    /// Adds a section to the document of this name.
    pub fn add(&mut self, document: &str, section: Section) {
        self.object(document).sections.push(section);
    }

    /// Notes that something of this object is left out, and why: the end of a sentence that begins with its name, for
    /// instance ``label `weir.route.shop.hots`: …``. Its sections stay.
    pub fn fault(&mut self, document: &str, why: impl Into<String>) {
        self.object(document).faults.insert(why.into());
    }

    /// Names from elsewhere may hold anything, and are shown on terminals.
    fn object(&mut self, document: &str) -> &mut Object {
        let name: String = document.chars().filter(|letter| !letter.is_control()).collect();
        self.objects.entry(name).or_default()
    }

    /// As a provider gives them, in the order of their names. There is always one: that there is nothing now is to be
    /// believed, unlike a source without any document.
    #[must_use]
    pub fn documents(&self, provider: &str) -> Vec<Document> {
        let mut documents = Vec::new();
        for (name, object) in &self.objects {
            if !object.sections.is_empty() {
                documents.push(Document::of(provider, name, object.text()));
            }
            if !object.faults.is_empty() {
                let faults: Vec<_> = object.faults.iter().map(String::as_str).collect();
                // Beside what is sound of it, which is a document of that name.
                let beside = if object.sections.is_empty() { "" } else { " (left out)" };
                documents.push(Document {
                    name: format!("{name}{beside}"),
                    text: Err(faults.join("; ")),
                    ..Document::of(provider, name, "")
                });
            }
        }
        if documents.is_empty() {
            documents.push(Document::of(provider, "nothing", "# Nothing is there for Weir just now.\n"));
        }
        documents
    }
}

// === impl Object ===

impl Object {
    fn text(&self) -> String {
        let mut sections: Vec<_> = self.sections.iter().collect();
        // Routes keep their order, which counts where nothing else tells them apart.
        sections.sort_by(|one, other| one.place().cmp(&other.place()));
        sections.into_iter().map(Section::text).collect::<Vec<_>>().join("\n")
    }
}

// === impl Section ===

impl Section {
    #[must_use]
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), by: None, keys: BTreeMap::new() }
    }

    /// A service with these servers. With none, its visitors get its page.
    #[must_use]
    pub fn service(name: impl Into<String>, servers: impl IntoIterator<Item = Server>) -> Self {
        // Of two with an address the first counts, or the service would be faulty.
        let mut by_address = BTreeMap::new();
        for server in servers {
            by_address.entry(server.address.clone()).or_insert(server);
        }
        let servers: Vec<_> = by_address.into_values().map(Server::written).collect();
        Self::new(Kind::Service, name).with("servers", servers)
    }

    /// A route to a service.
    #[must_use]
    pub fn route(name: impl Into<String>, service: &str) -> Self {
        Self::new(Kind::Route, name).with("service", service)
    }

    /// What the section as a whole was made of, for diagnostics: `container shop-1`.
    #[must_use]
    pub fn made_of(mut self, what: impl Into<String>) -> Self {
        self.by = Some(what.into());
        self
    }

    /// Sets a key of the configuration language; below a table's it is written with dots: `health.path`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.keys.insert(key.to_owned(), Key { value: value.into(), by: None });
    }

    /// Likewise, and says what the value was made of: ``label `weir.route.shop.host` of container shop-1``.
    pub fn set_by(&mut self, key: &str, value: impl Into<Value>, by: impl Into<String>) {
        self.keys.insert(key.to_owned(), Key { value: value.into(), by: Some(by.into()) });
    }

    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).map(|key| &key.value)
    }

    /// Sections of one kind by name; routes as they came.
    fn place(&self) -> (Kind, Option<&str>) {
        (self.kind, (self.kind != Kind::Route).then_some(self.name.as_str()))
    }

    fn text(&self) -> String {
        let header = match self.kind {
            Kind::Middleware => format!("[middleware.{}]", bare(&self.name)),
            Kind::Service => format!("[service.{}]", bare(&self.name)),
            Kind::Route => "[[route]]".to_owned(),
        };
        let mut text = line(&header, self.by.as_deref());
        if self.kind == Kind::Route {
            let name = format!("name = {}", line_of(&self.name.as_str().into()));
            text.push_str(&line(&name, self.by.as_deref()));
        }
        for (key, Key { value, by }) in &self.keys {
            let by = by.as_deref().or(self.by.as_deref());
            text.push_str(&line(&format!("{key} = {}", line_of(value)), by));
        }
        text
    }
}

/// TOML takes no control characters in comments.
fn line(text: &str, by: Option<&str>) -> String {
    let Some(by) = by else { return format!("{text}\n") };
    let by: String = by.replace(SAID_BY, " ").chars().filter(|letter| !letter.is_control()).collect();
    format!("{text}{SAID_BY}{by}\n")
}

// === impl Server ===

impl Server {
    #[must_use]
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: address.into(), ..Self::default() }
    }

    fn written(self) -> Value {
        let Self { address, weight, zone, tier } = self;
        if (weight, &zone, tier) == (None, &None, None) {
            return address.into();
        }
        let mut table = Table::new();
        table.insert("address".to_owned(), address.into());
        table.extend(weight.map(|weight| ("weight".to_owned(), i64::from(weight).into())));
        table.extend(zone.map(|zone| ("zone".to_owned(), zone.into())));
        table.extend(tier.map(|tier| ("tier".to_owned(), i64::from(tier).into())));
        table.into()
    }
}

/// A key of several parts, with dots between them and quotes where TOML wants them.
#[must_use]
pub fn dotted<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    parts.into_iter().map(bare).collect::<Vec<_>>().join(".")
}

/// A name that Weir takes, of the names of a thing elsewhere: of its namespace and itself, say. As it is where it may stay
/// so; otherwise it ends with a digest, so that two different things never get the same name.
#[must_use]
pub fn safe_name(parts: &[&str]) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let sound = |part: &&str| {
        !part.is_empty() && part.chars().all(|letter| plain(letter) || (letter == '_' && parts.len() == 1))
    };
    let joined = parts.join("_");
    if !parts.is_empty() && parts.iter().all(sound) && joined.len() <= LONGEST_NAME {
        return joined;
    }
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        // Lengths go first, so that nothing can move from one part into the next.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let digest: String = context.finish().as_ref()[..5].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut name: String = joined
        .chars()
        .map(|letter| if plain(letter) || letter == '_' { letter } else { '-' })
        .take(LONGEST_NAME - 1 - digest.len())
        .collect();
    if name.is_empty() {
        name.push('x');
    }
    format!("{name}-{digest}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{
        self, Loaded,
        documents::{Supplies, Supply},
    };

    const OWN: &str =
        "[entrypoint.web]\nbind = '127.0.0.1:80'\n[provider.d]\nkind = 'directory'\npath = '/none'\n";

    fn load(composed: &Composed) -> Loaded {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("weir.toml");
        fs::write(&own, OWN).unwrap();
        let supply = Supply { wanted: composed.documents("d"), ..Supply::default() };
        config::load_with(&own, &Supplies::from([("d".into(), supply)])).unwrap()
    }

    fn shop() -> Composed {
        let mut all = Composed::default();
        let servers = ["10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80"].map(Server::at);
        let mut service = Section::service("shop", servers);
        service.set_by("health.path", "/up", "label `h` of container shop-1");
        all.add("service/shop", service);
        let route = Section::route("shop", "shop").with("host", vec!["a.example", "b.example"]);
        all.add("route/shop", route.made_of("container \"shop-1\"\n#: x"));
        all
    }

    #[test]
    fn the_same_things_give_the_same_documents_whatever_order_they_came_in() {
        let documents = shop().documents("d");
        let texts: Vec<_> = documents.iter().map(|one| (&*one.name, one.text.as_deref().unwrap())).collect();
        assert_eq!(
            texts,
            [
                (
                    "route/shop",
                    "[[route]]  #: container \"shop-1\"#: x\nname = \"shop\"  #: container \"shop-1\"#: x\n\
                     host = [\"a.example\", \"b.example\"]  #: container \"shop-1\"#: x\n\
                     service = \"shop\"  #: container \"shop-1\"#: x\n"
                ),
                (
                    "service/shop",
                    "[service.shop]\nhealth.path = \"/up\"  #: label `h` of container shop-1\n\
                     servers = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n"
                ),
            ]
        );
        let loaded = load(&shop());
        assert!(loaded.taken.faults.is_empty(), "{:?}", loaded.taken.faults);
        assert_eq!(loaded.config.services[0].servers.len(), 2);
    }

    #[test]
    fn a_fault_names_what_the_line_was_made_of_and_the_others_stay() {
        let mut all = shop();
        let mut bad = Section::route("bad", "shop");
        bad.set_by("host", "http://c.example", "label `weir.route.bad.host` of container c");
        all.add("route/bad", bad);
        let loaded = load(&all);
        let why = loaded.taken.faults[0].why();
        assert!(why.starts_with("error[") && why.contains(": d:route/bad:3:8: "), "{why}");
        assert!(why.ends_with("(label `weir.route.bad.host` of container c)"), "{why}");
        assert_eq!((loaded.taken.faults.len(), loaded.config.services.len()), (1, 1));
    }

    #[test]
    fn what_is_left_out_of_an_object_is_told_beside_what_stays_of_it() {
        let mut all = Composed::default();
        all.add("container/a", Section::service("a", [Server::at("10.0.0.1:80")]));
        all.fault("container/a", "label `weir.x`: nobody knows it");
        all.fault("container/b", "label `weir.y`: nobody knows it");
        let loaded = load(&all);
        let told: Vec<_> =
            loaded.taken.faults.iter().map(crate::config::documents::DocumentFault::why).collect();
        assert_eq!(
            told,
            [
                "error[W001]: d:container/a: label `weir.x`: nobody knows it",
                "error[W001]: d:container/b: label `weir.y`: nobody knows it",
            ]
        );
        assert_eq!(loaded.config.services.len(), 1);
    }

    #[test]
    fn a_service_may_have_no_server_just_now_and_nothing_at_all_is_a_document() {
        let mut all = Composed::default();
        all.add("service/a", Section::service("a", []));
        let loaded = load(&all);
        assert!(loaded.taken.faults.is_empty() && loaded.config.services[0].servers.is_empty());
        let nothing = Composed::default().documents("d");
        assert_eq!(nothing.len(), 1);
        assert!(load(&Composed::default()).config.services.is_empty());
    }

    #[test]
    fn a_server_says_no_more_than_is_known_of_it() {
        let server = Server { weight: Some(3), zone: Some("b".into()), ..Server::at("10.0.0.1:80") };
        assert_eq!(line_of(&server.written()), "{ address = \"10.0.0.1:80\", weight = 3, zone = \"b\" }");
    }

    #[test]
    fn names_are_safe_and_never_those_of_another_thing() {
        assert_eq!(safe_name(&["shop_v1-x"]), "shop_v1-x");
        assert_eq!(safe_name(&["default", "shop"]), "default_shop");
        let odd: [&[&str]; 8] = [
            &["shop.v1"],
            &["shop-v1", ""],
            &["a_b", "c"],
            &["a", "b_c"],
            &[],
            &["§"],
            &[&"x".repeat(65)],
            &[&"x".repeat(66)],
        ];
        let names: BTreeSet<_> = odd.iter().map(|parts| safe_name(parts)).collect();
        assert_eq!(names.len(), odd.len(), "{names:?}");
        for name in names {
            assert!(
                name.len() <= LONGEST_NAME
                    && !name.contains(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c)),
                "{name}"
            );
        }
        assert!(safe_name(&["shop.v1"]).starts_with("shop-v1-"));
    }
}
