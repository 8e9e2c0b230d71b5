//! Keeps the names that are in use current: a task for each, which asks, writes the answer on the board, says so, and waits
//! for as long as the answer holds.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{Board, lookup};
use crate::config::model::{Config, Dns};

/// New names are waited for no longer than this: a DNS server that hangs must not hold up a start or a reload.
const FIRST_ANSWERS: Duration = Duration::from_secs(1);

/// After a failure a name is asked for again after at most so long, however long its TTL may be.
const AGAIN: Duration = Duration::from_secs(30);

/// The tasks, and what they share.
#[derive(Debug, Default)]
pub struct Keeper {
    pub board: Arc<Board>,
    tasks: HashMap<Arc<str>, Keeping>,
    news: Arc<Notify>,
}

/// A running task. It ends when this is dropped.
#[derive(Debug)]
struct Keeping {
    dns: Dns,
    task: JoinHandle<()>,
}

impl Keeper {
    /// From now on keeps the names of `config` current and no others, and waits a moment for those that are new.
    pub async fn follow(&mut self, config: &Config) {
        let servers = config.services.iter().flat_map(|service| &service.servers);
        let names: Vec<&Arc<str>> = servers.filter_map(|server| server.name()).collect();
        self.tasks.retain(|name, keeping| {
            let stays = names.contains(&name);
            if !stays {
                self.board.forget(name);
            }
            // With other servers to ask or other bounds it begins anew; what is known stays until it has an answer.
            stays && keeping.dns == config.dns
        });
        let mut new = Vec::new();
        for name in names {
            if self.tasks.contains_key(name) {
                continue;
            }
            let (asked, mut first) = watch::channel(false);
            let task = keep(name.clone(), config.dns.clone(), self.board.clone(), self.news.clone(), asked);
            let keeping = Keeping { dns: config.dns.clone(), task: tokio::spawn(task) };
            self.tasks.insert(name.clone(), keeping);
            new.push(async move {
                // An error means that the task is gone: then nothing more will come.
                let _ = first.wait_for(|asked| *asked).await;
            });
        }
        // What takes longer comes as news.
        let _ = timeout(FIRST_ANSWERS, futures_util::future::join_all(new)).await;
    }

    /// Resolves when a name was asked for: it may mean something else now. Safe to cancel.
    pub async fn news(&self) {
        self.news.notified().await;
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(name: Arc<str>, dns: Dns, board: Arc<Board>, news: Arc<Notify>, asked: watch::Sender<bool>) {
    let mut failures = 0;
    loop {
        let answer = lookup::lookup(&dns, &name).await;
        let wait = match &answer {
            Ok((_, ttl)) => {
                if failures > 0 {
                    tracing::info!("`{name}` is resolved again");
                }
                failures = 0;
                holds_for(*ttl, &dns)
            }
            Err(why) => {
                // The same trouble once more is no news.
                if failures == 0 {
                    let stays = board.known(&name).is_some_and(|known| known.is_resolved());
                    let so = if stays { "its last addresses stay" } else { "it has no servers until it is" };
                    tracing::warn!("`{name}` can't be resolved, {so}: {why}");
                }
                failures += 1;
                again_after(failures, &dns)
            }
        };
        board.looked_up(&name, answer.map(|(answer, _)| answer));
        asked.send_replace(true);
        news.notify_one();
        // Not all names at a time.
        sleep(wait.mul_f64(1.0 - 0.1 * fastrand::f64())).await;
    }
}

/// Until an answer with this TTL is asked for again.
fn holds_for(ttl: Duration, dns: &Dns) -> Duration {
    ttl.clamp(dns.min_ttl, dns.max_ttl)
}

/// Doubled with each failure in a row, from a second on.
fn again_after(failures: u32, dns: &Dns) -> Duration {
    let most = dns.max_ttl.min(AGAIN);
    Duration::from_secs(1).saturating_mul(1 << (failures - 1).min(10)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_hold_for_their_ttl_within_bounds() {
        let second = Duration::from_secs(1);
        let dns = Dns { servers: Vec::new(), min_ttl: 5 * second, max_ttl: 300 * second, timeout: second };
        for (ttl, held) in [(0, 5), (4, 5), (60, 60), (86_400, 300)] {
            assert_eq!(holds_for(ttl * second, &dns), held * second, "{ttl}");
        }
        for (failures, wait) in [(1, 1), (2, 2), (5, 16), (6, 30), (1000, 30)] {
            assert_eq!(again_after(failures, &dns), wait * second, "{failures}");
        }
    }
}
