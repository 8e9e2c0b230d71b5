//! What the hosts of a fleet tell each other beside the configuration: so that a client that comes to another host notices nothing.
//!
//! ```text
//!   operator ─► switch ─► here, on the disk ─► ledger ─► link ─► store ─► links ─► ledgers ─► the other hosts
//! ```
//!
//! It helps, and nothing needs it. A host's own state is the truth there, also about what others have switched: the store is only
//! how they hear of it, and while it is away each goes on with what it has. [`switch`] is what operators throw, [`ledger`] (pure) who
//! has the last word about it, [`link`] speaks to the store, [`board`] is what people see. Nothing on a request's way looks here.
//! All of it is bounded, and what can't be understood in the store is passed over, and told once.

pub mod board;
pub mod hint;
pub mod keys;
pub mod kept;
pub mod ledger;
pub mod link;
pub mod switch;

use serde::de::DeserializeOwned;

/// The layout of what stands below `shared/`. What is newer may mean something else, and is passed over.
pub const LAYOUT: u32 = 1;

/// Below `shared/`: what operators have switched.
pub const SWITCHES: &str = "switches/";

/// Below `shared/`: keys on which hosts agree.
pub const KEYS: &str = "keys/";

/// Below `shared/`: which servers hosts see failing.
pub const HINTS: &str = "hints/";

/// So many keys are looked at below `shared/`, and so many bytes of each; what is beyond that is nobody's.
pub const MOST: usize = 5_000;
pub const LARGEST: usize = 16 << 10;

/// What a host has written below `shared/`. `signed`: its layout, and who says so.
///
/// # Errors
/// A sentence, when it can't be believed.
fn read<T: DeserializeOwned>(bytes: &[u8], signed: fn(&T) -> (u32, &str)) -> Result<T, String> {
    if bytes.len() > LARGEST {
        return Err(format!("it has {} bytes, more than {LARGEST}", bytes.len()));
    }
    let read = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let (layout, host) = signed(&read);
    if layout > LAYOUT {
        return Err(format!("its layout is {layout}, and this weir knows up to {LAYOUT}"));
    }
    if !switch::is_host(host) {
        return Err("it names no host".to_owned());
    }
    Ok(read)
}
