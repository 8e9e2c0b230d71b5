//! `kind = "directory"`: a folder of documents, watched.
//!
//! Folders are written in many ways: file by file, by renaming, by swapping a symbolic link (Kubernetes swaps `..data`), by
//! a Git checkout, or on another host, of which NFS sends no events. So events only say when to look; now and then
//! everything is read without one. It all happens on a thread of its own: a file system that hangs holds nothing else up.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{Has, Provider, Teller, Watch};
use crate::{
    config::{self, documents::Document, model::Directory},
    control::files::Files,
};

/// A document is written by hand or by a template; what is larger was given by mistake.
const LARGEST: u64 = 16 << 20;

/// Folders in folders: a link that leads upwards would have no end.
const DEEPEST: usize = 8;

/// More than this are not configuration.
const MOST: usize = 10_000;

/// Nor are more bytes than this.
const LARGEST_OF_ALL: usize = 64 << 20;

/// A checkout is waited for as long as this.
const CHECKOUT: Duration = Duration::from_secs(10);

pub struct Folder {
    directory: Directory,
}

/// What there is to read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listing {
    folders: Vec<PathBuf>,
    /// By name: the path below the folder.
    files: BTreeMap<String, PathBuf>,
}

impl Folder {
    pub fn new(directory: Directory) -> Self {
        Self { directory }
    }
}

impl Provider for Folder {
    fn watch(self: Box<Self>, teller: Teller) -> Watch {
        Box::pin(async move {
            // It ends when this future is dropped, and `end` with it.
            let (_end, ended) = oneshot::channel::<()>();
            let (directory, words) = (self.directory, teller.clone());
            let thread = std::thread::Builder::new().name("weir-directory".to_owned()).spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                if let Ok(runtime) = runtime {
                    runtime.block_on(async {
                        tokio::select! {
                            () = look_on(&directory, &words) => {}
                            _ = ended => {}
                        }
                    });
                }
            });
            if let Err(error) = thread {
                teller.away(format!("the system gives no thread: {error}")).await;
            }
            std::future::pending::<()>().await;
        })
    }
}

async fn look_on(directory: &Directory, teller: &Teller) {
    let mut files = Files::start();
    let mut known: Option<Vec<Document>> = None;
    loop {
        checked_out(&directory.path).await;
        match read(&directory.path, &mut files) {
            Ok(documents) if known.as_ref() == Some(&documents) => teller.same().await,
            Ok(documents) => {
                known = Some(documents.clone());
                teller.has(Has { documents, ..Has::default() }).await;
            }
            Err(why) => {
                // When it is back, that is news.
                known = None;
                teller.away(why).await;
            }
        }
        let again = Instant::now() + directory.every;
        // Without an event everything is read all the same.
        let _ = timeout_at(again, files.changed()).await;
    }
}

/// All documents, as they were at one moment as far as can be told.
fn read(folder: &Path, files: &mut Files) -> Result<Vec<Document>, String> {
    let mut listing = list(folder);
    // Watched first, and read then: what changes from here on is noticed.
    for _ in 0..3 {
        let watched = match &listing {
            Ok(listing) => listing.folders.iter().chain(listing.files.values()).cloned().collect(),
            Err(_) => vec![folder.to_owned()],
        };
        files.watch(&watched);
        let now = list(folder);
        let settled = now == listing;
        listing = now;
        if settled {
            break;
        }
    }
    let listing = listing?;
    if listing.files.is_empty() {
        return Err(format!(
            "{} holds no `*.toml`, as a file system looks that isn't mounted",
            folder.display()
        ));
    }
    let mut documents = Vec::new();
    let mut bytes = 0;
    for (name, path) in listing.files {
        let text = config::text_of(&path, LARGEST);
        bytes += text.as_ref().map_or(0, String::len);
        if bytes > LARGEST_OF_ALL {
            return Err(format!("{} holds more than {} MiB", folder.display(), LARGEST_OF_ALL >> 20));
        }
        let text =
            text.map(Into::into).map_err(|error| format!("can't be read: {}", config::reason_of(&error)));
        documents.push(Document { name, text, place: Some(path.clone()), origin: path });
    }
    Ok(documents)
}

fn list(folder: &Path) -> Result<Listing, String> {
    let mut listing = Listing::default();
    walk(folder, "", 0, &mut listing)?;
    Ok(listing)
}

fn walk(folder: &Path, above: &str, depth: usize, listing: &mut Listing) -> Result<(), String> {
    let unreadable = |error| format!("{} can't be read: {}", folder.display(), config::reason_of(&error));
    if depth > DEEPEST {
        return Err(format!("{} is more than {DEEPEST} folders deep", folder.display()));
    }
    listing.folders.push(folder.to_owned());
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        // An editor's, Git's, or Kubernetes' own.
        if name.starts_with('.') {
            continue;
        }
        let name = if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") };
        if path.is_dir() {
            walk(&path, &name, depth + 1, listing)?;
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            listing.files.insert(name, path);
        }
        if listing.files.len() > MOST {
            return Err(format!("{} holds more than {MOST} `*.toml`", folder.display()));
        }
    }
    Ok(())
}

/// Waits while Git writes here: half a checkout is nobody's configuration. Not for ever, since a lock may have been left.
async fn checked_out(folder: &Path) {
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let lock = |folder: &Path| folder.join(".git/index.lock");
    let until = Instant::now() + CHECKOUT;
    while real.ancestors().any(|folder| lock(folder).exists()) && Instant::now() < until {
        sleep(Duration::from_millis(100)).await;
    }
}
