//! One daemon takes over from another, and no client notices: another binary (`weir upgrade`, SIGUSR2), or the next daemon that
//! systemd starts.
//!
//! The running daemon starts the new one and stays as it is until the new one serves; what goes wrong before that costs nothing:
//!
//! 1. The new binary is looked at ([`candidate`]): does it run here, does it speak this protocol, does it take the configuration?
//! 2. It is started, with a socket to its predecessor as its standard input. It reads the configuration, and asks.
//! 3. The predecessor stands still (it changes nothing on the disk and in the kernel from here on) and gives its *estate*: the very
//!    listening sockets (nobody in their queues is lost), the lock on the pins, and what it knows ([`estate`]).
//! 4. The new one begins to serve, from the same queues, and says so. If it doesn't in time, it is killed, and the predecessor goes on.
//! 5. The predecessor stops to accept, says so, and lets its connections end. What they still count it passes on.
//!
//! Over a restart by systemd only the sockets are kept, in its store ([`service_manager`]).
//!
//! `upgrade.rs` is something else (HTTP's `Upgrade`), and so is `handover.rs` (connections that go to the kernel).

pub mod candidate;
pub mod counters;
pub mod estate;
pub mod heir;
pub mod image;
pub mod lineage;
pub mod service_manager;
pub mod sockets;
pub mod usher;
pub mod wire;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use self::estate::Estate;

/// Set for a daemon that is to take over: its standard input is the line to its predecessor.
pub const TAKES_OVER: &str = "WEIR_TAKES_OVER";

/// The oldest and the newest protocol that this version speaks. A release may add words and fields to a protocol, which others pass
/// over; what others have to understand makes a new one, and the one before is spoken for a release more.
pub const SPEAKS: Protocols = Protocols { oldest: 1, newest: 1 };

/// A range of protocols, as both sides tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocols {
    pub oldest: u32,
    pub newest: u32,
}

/// What a successor says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Upwards {
    Hello {
        speaks: Protocols,
        version: String,
    },
    /// It has read the configuration, and is ready for the estate.
    Asks,
    Serves,
    Fails {
        why: String,
    },
    /// Log files were moved away: the old ones are still written to.
    ReopenLogs,
    /// Of a later release.
    #[serde(other)]
    Unknown,
}

/// What a predecessor says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Downwards {
    Welcome {
        protocol: u32,
        version: String,
        confined: Confined,
    },
    Refuses {
        why: String,
    },
    /// The file descriptors come beside it.
    Gives {
        estate: Box<Estate>,
    },
    /// It changes nothing any more, and accepts no more.
    Yours,
    /// What its connections have counted since the last time, and how many there still are.
    Counted {
        counts: counters::Counts,
        connections: usize,
        seconds_left: u64,
    },
    #[serde(other)]
    Unknown,
}

/// What a successor can't undo, since a process passes it on: it must not be laid over once more either, for the kernel allows that
/// only so often.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confined {
    /// Below which folders it may write (Landlock). `None`: wherever its user may.
    #[serde(default)]
    pub folders: Option<Vec<PathBuf>>,
    /// Which system calls are refused (seccomp), by the digests of the filters.
    #[serde(default)]
    pub filters: Vec<String>,
}

// === impl Protocols ===

impl Protocols {
    /// The newest protocol that both speak.
    pub fn agree(self, other: Self) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_releases_speak_the_newest_protocol_that_both_know() {
        let speaks = |oldest, newest| Protocols { oldest, newest };
        for (ours, theirs, agreed) in [
            (speaks(1, 1), speaks(1, 1), Some(1)),
            (speaks(1, 2), speaks(1, 1), Some(1)),
            (speaks(1, 2), speaks(2, 3), Some(2)),
            (speaks(1, 1), speaks(2, 2), None),
            (speaks(3, 4), speaks(1, 2), None),
        ] {
            assert_eq!((ours.agree(theirs), theirs.agree(ours)), (agreed, agreed), "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn words_and_fields_of_a_later_release_are_passed_over() {
        let word = serde_json::from_str(r#"{"say":"sings","song":"la"}"#).unwrap();
        assert!(matches!(word, Upwards::Unknown));
        let word = serde_json::from_str(r#"{"say":"asks","for":"more"}"#).unwrap();
        assert!(matches!(word, Upwards::Asks));
        let word = serde_json::from_str(
            r#"{"say":"welcome","protocol":1,"version":"9.9.9","confined":{"filters":[],"time":3}}"#,
        )
        .unwrap();
        let Downwards::Welcome { confined, .. } = word else { panic!("{word:?}") };
        assert_eq!(confined, Confined::default());
    }
}
