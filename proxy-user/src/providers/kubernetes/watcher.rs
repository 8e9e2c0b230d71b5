//! Follows one kind of object: list, watch from there, and anew whenever the server says that its memory ends.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    api::{Api, Event, Fault, Scope},
    cluster::Key,
};
use crate::providers::backoff;

/// The longest pause after failures.
const LONGEST: Duration = Duration::from_secs(30);

/// How often a kind that isn't installed is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Of a watch that lasted so long nobody says that it failed.
const LASTED: Duration = Duration::from_secs(5);

/// Something was heard of a scope, which is told by its number.
pub type Said = (usize, Word);

#[derive(Debug, PartialEq)]
pub enum Word {
    /// This is all there is.
    All(Vec<Value>),
    Put(Value),
    Gone(Key),
    /// The server has just said that nothing is new.
    Current,
    /// The server doesn't know the kind.
    Absent,
    /// It can't be asked; why, as the end of a sentence.
    Away(String),
}

/// Follows a scope for as long as the future lives.
pub async fn follow(api: &Api, scope: &Scope, number: usize, say: &mpsc::Sender<Said>) {
    let tell = async |word| {
        // Whoever listens ends with this.
        let _ = say.send((number, word)).await;
    };
    let mut trouble = Trouble::default();
    loop {
        // 1. All there is.
        let listed = match api.list(scope).await {
            Ok(listed) => listed,
            Err(Fault::Absent) => {
                tell(Word::Absent).await;
                sleep(LOOK_AGAIN.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
                continue;
            }
            Err(fault) => {
                tell(Word::Away(sentence(scope, fault))).await;
                sleep(trouble.more()).await;
                continue;
            }
        };
        let (root, mut version) = (listed.root, listed.version);
        tell(Word::All(listed.objects)).await;

        // 2. What happens from there on, watch by watch. Who was away knows where to go on.
        loop {
            let begun = Instant::now();
            let fault = match api.watch(root, scope, &version).await {
                Ok(mut watching) => {
                    tell(Word::Current).await;
                    let fault = loop {
                        let word = match watching.next().await {
                            Ok(Some(Event::Put(object))) => Word::Put(object),
                            Ok(Some(Event::Gone(object))) => match Key::of(&object) {
                                Some(key) => Word::Gone(key),
                                None => continue,
                            },
                            Ok(Some(Event::Bookmark)) => Word::Current,
                            Ok(None) => break None,
                            Err(fault) => break Some(fault),
                        };
                        tell(word).await;
                    };
                    version = watching.version;
                    fault
                }
                Err(fault) => Some(fault),
            };
            if begun.elapsed() > LASTED {
                trouble = Trouble::default();
            }
            let anew = matches!(fault, Some(Fault::Gone | Fault::Absent));
            if let Some(fault) = fault {
                // A single one is a server that restarts. What is too old is listed anew: no trouble unless that fails.
                let pause = trouble.more();
                if trouble.0 > 1 && !anew {
                    tell(Word::Away(sentence(scope, fault))).await;
                }
                sleep(pause).await;
            } else if begun.elapsed() < LASTED {
                // A server that ends every watch at once.
                sleep(trouble.more()).await;
            }
            if anew {
                break;
            }
        }
    }
}

/// Failures in a row.
#[derive(Debug, Default)]
struct Trouble(u32);

impl Trouble {
    /// Counts one more, and says how long to wait after it. Hardly at all after a first one.
    fn more(&mut self) -> Duration {
        self.0 += 1;
        match self.0 {
            1 => Duration::from_millis(100),
            failures => backoff::wait(failures - 1, LONGEST, fastrand::f64()),
        }
    }
}

fn sentence(scope: &Scope, fault: Fault) -> String {
    match fault {
        Fault::Absent => format!("{scope}: it doesn't know them"),
        Fault::Gone => format!("{scope}: what it was asked for is too old"),
        Fault::Other(why) => format!("{scope}: {why}"),
    }
}
