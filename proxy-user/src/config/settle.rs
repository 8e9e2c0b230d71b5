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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// A version of a document: what it defines, what it needs, whether it is faulty in itself.
    type Text = (BTreeSet<u8>, BTreeSet<u8>, bool);

    /// A document's versions at its source and when it ran, and the group that it belongs to.
    type Case = (Option<Text>, Option<Text>, Option<usize>);

    fn slots(cases: &[Case]) -> Vec<Slot> {
        let slot = |(wanted, good, group): &Case| Slot {
            wanted: wanted.is_some(),
            good: good.is_some(),
            same: wanted.is_some() && wanted == good,
            group: *group,
        };
        cases.iter().map(slot).collect()
    }

    /// Whoever is faulty, or needs what nobody defines, is to blame; and nobody else.
    fn judged(cases: &[Case], own_needs: &BTreeSet<u8>, takes: &[Take]) -> Vec<Option<usize>> {
        let texts: Vec<_> = cases
            .iter()
            .zip(takes)
            .map(|((wanted, good, _), take)| match take {
                Take::Wanted => wanted.as_ref(),
                Take::Good => good.as_ref(),
                Take::Nothing => None,
            })
            .collect();
        let defined: BTreeSet<u8> =
            texts.iter().flatten().filter(|text| !text.2).flat_map(|text| &text.0).copied().collect();
        let faulty = |text: &Text| text.2 || !text.1.is_subset(&defined);
        let mut blamed: Vec<_> =
            (0..texts.len()).filter(|nth| texts[*nth].is_some_and(faulty)).map(Some).collect();
        if !own_needs.is_subset(&defined) {
            blamed.push(None);
        }
        blamed
    }

    fn settled(cases: &[Case], own_needs: &[u8]) -> Vec<Take> {
        let own = own_needs.iter().copied().collect();
        settle(&slots(cases), |takes| judged(cases, &own, takes))
    }

    fn text(defines: &[u8], needs: &[u8]) -> Option<Text> {
        Some((defines.iter().copied().collect(), needs.iter().copied().collect(), false))
    }

    fn faulty() -> Option<Text> {
        Some((BTreeSet::new(), BTreeSet::new(), true))
    }

    #[test]
    fn a_faulty_change_goes_back_and_a_faulty_newcomer_is_left_out_and_nothing_else() {
        let cases = [
            (text(&[1], &[]), text(&[2], &[]), None),
            (faulty(), text(&[3], &[]), None),
            (faulty(), None, None),
        ];
        assert_eq!(settled(&cases, &[]), [Take::Wanted, Take::Good, Take::Good]);
    }

    #[test]
    fn a_change_that_needs_a_faulty_one_goes_back_with_it() {
        let cases = [
            (faulty(), text(&[], &[]), None),
            (text(&[], &[7]), text(&[], &[]), None),
            (text(&[8], &[]), None, None),
        ];
        assert_eq!(settled(&cases, &[]), [Take::Good, Take::Good, Take::Wanted]);
    }

    #[test]
    fn what_others_need_stays_when_it_is_gone_at_its_source_and_other_changes_go_on() {
        let cases = [
            (None, text(&[1], &[]), None),
            (text(&[], &[1]), text(&[], &[1]), None),
            (text(&[5], &[]), text(&[4], &[]), None),
        ];
        assert_eq!(settled(&cases, &[]), [Take::Good, Take::Wanted, Take::Wanted]);
        // Also when it is the host's own configuration that needs it.
        assert_eq!(settled(&cases[..1], &[1]), [Take::Good]);
    }

    #[test]
    fn two_changes_that_need_each_other_are_taken_together() {
        let cases = [(text(&[1], &[]), text(&[], &[]), None), (text(&[], &[1]), text(&[1], &[]), None)];
        assert_eq!(settled(&cases, &[1]), [Take::Wanted, Take::Wanted]);
    }

    #[test]
    fn of_a_whole_all_or_nothing_is_taken() {
        let cases = [
            (text(&[1], &[]), text(&[2], &[]), Some(0)),
            (faulty(), text(&[3], &[]), Some(0)),
            (text(&[9], &[]), None, Some(0)),
            (text(&[4], &[]), text(&[], &[]), None),
        ];
        assert_eq!(settled(&cases, &[]), [Take::Good, Take::Good, Take::Good, Take::Wanted]);
    }

    #[test]
    fn what_ran_and_does_not_hold_any_more_is_left_out() {
        let cases = [(text(&[], &[1]), text(&[], &[1]), None), (text(&[], &[]), text(&[], &[]), None)];
        assert_eq!(settled(&cases, &[]), [Take::Nothing, Take::Wanted]);
    }

    fn any_text() -> impl Strategy<Value = Text> {
        let names = || proptest::collection::btree_set(0..6_u8, 0..3);
        (names(), names(), proptest::bool::weighted(0.2))
    }

    fn any_case() -> impl Strategy<Value = Case> {
        let any = || proptest::option::weighted(0.8, any_text());
        (any(), any(), proptest::option::weighted(0.3, Just(0_usize)))
            .prop_map(|(wanted, good, group)| (wanted, good, group))
    }

    proptest! {
        /// Nothing that ran is given up while it could go on, and whatever is chosen holds as far as documents can help it.
        #[test]
        fn a_choice_holds_and_gives_up_no_more_than_it_must(
            cases in proptest::collection::vec(any_case(), 0..7),
            own in proptest::collection::btree_set(0..6_u8, 0..2),
        ) {
            let judge = |takes: &[Take]| judged(&cases, &own, takes);
            let takes = settle(&slots(&cases), judge);
            prop_assert!(judge(&takes).iter().all(Option::is_none), "no document is faulty in {takes:?}");
            if judge(&vec![Take::Wanted; cases.len()]).is_empty() {
                prop_assert!(takes.iter().all(|take| *take == Take::Wanted));
            }
            if judge(&vec![Take::Good; cases.len()]).is_empty() {
                prop_assert!(judge(&takes).is_empty());
                prop_assert!(!takes.contains(&Take::Nothing));
            }
        }
    }
}
