//! Which server of a service gets a request. Pure: who is usable and whose turn it is are arguments.

/// The servers that a request has already tried, by index. A service with more than 128 servers forgets the ones
/// beyond: they may be tried twice, which is harmless.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried(u128);

impl Tried {
    pub fn insert(&mut self, index: usize) {
        if index < 128 {
            self.0 |= 1 << index;
        }
    }

    /// The server may be tried once more.
    pub fn remove(&mut self, index: usize) {
        if index < 128 {
            self.0 &= !(1 << index);
        }
    }

    pub fn contains(self, index: usize) -> bool {
        index < 128 && self.0 & (1 << index) != 0
    }
}

/// Round robin: the first usable server from `turn` on that was not tried yet.
pub fn round_robin(count: usize, turn: usize, tried: Tried, usable: impl Fn(usize) -> bool) -> Option<usize> {
    (0..count)
        .map(|step| (turn.wrapping_add(step)) % count)
        .find(|&index| !tried.contains(index) && usable(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_around_evenly() {
        let picks: Vec<_> = (0..6).map(|turn| round_robin(3, turn, Tried::default(), |_| true)).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2].map(Some));
    }

    #[test]
    fn servers_that_are_down_or_were_tried_are_passed_over() {
        let mut tried = Tried::default();
        tried.insert(1);
        assert_eq!(round_robin(3, 1, tried, |_| true), Some(2));
        assert_eq!(round_robin(3, 1, tried, |index| index != 2), Some(0));
        assert_eq!(round_robin(3, 1, tried, |index| index == 1), None);
    }

    #[test]
    fn no_servers_give_none() {
        assert_eq!(round_robin(0, 7, Tried::default(), |_| true), None);
    }
}
