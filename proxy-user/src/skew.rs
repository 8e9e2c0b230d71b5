//! What the release before has left is read, and what the present one leaves it can read: state files, values in a fleet's store, and
//! the words of the hand-over, as `tests/skew` has them (its README says how they came about). Tests alone.
//!
//! Whether the release before reads what this one writes can't be tried without its binary. What can be is that nothing of what it
//! knows is missing or means something else: what is read of its files and written again has all that was there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    allowlists, blocklist, config, drain,
    fleet::{
        reconcile::{MEMORY_VERSION, Memory},
        report::Report,
    },
    handoff::{Downwards, SPEAKS, Upwards, counters},
    health::Status,
    maintenance, providers,
    snapshot::Snapshot,
    state_file,
    store::layout::{Current, Generation},
    variants,
};

/// Everything that releases have left, each in a folder of its own.
fn releases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/skew");
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let releases: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    assert!(!releases.is_empty(), "{} is empty", folder.display());
    releases
}

/// As a later release of the same layout might write it: with something more in every object that stands for one thing.
fn grown(mut value: Value) -> Value {
    fn grow(value: &mut Value) {
        match value {
            Value::Array(all) => all.iter_mut().for_each(|one| {
                if let Value::Object(fields) = one {
                    fields.insert("of_a_later_release".into(), json!({ "gold": [1] }));
                }
                grow(one);
            }),
            // Of a map, the keys are names.
            Value::Object(fields) => fields.values_mut().for_each(grow),
            _ => {}
        }
    }
    grow(&mut value);
    value["of_a_later_release"] = json!(true);
    value
}

/// Whether `whole` has all that `part` has, with the same values.
fn has(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            // Nothing and null say the same.
            part.iter().all(|(key, value)| has(whole.get(key).unwrap_or(&Value::Null), value))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| has(whole, part))
        }
        _ => whole == part,
    }
}

fn json_in(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Read and written again, it has all that it had.
fn comes_back<T: DeserializeOwned + Serialize>(value: &Value, what: &Path) -> T {
    let read: T =
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{}: {error}", what.display()));
    let again = serde_json::to_value(&read).unwrap();
    assert!(has(&again, value), "{}: of {value}\nonly this came back: {again}", what.display());
    read
}

#[test]
fn the_state_folder_of_the_release_before_is_read_also_when_it_has_grown() {
    for release in releases() {
        for grows in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            copy(&release.join("state"), folder.path(), grows);
            believed(folder.path());
        }
    }
}

/// All that is in the folder holds.
fn believed(state: &Path) {
    let drains = drain::store::load(&drain::store::path(state)).unwrap();
    assert_eq!(drains.host.unwrap().why.as_deref(), Some("a new kernel"));
    assert_eq!(drains.servers[&drain::Name::of("old", "127.0.0.1:18001")].why.as_deref(), Some("a new disk"));
    let blocks = blocklist::store::load(&blocklist::store::path(state)).unwrap();
    let blocked: Vec<_> = blocks.iter().map(|block| block.prefix.to_string()).collect();
    assert_eq!(blocked, ["203.0.113.7/32"]);
    let windows = maintenance::store::load(&maintenance::store::path(state)).unwrap();
    assert_eq!((windows.len(), &*windows[0].why), (1, "moving"));
    let splits = variants::memory::Memory::at_start(state);
    assert_eq!(splits.of("shop").unwrap().weights.unwrap()["new"], 50);
    let list = allowlists::store::Store::within(state).load("office").unwrap().unwrap();
    assert_eq!(list.parts[0].prefixes.len(), 2);
    let kept = providers::kept::load(state, "store").unwrap().unwrap();
    assert_eq!((kept.documents.len(), kept.revision.as_deref()), (1, Some("2")));
    let fleet = state.join("fleet/store.json");
    let memory = state_file::read(&fleet, MEMORY_VERSION, |memory: &Memory| memory.version).unwrap().unwrap();
    assert_eq!((memory.running, memory.stock.len()), (Some(2), 2));
}

/// With all that is below it.
fn copy(from: &Path, to: &Path, grows: bool) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to, grows);
        } else {
            let value = json_in(&entry.path());
            let value = if grows { grown(value) } else { value };
            fs::write(to, serde_json::to_vec(&value).unwrap()).unwrap();
        }
    }
}

#[test]
fn what_hosts_of_the_release_before_have_in_the_store_is_understood_and_kept() {
    for release in releases() {
        for (name, keeps) in [("current", true), ("host", true), ("generation", false)] {
            let path = release.join("store").join(name).with_extension("json");
            let value = json_in(&path);
            for value in [value.clone(), if keeps { grown(value.clone()) } else { value }] {
                let bytes = serde_json::to_vec(&value).unwrap();
                match name {
                    "current" => {
                        Current::read(&bytes).unwrap();
                        comes_back::<Current>(&value, &path);
                    }
                    "host" => {
                        let report: Report = comes_back(&value, &path);
                        assert_eq!((&*report.host, report.standing.generation), ("edge-1", Some(2)));
                    }
                    _ => {
                        let generation = Generation::read(2, &bytes).unwrap();
                        assert_eq!(generation.documents.len(), 1);
                        comes_back::<Generation>(&value, &path);
                        // Its documents are what its digest speaks of, and nothing else.
                        Generation::read(2, &serde_json::to_vec(&grown(value)).unwrap()).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn the_words_of_the_release_before_are_understood_and_have_all_it_knows() {
    for release in releases() {
        let path = release.join("handover.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        let words: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(words.len() >= 10, "every word is there");
        for told in &words {
            let word = &told["word"];
            for word in [word.clone(), grown(word.clone())] {
                if told["from"] == "predecessor" {
                    let read: Downwards = serde_json::from_value(word.clone()).unwrap();
                    assert!(!matches!(read, Downwards::Unknown), "{word}");
                    if let Downwards::Gives { estate } = read {
                        resumed(*estate);
                    }
                } else {
                    let read: Upwards = serde_json::from_value(word.clone()).unwrap();
                    assert!(!matches!(read, Upwards::Unknown), "{word}");
                    if let Upwards::Hello { speaks, .. } = read {
                        assert!(SPEAKS.agree(speaks).is_some(), "a release speaks with the one before");
                    }
                }
            }
            if told["from"] == "predecessor" {
                comes_back::<Downwards>(word, &path);
            } else {
                comes_back::<Upwards>(word, &path);
            }
        }
    }
}

/// A daemon of this release begins with what one of the release before knew.
fn resumed(estate: crate::handoff::estate::Estate) {
    let text = "[entrypoint.https]\nbind = '127.0.0.1:80'\n[service.app]\nservers = ['127.0.0.1:18001', '127.0.0.1:18002']\n\
                health = { path = '/' }\nbreaker = { errors = '50%' }\n[[route]]\nhost = 'app.example.com'\nservice = 'app'\n";
    let loaded = config::load_text(Path::new("weir.toml"), text).unwrap_or_else(|report| panic!("{report}"));
    let mut snapshot =
        Snapshot::new(loaded.config.into(), &crate::acme::Board::default().into(), None).unwrap();
    estate.resume(&mut snapshot);
    let verdicts: Vec<_> =
        snapshot.services[0].servers.iter().map(|server| server.health.verdict()).collect();
    assert_eq!(verdicts, [Status::Up, Status::Down]);
    assert!(snapshot.services[0].breaker.as_ref().unwrap().told(crate::clock::Moment::now()).is_some());
    assert_eq!(counters::read(&snapshot)["entrypoint/https/requests"], 3);
    assert_eq!(snapshot.generation, 2);
}
