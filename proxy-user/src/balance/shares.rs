//! Servers by their weights: in turn, evenly mixed, and drawn by lot.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use super::Field;

/// Draws that hit nobody who may have the request, before all are looked at.
const DRAWS: usize = 4;

/// The weights of a service's servers, ready for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// As often as its weight says each server's index, as evenly mixed as that goes. Where all weights are the same:
    /// just one after the other.
    turns: Arc<[u16]>,
    /// The smallest weight.
    pub lightest: u32,
}

impl Shares {
    pub fn new(weights: &[u32]) -> Self {
        Self { turns: turns(weights), lightest: weights.iter().copied().min().unwrap_or(1).max(1) }
    }

    /// Whose turn it is.
    pub fn at(&self, turn: usize) -> Option<usize> {
        // The remainder is taken once; a service without servers has no turns.
        let index = turn.checked_rem(self.turns.len())?;
        Some(usize::from(self.turns[index]))
    }

    /// One of those who may, by weight and warmth.
    pub fn draw(
        &self,
        field: &impl Field,
        dice: &mut impl FnMut() -> u64,
        may: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        for _ in 0..DRAWS {
            let index = self.at((dice() >> 32) as usize)?;
            if may(index) && super::warm_enough(field, index, dice) {
                return Some(index);
            }
        }
        draw_among(field, dice, may)
    }
}

/// By weight and warmth one of those who may: looks at all of them, so it's for when a quicker way hasn't found any.
pub fn draw_among(
    field: &impl Field,
    dice: &mut impl FnMut() -> u64,
    may: impl Fn(usize) -> bool,
) -> Option<usize> {
    // In thousandths, and never nothing.
    let share = |index: usize| ((super::weight(field, index) * 1000.0) as u64).max(1);
    let all: u64 = (0..field.len()).filter(|&index| may(index)).map(share).sum();
    let mut left = dice().checked_rem(all)?;
    let mut last = None;
    for index in (0..field.len()).filter(|&index| may(index)) {
        last = Some(index);
        let share = share(index);
        if left < share {
            break;
        }
        left -= share;
    }
    // Somebody may have gone down between the two looks: then it is the last one of those that are left.
    last
}

/// Earliest deadline first: a server of weight w wants its turns at p/w, (p+1)/w, (p+2)/w… of the round, each with another p,
/// so that light ones don't come one behind the other.
fn turns(weights: &[u32]) -> Arc<[u16]> {
    let divisor = weights.iter().fold(0, |divisor, &weight| common(divisor, weight)).max(1);
    let weights: Vec<u64> = weights.iter().map(|&weight| u64::from(weight / divisor)).collect();
    let all: u64 = weights.iter().sum();
    // Deadlines as fractions with one denominator would be huge; as multiples of 2⁻³² of the round they are near enough.
    let first = |index: u16| ((2 * u64::from(index) + 1) << 32) / (2 * weights.len() as u64);
    let deadline = |index: u16, weight: u64, turn: u64| ((turn << 32) + first(index)) / weight;
    let mut due: BinaryHeap<Reverse<(u64, u16, u64)>> = (0u16..)
        .zip(&weights)
        .filter(|(_, weight)| **weight > 0)
        .map(|(index, &weight)| Reverse((deadline(index, weight, 0), index, 0)))
        .collect();
    let mut turns = Vec::new();
    while turns.len() as u64 != all {
        let Some(Reverse((_, index, turn))) = due.pop() else { break };
        turns.push(index);
        let next = deadline(index, weights[usize::from(index)], turn + 1);
        due.push(Reverse((next, index, turn + 1)));
    }
    turns.into()
}

/// The greatest common divisor.
fn common(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { common(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_weights_go_one_after_the_other() {
        assert_eq!(*turns(&[7, 7, 7]), [0, 1, 2]);
        assert_eq!(*turns(&[1]), [0]);
        assert!(turns(&[]).is_empty());
    }

    #[test]
    fn heavy_servers_get_their_turns_spread_over_the_round() {
        assert_eq!(*turns(&[5, 1, 1]), [0, 0, 0, 1, 0, 0, 2]);
        assert_eq!(*turns(&[30, 10]), [0, 0, 0, 1]);
        assert_eq!(*turns(&[2, 1, 1, 2]), [0, 1, 3, 0, 2, 3]);
    }

    proptest! {
        #[test]
        fn each_gets_its_weight_of_every_round_and_is_never_far_from_it(
            weights in proptest::collection::vec(1u32..=100, 1..12)
        ) {
            let turns = turns(&weights);
            let divisor = weights.iter().fold(0, |divisor, &weight| common(divisor, weight));
            let all: u32 = weights.iter().map(|weight| weight / divisor).sum();
            prop_assert_eq!(turns.len(), all as usize);
            for (index, weight) in weights.iter().enumerate() {
                let share = f64::from(weight / divisor) / f64::from(all);
                let mut had = 0.0;
                for (turn, &whose) in turns.iter().enumerate() {
                    had += f64::from(u8::from(usize::from(whose) == index));
                    // Nobody is ahead or behind by more than those who fall due at the same time.
                    let ideal = share * (turn + 1) as f64;
                    prop_assert!((had - ideal).abs() <= weights.len() as f64, "{had} of {ideal}");
                }
                prop_assert_eq!(had as u32, weight / divisor);
            }
        }
    }
}
