//! Which server of a service gets a request. Pure: what is known of the servers ([`Field`]) and the dice are arguments.
//!
//! [`pick`] is the whole of it: who may have the request at all ([`reach`]), and whom of those the service's way of
//! balancing takes. No pick locks or allocates anything; what it needs is worked out once, when a snapshot is made.

pub mod ewma;
pub mod hash;
pub mod key;
pub mod maglev;
pub mod reach;
pub mod shares;
pub mod warmth;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::{maglev::Maglev, reach::Reach, shares::Shares};

/// The servers that a request has already tried, by index. In a service with more than 128 servers some share a place: one is
/// passed over with the other, and there are enough left. No server is ever tried for ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried(u128);

/// How a service chooses, with what that takes.
#[derive(Debug, Clone)]
pub enum Way {
    /// Each in its turn, as often as its weight says.
    RoundRobin,
    /// Of two that are drawn, the one with less under way for its weight.
    LeastRequests,
    /// Of two that are drawn, the one that promises to answer sooner.
    Latency,
    /// The same one for the same key.
    Hash {
        table: Arc<Maglev>,
        /// In percent of a fair share: nobody gets more than that of what is under way.
        bound: Option<u32>,
    },
}

/// What a pick may ask of the servers, by their index.
pub trait Field {
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn weight(&self, index: usize) -> u32;

    /// Requests under way there.
    fn active(&self, index: usize) -> u32;

    /// How long it takes to answer, in microseconds, by [`ewma`].
    fn latency(&self, index: usize) -> f32;

    /// How much of its weight it has already; see [`warmth`]. 1 for all of it.
    fn warmth(&self, _index: usize) -> f32 {
        1.0
    }

    /// Whether new work may go there.
    fn takes_work(&self, index: usize) -> bool;
}

/// What is known of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask {
    /// Counted up with each request of the service.
    pub turn: usize,
    /// Of its key, where the service balances by one.
    pub hash: u64,
    pub tried: Tried,
}

/// The server that gets the request: of those in reach the one that `way` takes; when all of those were tried, any other
/// that takes work.
pub fn pick(
    way: &Way,
    shares: &Shares,
    reach: &Reach,
    field: &impl Field,
    ask: Ask,
    dice: &mut impl FnMut() -> u64,
) -> Option<usize> {
    let open = |index: usize| !ask.tried.contains(index) && field.takes_work(index);
    let Some(reach) = reach.now(field) else {
        return chosen(way, shares, field, ask, dice, open);
    };
    chosen(way, shares, field, ask, dice, |index| reach.contains(index) && open(index))
        .or_else(|| chosen(way, shares, field, ask, dice, open))
}

fn chosen(
    way: &Way,
    shares: &Shares,
    field: &impl Field,
    ask: Ask,
    dice: &mut impl FnMut() -> u64,
    may: impl Fn(usize) -> bool,
) -> Option<usize> {
    match way {
        Way::RoundRobin => {
            let turn = shares.at(ask.turn)?;
            // Nearly always that is all.
            if may(turn) && warm_enough(field, turn, dice) {
                return Some(turn);
            }
            shares::draw_among(field, dice, may)
        }
        Way::LeastRequests => better_of_two(shares, field, dice, may, |index| {
            f64::from(field.active(index)) / weight(field, index)
        }),
        Way::Latency => better_of_two(shares, field, dice, may, |index| {
            // What a server has to do counts by its weight, in multiples of the lightest one's.
            let weight = weight(field, index) / f64::from(shares.lightest);
            ewma::load(field.latency(index), f64::from(field.active(index)) / weight)
        }),
        Way::Hash { table, bound } => hash::pick(table, *bound, field, ask.hash, may),
    }
}

/// The power of two choices (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001): to draw two and
/// take the better is nearly as good as to look at all, and many who choose at a time don't all choose the same.
fn better_of_two(
    shares: &Shares,
    field: &impl Field,
    dice: &mut impl FnMut() -> u64,
    may: impl Fn(usize) -> bool,
    load: impl Fn(usize) -> f64,
) -> Option<usize> {
    let first = shares.draw(field, dice, &may)?;
    let Some(second) = shares.draw(field, dice, |index| index != first && may(index)) else {
        return Some(first);
    };
    // Drawn by their weights: where both have nothing to do, the first keeps shares right.
    Some(if load(second) < load(first) { second } else { first })
}

/// Whether a server that is still warming up takes its turn.
fn warm_enough(field: &impl Field, index: usize, dice: &mut impl FnMut() -> u64) -> bool {
    let warmth = field.warmth(index);
    warmth >= 1.0 || fraction(dice()) < warmth
}

/// The weight that counts now.
fn weight(field: &impl Field, index: usize) -> f64 {
    f64::from(field.weight(index)) * f64::from(field.warmth(index))
}

/// From 0 up to 1.
fn fraction(random: u64) -> f32 {
    // 24 bits are what an f32 holds.
    (random >> 40) as f32 / (1u32 << 24) as f32
}

// === impl Way ===

impl Way {
    /// As it is written.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastRequests => "least_requests",
            Self::Latency => "latency",
            Self::Hash { .. } => "hash",
        }
    }
}

// === impl Tried ===

impl Tried {
    pub fn insert(&mut self, index: usize) {
        self.0 |= 1 << (index % 128);
    }

    /// The server may be tried once more.
    pub fn remove(&mut self, index: usize) {
        self.0 &= !(1 << (index % 128));
    }

    pub fn contains(self, index: usize) -> bool {
        self.0 & (1 << (index % 128)) != 0
    }
}
