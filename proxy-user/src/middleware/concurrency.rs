//! So many requests at once, counted over all workers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{Halt, Passage};

#[derive(Debug)]
pub struct Room {
    most: usize,
    inside: Arc<AtomicUsize>,
}

/// A place in the room, until it is dropped.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Room {
    pub fn new(most: usize) -> Self {
        Self { most, inside: Arc::default() }
    }

    /// The same room, with those who are in it, and another limit.
    pub fn with(&self, most: usize) -> Self {
        Self { most, inside: self.inside.clone() }
    }

    pub fn admit(&self, passage: &mut Passage<'_>) -> Result<(), Halt> {
        passage.exchange.held.push(self.enter().ok_or(Halt::Busy)?);
        Ok(())
    }

    /// A place, if one is free.
    pub fn enter(&self) -> Option<Permit> {
        let more = |inside: usize| (inside < self.most).then_some(inside + 1);
        let entered = self.inside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.ok().map(|_| Permit(self.inside.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_room_has_a_place_again_when_somebody_leaves_also_over_a_reload() {
        let room = Room::new(2);
        let (one, _two) = (room.enter().unwrap(), room.enter().unwrap());
        assert!(room.enter().is_none());
        let smaller = room.with(1);
        assert!(smaller.enter().is_none());
        drop(one);
        assert!(smaller.enter().is_none(), "one is still inside");
        assert!(room.enter().is_some());
    }
}
