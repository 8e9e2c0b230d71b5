//! What stands in the store, below its prefix. Pure.
//!
//! | key | what |
//! |---|---|
//! | `current` | which generation is for whom: [`Current`]. Changed by compare-and-swap alone |
//! | `generations/<20 digits>` | a whole set of documents: [`Generation`]. Written once, with the `current` that names it |
//! | `hosts/<name>` | what a host reports, under a lease: gone soon after the host is |
//! | `known/<name>` | what a host reported lately, to stay: who is missing |
//! | `shared/…` | what helps a client that comes to another host: [`crate::fleet::shared`] |
//! | `certificates/<name>` | a certificate with its key, sealed ([`crate::fleet::seal`]) |
//! | `certificates-kept` | that there ever was one |
//! | `acme/authorities/<directory>/…` | `account`, `certificates/<host>`, `failures/<host>`: what hosts order together, sealed |
//! | `acme/order` | the host that orders now, under its lease |
//! | `acme/challenges/…` | what the authority will ask for, sealed, under the same lease: `http/<token>`, `alpn/<host>` |
//! | `acme/heard/<name>` | that a host can answer: the revision that it knows, under the lease of the host that orders |
//!
//! Whoever reads may be a release older or newer than who wrote: keys that aren't known are left alone (and written back),
//! and what may be missing has a default.

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The layout that this weir writes. One that is newer may mean something else, and is refused.
pub const LAYOUT: u32 = 1;

/// The key of [`Current`].
pub const CURRENT: &str = "current";

/// Below it: all [`Generation`]s.
pub const GENERATIONS: &str = "generations/";

/// Below it: the [`Report`](crate::fleet::report::Report)s of hosts that are there.
pub const HOSTS: &str = "hosts/";

/// Below it: the last word of every host that ever was.
pub const KNOWN: &str = "known/";

/// Below it: what hosts tell each other.
pub const SHARED: &str = "shared/";

/// Below it: certificates from operators, sealed.
pub const CERTIFICATES: &str = "certificates/";

/// Stands there since an operator first put a certificate there: whoever finds none and this knows that they were removed, and whoever
/// finds neither that the store was made anew.
pub const CERTIFICATES_MARK: &str = "certificates-kept";

/// Below it: what hosts order together.
pub const ACME: &str = "acme/";

/// Below it: what is kept for each authority's directory.
pub const AUTHORITIES: &str = "acme/authorities/";

/// The host that orders now.
pub const ORDER: &str = "acme/order";

/// Below it: what the authority will ask for, by token and by host.
pub const CHALLENGES: &str = "acme/challenges/";
pub const CHALLENGES_HTTP: &str = "acme/challenges/http/";
pub const CHALLENGES_ALPN: &str = "acme/challenges/alpn/";

/// Below it: who can answer.
pub const HEARD: &str = "acme/heard/";

/// A request of etcd's may have 1.5 MiB; so many bytes of documents fit well within one, also where JSON escapes them.
pub const LARGEST: usize = 1 << 20;

/// Which generation is for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    pub layout: u32,
    /// For all hosts; or, while `canary` names some, for those.
    pub generation: u64,
    /// Of its documents.
    pub digest: String,
    /// What ran before, and what is gone back to; 0: nothing.
    pub previous: u64,
    /// The highest number that was ever given.
    pub latest: u64,
    /// The hosts that try it; the others stay at `previous`. Empty: it is for all.
    #[serde(default)]
    pub canary: Vec<String>,
    /// When this was decided, in milliseconds since 1970.
    pub at: i64,
    /// Until then, a host that can't run it takes it back for all.
    #[serde(default)]
    pub watch_until: i64,
    /// Unless it is confirmed by then, it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<i64>,
    /// The generation that was taken back, by whom and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<Halted>,
    /// Who pushed or rolled back.
    #[serde(default)]
    pub author: String,
    /// What a newer weir wrote.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A generation that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Halted {
    pub generation: u64,
    /// A host, or who waited for the push.
    pub by: String,
    pub why: String,
    /// In milliseconds since 1970.
    pub at: i64,
}

/// A whole set of documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    pub layout: u32,
    pub generation: u64,
    pub digest: String,
    /// What was current when it was made.
    #[serde(default)]
    pub base: u64,
    #[serde(default)]
    pub author: String,
    /// In milliseconds since 1970.
    #[serde(default)]
    pub at: i64,
    #[serde(default)]
    pub message: String,
    pub documents: Vec<Text>,
}

/// A document: a file's name and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Text {
    pub name: String,
    pub text: String,
}

/// The key of a generation: in the order of their numbers.
#[must_use]
pub fn generation_key(generation: u64) -> String {
    format!("{GENERATIONS}{generation:020}")
}

/// What documents are, in 64 digits: whoever reads them knows that they are those that were written.
#[must_use]
pub fn digest_of(documents: &[Text]) -> String {
    let mut sorted: Vec<&Text> = documents.iter().collect();
    sorted.sort();
    let mut sum = digest::Context::new(&digest::SHA256);
    for document in sorted {
        // With their lengths before them, no two sets of documents are the same bytes.
        for part in [&document.name, &document.text] {
            sum.update(&(part.len() as u64).to_be_bytes());
            sum.update(part.as_bytes());
        }
    }
    let hex: String = sum.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// How many bytes documents have.
#[must_use]
pub fn size_of(documents: &[Text]) -> usize {
    documents.iter().map(|document| document.name.len() + document.text.len()).sum()
}

// === impl Current ===

impl Current {
    /// # Errors
    /// A sentence, when it can't be believed.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(bytes)
            .map_err(|error| format!("`{CURRENT}` in the store is not understood: {error}"))?;
        known(CURRENT, read.layout)?;
        Ok(read)
    }

    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        // Texts, numbers and lists always have a form in JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The generation that `host` is to run at `now` (milliseconds since 1970); 0: none.
    #[must_use]
    pub fn wanted(&self, host: &str, now: i64) -> u64 {
        let tries = self.canary.is_empty() || self.canary.iter().any(|name| name == host);
        if tries && !self.is_over(now) { self.generation } else { self.previous }
    }

    /// Whether it was on trial, and nobody confirmed it in time.
    #[must_use]
    pub fn is_over(&self, now: i64) -> bool {
        self.confirm_by.is_some_and(|by| now >= by)
    }

    /// Whether it may still be taken back by a host that can't run it.
    #[must_use]
    pub fn is_watched(&self, now: i64) -> bool {
        !self.canary.is_empty() || self.confirm_by.is_some() || now < self.watch_until
    }

    /// Back to `previous`, because of `halted`; from there, if that can't be run either, to what it was made from.
    #[must_use]
    pub fn back(&self, previous: &Generation, halted: Halted, watch_until: i64) -> Self {
        Self {
            generation: previous.generation,
            digest: previous.digest.clone(),
            previous: previous.base,
            canary: Vec::new(),
            at: halted.at,
            watch_until,
            confirm_by: None,
            halted: Some(halted),
            ..self.clone()
        }
    }
}

// === impl Generation ===

impl Generation {
    /// Reads a generation and holds it against its number and its digest.
    ///
    /// # Errors
    /// A sentence, when it can't be believed.
    pub fn read(number: u64, bytes: &[u8]) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(bytes)
            .map_err(|error| format!("generation {number} in the store is not understood: {error}"))?;
        known(&format!("generation {number}"), read.layout)?;
        if read.generation != number {
            return Err(format!("generation {number} in the store says that it is {}", read.generation));
        }
        let digest = digest_of(&read.documents);
        if digest != read.digest {
            return Err(format!(
                "generation {number} in the store is damaged: its documents are {digest}, and were {}",
                read.digest
            ));
        }
        Ok(read)
    }

    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn known(what: &str, layout: u32) -> Result<(), String> {
    if layout <= LAYOUT {
        return Ok(());
    }
    Err(format!("{what} in the store is of layout {layout}, and this weir knows up to {LAYOUT}: upgrade it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, text: &str) -> Text {
        Text { name: name.to_owned(), text: text.to_owned() }
    }

    fn current() -> Current {
        Current {
            layout: LAYOUT,
            generation: 7,
            digest: "sha256:7".into(),
            previous: 5,
            latest: 7,
            canary: Vec::new(),
            at: 1_000,
            watch_until: 61_000,
            confirm_by: None,
            halted: None,
            author: "ops".into(),
            more: Map::new(),
        }
    }

    #[test]
    fn a_canary_takes_the_new_one_and_the_others_stay() {
        let all = current();
        assert_eq!(all.wanted("edge-2", 2_000), 7);
        let some = Current { canary: vec!["edge-1".into()], ..current() };
        assert_eq!(some.wanted("edge-1", 2_000), 7);
        assert_eq!(some.wanted("edge-2", 2_000), 5);
        let first = Current { previous: 0, ..some };
        assert_eq!(first.wanted("edge-2", 2_000), 0, "there is nothing before the first");
    }

    #[test]
    fn what_nobody_confirms_is_over_for_everybody_by_the_clock() {
        let trial = Current { confirm_by: Some(10_000), ..current() };
        assert_eq!(trial.wanted("edge-1", 9_999), 7);
        assert_eq!(trial.wanted("edge-1", 10_000), 5);
    }

    #[test]
    fn it_is_watched_for_a_time_and_as_long_as_it_is_tried() {
        assert!(current().is_watched(60_999));
        assert!(!current().is_watched(61_000));
        assert!(Current { canary: vec!["edge-1".into()], ..current() }.is_watched(99_000));
        assert!(Current { confirm_by: Some(100_000), ..current() }.is_watched(99_000));
    }

    #[test]
    fn going_back_keeps_the_numbers_and_what_newer_ones_wrote() {
        let newer: Current = serde_json::from_slice(
            br#"{"layout":1,"generation":7,"digest":"d","previous":5,"latest":9,"at":1,"wave":"two"}"#,
        )
        .unwrap();
        let halted = Halted { generation: 7, by: "edge-1".into(), why: "port taken".into(), at: 2_000 };
        let back = newer.back(&generation(5, 3), halted, 62_000);
        assert_eq!((back.generation, back.previous, back.latest), (5, 3, 9));
        assert_eq!(back.wanted("edge-1", 2_000), 5);
        assert!(back.is_watched(2_000), "that one may be as bad");
        let again = Current::read(&back.write()).unwrap();
        assert_eq!(again.more["wave"], "two");
        assert_eq!(again, back);
    }

    #[test]
    fn a_digest_tells_documents_apart_and_not_their_order() {
        let (a, b) = (text("a.toml", "x = 1"), text("b.toml", "y = 2"));
        assert_eq!(digest_of(&[a.clone(), b.clone()]), digest_of(&[b.clone(), a.clone()]));
        assert_ne!(digest_of(&[text("a", "bc")]), digest_of(&[text("ab", "c")]));
        assert_ne!(digest_of(std::slice::from_ref(&a)), digest_of(&[a, b]));
        assert!(digest_of(&[]).starts_with("sha256:e3b0c442"), "the digest of nothing is known");
    }

    fn generation(number: u64, base: u64) -> Generation {
        let documents = vec![text("shop.toml", "[[route]]")];
        Generation {
            layout: LAYOUT,
            generation: number,
            digest: digest_of(&documents),
            base,
            author: "ops".into(),
            at: 1,
            message: String::new(),
            documents,
        }
    }

    #[test]
    fn a_generation_that_was_changed_is_not_believed() {
        let generation = generation(3, 2);
        let bytes = generation.write();
        assert_eq!(Generation::read(3, &bytes), Ok(generation));
        let text = String::from_utf8(bytes).unwrap();
        for (changed, why) in [
            (text.replace("[[route]]", "[[rout]]"), "damaged"),
            (text.replace("\"layout\":1", "\"layout\":2"), "upgrade"),
            (text.replace("\"generation\":3", "\"generation\":4"), "says that it is 4"),
            (text[1..].to_owned(), "not understood"),
        ] {
            let fault = Generation::read(3, changed.as_bytes()).unwrap_err();
            assert!(fault.contains(why), "{fault}");
        }
        assert_eq!(generation_key(3), "generations/00000000000000000003");
    }
}
