//! Which version of each document is taken, when not all can be as their sources have them. Pure: whether a choice holds
//! is for a judge to say.
//!
//! 1. All as their sources have them, if that holds.
//! 2. A document that is to blame, and has changed, goes back to its last good version; a new one is left out.
//! 3. What is to blame hasn't changed: then something else that did takes away what it needs. All changes go back, and
//!    come in again one by one, as far as they hold.
//! 4. Even what ran before doesn't hold any more, since the host or its own configuration has changed: then what is to
//!    blame is left out.

/// The version that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// As the source has it. That may be: not at all.
    Wanted,
    /// As it ran last. That may be: not at all.
    Good,
    Nothing,
}

/// A document, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Its source has it.
    pub wanted: bool,
    /// It ran, or runs.
    pub good: bool,
    /// Both are the same.
    pub same: bool,
    /// All slots of a group change together.
    pub group: Option<usize>,
}

/// In step 3, changes that are tried by themselves: each costs a whole validation.
const TRIED: usize = 32;

/// The choice that holds, if there is one. `judge` says which slots are to blame for faults, `None` for what is none; nobody:
/// the choice holds.
pub fn settle(slots: &[Slot], mut judge: impl FnMut(&[Take]) -> Vec<Option<usize>>) -> Vec<Take> {
    let mut takes = vec![Take::Wanted; slots.len()];
    let mut blamed = judge(&takes);
    // 2. Those that are to blame.
    while !blamed.is_empty() {
        let guilty: Vec<_> =
            blamed.iter().flatten().copied().filter(|slot| takes[*slot] == Take::Wanted).collect();
        let moved = guilty.iter().filter(|slot| go_back(slots, **slot, &mut takes)).count();
        if moved == 0 {
            break;
        }
        blamed = judge(&takes);
    }
    if blamed.is_empty() {
        return takes;
    }

    // 3. All that has changed, and then one by one.
    let changes: Vec<_> = (0..slots.len()).filter(|slot| takes[*slot] == Take::Wanted).collect();
    let mut back = takes.clone();
    let units: Vec<_> = changes.into_iter().filter(|slot| go_back(slots, *slot, &mut back)).collect();
    if !units.is_empty() && judge(&back).is_empty() {
        bring_in(slots, &units, &mut back, &mut judge);
        return back;
    }

    // 4. Those that were well before.
    while !blamed.is_empty() {
        let mut moved = false;
        for slot in blamed.iter().flatten() {
            moved |= takes[*slot] != Take::Nothing;
            takes[*slot] = Take::Nothing;
        }
        if !moved {
            break;
        }
        blamed = judge(&takes);
    }
    takes
}

/// To the last good version, with its whole group. Says whether that is any other.
fn go_back(slots: &[Slot], slot: usize, takes: &mut [Take]) -> bool {
    let together = |other: usize| {
        other == slot || (slots[slot].group.is_some() && slots[other].group == slots[slot].group)
    };
    let mut moved = false;
    for other in (0..slots.len()).filter(|other| together(*other)) {
        let Slot { wanted, good, same, .. } = slots[other];
        if takes[other] == Take::Wanted && (wanted || good) && !same {
            takes[other] = Take::Good;
            moved = true;
        }
    }
    moved
}

/// Of the changes that went back, those that hold. Twice, since one may need another that comes after it.
fn bring_in(
    slots: &[Slot],
    units: &[usize],
    takes: &mut Vec<Take>,
    judge: &mut impl FnMut(&[Take]) -> Vec<Option<usize>>,
) {
    // A single one is what it was about.
    if units.len() == 1 || units.len() > TRIED {
        return;
    }
    for slot in units.iter().chain(units).copied() {
        if takes[slot] == Take::Wanted {
            continue;
        }
        let mut tried = takes.clone();
        tried[slot] = Take::Wanted;
        for other in 0..slots.len() {
            let together = slots[slot].group.is_some() && slots[other].group == slots[slot].group;
            if together {
                tried[other] = Take::Wanted;
            }
        }
        if judge(&tried).is_empty() {
            *takes = tried;
        }
    }
}
