//! The connection over which hosts hear of each other: tells what stands below `shared/`, and writes there.
//!
//! As with the [fleet's own](crate::fleet), nothing is resumed: whatever goes wrong, all is read anew, at the next endpoint. What was
//! given to be written and didn't come there is forgotten: whoever wanted it says so again when all was read. It is a connection of
//! its own, so that nothing that hosts tell each other stands in the way of a configuration.

#[cfg(feature = "etcd")]
mod work;

use tokio::{sync::mpsc, task::JoinHandle};

use super::MOST;
use crate::store::address::StoreAddress;

/// News that nobody has taken yet; more are left with the store.
const QUEUE: usize = 64;

/// More than there is to write at once ([`MOST`]); while the store is away, what is beyond that is forgotten at once.
const WRITES: usize = 2 * MOST;

#[derive(Debug)]
pub enum News {
    /// The store is there, and this stands below `shared/`.
    Whole {
        cluster: u64,
        at: i64,
        found: Vec<(String, Value)>,
    },
    /// `None`: it is gone.
    Changed {
        key: String,
        value: Option<Value>,
    },
    /// The store lets this host read, but not write.
    Forbidden {
        why: String,
    },
    Away {
        why: String,
    },
}

/// What stands in the store, and the revision in which it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub bytes: Vec<u8>,
    pub revision: i64,
}

/// Something to be written below `shared/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: String,
    pub bytes: Vec<u8>,
    /// For so many seconds; `None`: to stay.
    pub lasts: Option<i64>,
    /// Only if it stands at this revision (0: isn't there).
    pub only_at: Option<i64>,
    /// If it doesn't, all is read anew.
    pub or_anew: bool,
}

/// A link at work. Dropped, it ends.
#[derive(Debug)]
pub struct Link {
    news: mpsc::Receiver<News>,
    writes: mpsc::Sender<Write>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    #[cfg(feature = "etcd")]
    pub fn start(address: StoreAddress) -> Self {
        let (tell, news) = mpsc::channel(QUEUE);
        let (writes, written) = mpsc::channel(WRITES);
        let work = work::Work { address, tell, writes: written, forbidden: false };
        Self { news, writes, task: tokio::spawn(work.run()) }
    }

    /// A configuration with a store isn't valid in this build.
    #[cfg(not(feature = "etcd"))]
    pub fn start(_: StoreAddress) -> Self {
        let (news, writes) = (mpsc::channel(QUEUE).1, mpsc::channel(WRITES).0);
        Self { news, writes, task: tokio::spawn(std::future::ready(())) }
    }

    /// What there is to know next. Safe to cancel.
    pub async fn news(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            // It never ends by itself.
            None => std::future::pending().await,
        }
    }

    /// What there is to know already.
    pub fn more(&mut self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// Has it written, if the store is there.
    pub fn write(&self, write: Write) {
        let _ = self.writes.try_send(write);
    }
}
