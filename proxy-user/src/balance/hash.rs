//! The same server for the same key: the table says which, and who is asked when that one can't be.
//!
//! When a server is down, its keys go to others and nobody else's move; when it is back, they come back. The table isn't
//! made anew for that: a key whose server can't take it is hashed again and looks elsewhere. With a bound on the load
//! (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016), neither does it go where too much is
//! under way: one popular key then can't bury a server.

use super::{Field, fraction, maglev::Maglev};

/// So many places are looked at before all servers are.
const LOOKS: u64 = 8;

/// The same on every host and in every version, since hosts that stand in for each other must agree: FNV-1a.
pub fn of(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Spreads a hash over all of its bits (the finalizer of SplitMix64).
pub fn mixed(hash: u64) -> u64 {
    let hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// The server for a key. `bound`: in percent of a fair share.
pub fn pick(
    table: &Maglev,
    bound: Option<u32>,
    field: &impl Field,
    key: u64,
    may: impl Fn(usize) -> bool,
) -> Option<usize> {
    let most = bound.and_then(|bound| Bound::of(bound, field, &may));
    let takes = |index: usize, look: u64| {
        may(index) && warm_for(field, index, key, look) && most.is_none_or(|most| most.allows(field, index))
    };
    for look in 0..LOOKS {
        let index = table.get(looked(key, look))?;
        if takes(index, look) {
            return Some(index);
        }
    }
    // Few are left: by an order of all of them that each key has of its own. First within the bound; and if everybody is
    // warming up or at the bound, whoever may.
    let best = |fits: &dyn Fn(usize) -> bool| {
        (0..field.len()).filter(|&index| fits(index)).max_by_key(|&index| mixed(key ^ mixed(index as u64)))
    };
    best(&|index| takes(index, LOOKS)).or_else(|| best(&may))
}

/// Where a key looks in the table first: its server, as long as that takes work.
pub fn first_look(key: u64) -> u64 {
    looked(key, 0)
}

fn looked(key: u64, look: u64) -> u64 {
    mixed(key.wrapping_add(look))
}

/// How much each may have under way.
#[derive(Clone, Copy)]
struct Bound {
    /// For each of weight 1, with the request that is to be placed.
    per_weight: f64,
}

impl Bound {
    fn of(percent: u32, field: &impl Field, may: &impl Fn(usize) -> bool) -> Option<Self> {
        let open = (0..field.len()).filter(|&index| may(index));
        let (active, weight) = open.fold((1.0, 0.0), |(active, weight), index| {
            (active + f64::from(field.active(index)), weight + super::weight(field, index))
        });
        (weight > 0.0).then(|| Self { per_weight: active / weight * f64::from(percent) / 100.0 })
    }

    fn allows(self, field: &impl Field, index: usize) -> bool {
        f64::from(field.active(index)) < (self.per_weight * super::weight(field, index)).ceil()
    }
}

/// A server that is warming up has its first keys early and its last ones late, and each goes there once and stays.
fn warm_for(field: &impl Field, index: usize, key: u64, look: u64) -> bool {
    let warmth = field.warmth(index);
    warmth >= 1.0 || fraction(mixed(key ^ mixed(look ^ 0x7761_726d))) < warmth
}
