//! A table from hashes to servers in which little moves when servers come and go: Maglev's (Eisenbud et al., "Maglev: A Fast
//! and Reliable Software Network Load Balancer", NSDI 2016, §3.4), with weights.
//!
//! Each server has its own order of all slots, and takes the first one that is free, as often as its weight lets it; so
//! they go on by turns until every slot is taken. The table depends on who the servers are and not on the order in which
//! they are written: two hosts with the same servers send the same key to the same one.

use super::hash;

/// Primes, as the paper has them: with a hundred slots to a server, shares differ by a percent or so.
const SIZES: [u32; 2] = [65_537, 655_373];

/// Which server each slot leads to, by its index.
#[derive(Debug, PartialEq, Eq)]
pub struct Maglev {
    slots: Box<[u16]>,
}

/// A server as the table sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The hash of its address.
    pub identity: u64,
    pub weight: u32,
}

struct Candidate {
    index: u16,
    offset: u64,
    skip: u64,
    /// How many slots of its order it has looked at.
    looked: u64,
    weight: u64,
    /// What it may take yet, in parts of the heaviest's one slot a round.
    credit: u64,
}

impl Maglev {
    pub fn new(members: &[Member]) -> Self {
        let size = if members.len() * 100 <= SIZES[0] as usize { SIZES[0] } else { SIZES[1] };
        Self::of_size(members, u64::from(size))
    }

    /// Of so many slots: a prime.
    pub fn of_size(members: &[Member], size: u64) -> Self {
        let heaviest = members.iter().map(|member| u64::from(member.weight)).max().unwrap_or_default();
        let mut candidates: Vec<Candidate> = (0u16..)
            .zip(members)
            .filter(|(_, member)| member.weight > 0)
            .map(|(index, member)| Candidate {
                index,
                offset: hash::mixed(member.identity) % size,
                skip: hash::mixed(member.identity ^ 0x5bd1_e995) % (size - 1) + 1,
                looked: 0,
                weight: u64::from(member.weight),
                credit: 0,
            })
            .collect();
        if candidates.is_empty() {
            return Self { slots: Box::default() };
        }
        candidates.sort_by_key(|candidate| members[usize::from(candidate.index)].identity);
        const FREE: u16 = u16::MAX;
        let mut slots = vec![FREE; usize::try_from(size).unwrap_or_default()];
        let mut left = slots.len();
        'filling: loop {
            for candidate in &mut candidates {
                candidate.credit += candidate.weight;
                if candidate.credit < heaviest {
                    continue;
                }
                candidate.credit -= heaviest;
                // Its order goes through every slot, since the size is prime: it finds one as long as any is free.
                let slot = loop {
                    let slot = (candidate.offset + candidate.looked * candidate.skip) % size;
                    candidate.looked += 1;
                    if slots[slot as usize] == FREE {
                        break slot as usize;
                    }
                };
                slots[slot] = candidate.index;
                left -= 1;
                if left == 0 {
                    break 'filling;
                }
            }
        }
        Self { slots: slots.into() }
    }

    /// Who stands in each slot; none at all where nobody has any weight.
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }

    pub fn get(&self, hash: u64) -> Option<usize> {
        let slot = hash.checked_rem(self.slots.len() as u64)?;
        Some(usize::from(self.slots[slot as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members(weights: &[u32]) -> Vec<Member> {
        let identity = |index| hash::of(format!("10.0.0.{index}:8080").as_bytes());
        (1u32..).zip(weights).map(|(index, &weight)| Member { identity: identity(index), weight }).collect()
    }

    fn shares(table: &Maglev, count: usize) -> Vec<f64> {
        let mut slots = vec![0u32; count];
        table.slots.iter().for_each(|&index| slots[usize::from(index)] += 1);
        slots.iter().map(|&slots| f64::from(slots) / table.slots.len() as f64).collect()
    }

    #[test]
    fn shares_are_even_to_a_percent() {
        let table = Maglev::new(&members(&[1; 20]));
        for share in shares(&table, 20) {
            assert!((share - 0.05).abs() < 0.0005, "{share}");
        }
    }

    #[test]
    fn shares_follow_weights() {
        let table = Maglev::new(&members(&[1, 3, 6]));
        for (share, wanted) in shares(&table, 3).into_iter().zip([0.1, 0.3, 0.6]) {
            assert!((share - wanted).abs() < 0.005, "{share} instead of {wanted}");
        }
    }

    #[test]
    fn the_order_in_which_servers_are_written_does_not_matter() {
        let (one, mut other) = (members(&[1, 2, 3, 4]), members(&[1, 2, 3, 4]));
        other.reverse();
        let (table, mirrored) = (Maglev::new(&one), Maglev::new(&other));
        let same = table.slots.iter().zip(&mirrored.slots).all(|(a, b)| a + b == 3);
        assert!(same);
    }

    #[test]
    fn nobody_has_no_slots() {
        assert_eq!(Maglev::new(&[]).get(7), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn when_one_of_n_leaves_little_more_moves_than_what_was_its(count in 2usize..30, leaver in 0usize..30) {
            let leaver = leaver % count;
            let all = members(&vec![1; count]);
            let mut rest = all.clone();
            rest.remove(leaver);
            let (before, after) = (Maglev::new(&all), Maglev::new(&rest));
            let moved = before.slots.iter().zip(&after.slots).filter(|&(&was, &is)| {
                let was = usize::from(was);
                was != leaver && all[was] != rest[usize::from(is)]
            });
            // The paper's figure 12: with a hundred slots and more to a server, a few percent.
            let moved = moved.count() as f64 / before.slots.len() as f64;
            prop_assert!(moved < 0.05, "{moved} of the table moved though its server stayed, with {count} servers");
        }
    }
}
