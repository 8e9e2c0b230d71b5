//! The ways of balancing, tried with servers that are made up.

use proptest::prelude::*;

use super::{
    maglev::{Maglev, Member},
    *,
};

#[derive(Debug, Clone, Copy)]
struct Made {
    weight: u32,
    active: u32,
    latency: f32,
    warmth: f32,
    up: bool,
}

const USUAL: Made = Made { weight: 1, active: 0, latency: 1000.0, warmth: 1.0, up: true };

impl Field for Vec<Made> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn weight(&self, index: usize) -> u32 {
        self[index].weight
    }

    fn active(&self, index: usize) -> u32 {
        self[index].active
    }

    fn latency(&self, index: usize) -> f32 {
        self[index].latency
    }

    fn warmth(&self, index: usize) -> f32 {
        self[index].warmth
    }

    fn takes_work(&self, index: usize) -> bool {
        self[index].up
    }
}

fn shares_of(field: &[Made]) -> Shares {
    Shares::new(&field.iter().map(|made| made.weight).collect::<Vec<_>>())
}

fn by_hash(field: &[Made], bound: Option<u32>) -> Way {
    let member = |(index, made): (usize, &Made)| Member {
        identity: hash::of(format!("10.0.0.{index}:80").as_bytes()),
        weight: made.weight,
    };
    let members: Vec<_> = field.iter().enumerate().map(member).collect();
    Way::Hash { table: Arc::new(Maglev::new(&members)), bound }
}

/// Dice that fall the same way in every run.
fn dice() -> impl FnMut() -> u64 {
    let mut thrown = 0u64;
    move || {
        thrown += 1;
        hash::mixed(thrown)
    }
}

/// How often each server is picked, of so many requests.
fn picks(way: &Way, field: &Vec<Made>, requests: usize) -> Vec<usize> {
    within(way, field, &Reach::default(), requests)
}

fn within(way: &Way, field: &Vec<Made>, reach: &Reach, requests: usize) -> Vec<usize> {
    let (shares, mut dice) = (shares_of(field), dice());
    let mut picked = vec![0; field.len()];
    for turn in 0..requests {
        let ask = Ask { turn, hash: hash::of(&turn.to_le_bytes()), tried: Tried::default() };
        if let Some(index) = pick(way, &shares, reach, field, ask, &mut dice) {
            picked[index] += 1;
        }
    }
    picked
}

fn all_ways(field: &[Made]) -> [Way; 5] {
    [Way::RoundRobin, Way::LeastRequests, Way::Latency, by_hash(field, None), by_hash(field, Some(125))]
}

#[test]
fn turns_go_around_evenly() {
    let field = vec![USUAL; 3];
    assert_eq!(picks(&Way::RoundRobin, &field, 6), [2, 2, 2]);
}

#[test]
fn idle_servers_get_shares_by_their_weights_whatever_the_way() {
    let field = vec![USUAL, Made { weight: 2, ..USUAL }, Made { weight: 5, ..USUAL }];
    for way in [Way::RoundRobin, Way::LeastRequests, Way::Latency, by_hash(&field, None)] {
        let picked = picks(&way, &field, 8_000);
        for (picked, wanted) in picked.iter().zip([1000.0, 2000.0, 5000.0]) {
            // The same server can't be drawn twice, so of two choices the heaviest is a little short of its share.
            let off = (*picked as f64 - wanted).abs() / 8000.0;
            assert!(off < 0.08, "{}: {picked} instead of {wanted}", way.name());
        }
    }
}

#[test]
fn servers_that_are_down_or_were_tried_are_passed_over() {
    let field = vec![USUAL, Made { up: false, ..USUAL }, USUAL];
    let mut tried = Tried::default();
    tried.insert(0);
    for way in all_ways(&field) {
        let shares = shares_of(&field);
        for turn in 0..50 {
            let mut ask = Ask { turn, hash: turn as u64, tried };
            assert_eq!(pick(&way, &shares, &Reach::default(), &field, ask, &mut dice()), Some(2));
            ask.tried.insert(2);
            assert_eq!(pick(&way, &shares, &Reach::default(), &field, ask, &mut dice()), None);
        }
    }
}

#[test]
fn no_servers_give_none() {
    for way in all_ways(&[]) {
        let picked = pick(&way, &shares_of(&[]), &Reach::default(), &vec![], Ask::default(), &mut dice());
        assert_eq!(picked, None, "{}", way.name());
    }
}

#[test]
fn what_a_server_that_is_down_would_have_got_goes_to_all_the_others() {
    let field = vec![USUAL, Made { up: false, ..USUAL }, USUAL, USUAL];
    for way in all_ways(&field) {
        for (index, picked) in picks(&way, &field, 9_000).into_iter().enumerate() {
            let wanted = if index == 1 { 0.0 } else { 3000.0 };
            assert!((picked as f64 - wanted).abs() < 300.0, "{}: {index} got {picked}", way.name());
        }
    }
}

#[test]
fn of_two_the_idle_one_is_preferred() {
    let field = vec![Made { active: 9, ..USUAL }, USUAL];
    assert_eq!(picks(&Way::LeastRequests, &field, 100), [0, 100]);
    // Nine under way are little for a weight of a hundred.
    let field = vec![Made { active: 9, weight: 100, ..USUAL }, Made { active: 1, ..USUAL }];
    assert_eq!(picks(&Way::LeastRequests, &field, 100), [100, 0]);
}

#[test]
fn a_slow_server_is_avoided_and_so_is_one_that_has_much_to_do() {
    let slow = Made { latency: 50_000.0, ..USUAL };
    assert_eq!(picks(&Way::Latency, &vec![slow, USUAL], 100), [0, 100]);
    // Of three, the slow one is never the better of two.
    let picked = picks(&Way::Latency, &vec![slow, USUAL, USUAL], 1000);
    assert_eq!(picked[0], 0, "{picked:?}");
    let busy = Made { active: 99, ..USUAL };
    assert_eq!(picks(&Way::Latency, &vec![busy, slow], 100), [0, 100]);
}

#[test]
fn a_server_that_comes_up_gets_a_tenth_first() {
    let field = vec![USUAL, Made { warmth: 0.1, ..USUAL }];
    for way in [Way::RoundRobin, Way::LeastRequests, by_hash(&field, None)] {
        let picked = picks(&way, &field, 11_000);
        assert!((500..2_300).contains(&picked[1]), "{}: {picked:?}", way.name());
    }
    // Where everybody comes up at a time, nobody waits.
    let field = vec![Made { warmth: 0.1, ..USUAL }; 2];
    for way in all_ways(&field) {
        let picked = picks(&way, &field, 1000);
        assert!(picked.iter().all(|picked| (400..600).contains(picked)), "{}: {picked:?}", way.name());
    }
}

#[test]
fn a_key_keeps_its_server_and_only_those_of_a_dead_one_move() {
    let field = vec![USUAL; 10];
    let mut without = field.clone();
    without[3].up = false;
    let (way, shares) = (by_hash(&field, None), shares_of(&field));
    let at = |field: &Vec<Made>, hash| {
        let ask = Ask { hash, ..Ask::default() };
        pick(&way, &shares, &Reach::default(), field, ask, &mut dice())
    };
    for key in 0..5_000u64 {
        let (before, after) = (at(&field, key), at(&without, key));
        assert_eq!(before, at(&field, key));
        assert!(before == Some(3) && after != Some(3) || before == after, "{key}: {before:?} → {after:?}");
    }
}

#[test]
fn a_warming_server_takes_its_keys_over_one_by_one_and_for_good() {
    let field = |warmth| vec![USUAL, Made { warmth, ..USUAL }];
    let (way, shares) = (by_hash(&field(1.0), None), shares_of(&field(1.0)));
    for key in 0..500u64 {
        let at = |warmth| {
            let ask = Ask { hash: key, ..Ask::default() };
            pick(&way, &shares, &Reach::default(), &field(warmth), ask, &mut dice())
        };
        let steps: Vec<_> = (1..=10u8).map(|tenth| at(f32::from(tenth) / 10.0)).collect();
        let moves = steps.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(moves <= 1, "{key}: {steps:?}");
    }
}

#[test]
fn one_popular_key_does_not_bury_a_server_where_there_is_a_bound() {
    let mut field = vec![USUAL; 4];
    let (way, shares) = (by_hash(&field, Some(125)), shares_of(&field));
    for _ in 0..400 {
        let ask = Ask { hash: 42, ..Ask::default() };
        let index = pick(&way, &shares, &Reach::default(), &field, ask, &mut dice()).unwrap();
        field[index].active += 1;
    }
    let most = field.iter().map(|made| made.active).max().unwrap();
    assert!(most <= 126, "one has {most} of 400");
}

#[test]
fn lower_tiers_get_work_only_when_too_few_above_are_left() {
    let down = Made { up: false, ..USUAL };
    let reach = Reach::new(&[1, 1, 2, 3], &[true; 4], 0, 50);
    let at = |field: [Made; 4]| {
        let picked = within(&Way::RoundRobin, &field.to_vec(), &reach, 400);
        picked.into_iter().map(|picked| picked > 0).collect::<Vec<_>>()
    };
    assert_eq!(at([USUAL, USUAL, USUAL, USUAL]), [true, true, false, false]);
    assert_eq!(at([USUAL, down, USUAL, USUAL]), [true, false, false, false]);
    assert_eq!(at([down, down, USUAL, USUAL]), [false, false, true, false]);
    assert_eq!(at([down, down, down, USUAL]), [false, false, false, true]);
    assert_eq!(at([down; 4]), [false; 4]);

    // With a share, they join earlier.
    let reach = Reach::new(&[1, 1, 2, 3], &[true; 4], 60, 50);
    let picked = within(&Way::RoundRobin, &vec![USUAL, down, USUAL, USUAL], &reach, 400);
    assert!(picked[0] > 100 && picked[2] > 100 && picked[3] == 0, "{picked:?}");
}

#[test]
fn the_own_zone_is_preferred_until_too_little_of_it_is_left() {
    let down = Made { up: false, ..USUAL };
    let reach = Reach::new(&[1; 5], &[true, true, true, false, false], 0, 50);
    let at = |field: [Made; 5]| within(&Way::RoundRobin, &field.to_vec(), &reach, 500);
    assert_eq!(at([USUAL; 5])[3..], [0, 0]);
    assert_eq!(at([USUAL, USUAL, down, USUAL, USUAL])[3..], [0, 0]);
    let spilling = at([USUAL, down, down, USUAL, USUAL]);
    assert!(spilling[0] > 100 && spilling[3] > 100 && spilling[4] > 100, "{spilling:?}");
    // A zone without servers is nobody's own.
    assert_eq!(Reach::new(&[1; 2], &[false, false], 0, 50), Reach::default());
}

#[test]
fn a_request_that_all_in_reach_have_failed_goes_further() {
    let reach = Reach::new(&[1, 2], &[true; 2], 0, 50);
    let field = vec![USUAL; 2];
    let mut tried = Tried::default();
    tried.insert(0);
    let ask = Ask { tried, ..Ask::default() };
    assert_eq!(pick(&Way::RoundRobin, &shares_of(&field), &reach, &field, ask, &mut dice()), Some(1));
}

#[test]
fn a_request_comes_to_an_end_also_where_there_are_very_many_servers() {
    let field = vec![USUAL; 300];
    for way in all_ways(&field) {
        let mut ask = Ask { hash: 7, ..Ask::default() };
        let mut dice = dice();
        let tries = (0..1000).take_while(|_| {
            let picked = pick(&way, &shares_of(&field), &Reach::default(), &field, ask, &mut dice);
            picked.inspect(|&index| ask.tried.insert(index)).is_some()
        });
        assert_eq!(tries.count(), 128, "{}", way.name());
    }
}

proptest! {
    #[test]
    fn whoever_is_picked_takes_work_and_was_not_tried(
        made in proptest::collection::vec((1u32..=256, 0u32..50, 0.0f32..1e6, 0.1f32..=1.0, any::<bool>()), 0..20),
        tried in any::<u32>(),
        turn in any::<usize>(),
        key in any::<u64>(),
        tiers in proptest::collection::vec(1u32..4, 20),
        near in proptest::collection::vec(any::<bool>(), 20),
        spill in 0u32..=100,
    ) {
        let field: Vec<Made> = made
            .into_iter()
            .map(|(weight, active, latency, warmth, up)| Made { weight, active, latency, warmth, up })
            .collect();
        let reach = Reach::new(&tiers[..field.len()], &near[..field.len()], spill, spill);
        let tried = Tried(u128::from(tried));
        let open = (0..field.len()).any(|index| field[index].up && !tried.contains(index));
        for way in all_ways(&field) {
            let ask = Ask { turn, hash: key, tried };
            let picked = pick(&way, &shares_of(&field), &reach, &field, ask, &mut dice());
            prop_assert_eq!(picked.is_some(), open, "{}", way.name());
            if let Some(index) = picked {
                prop_assert!(field[index].up && !tried.contains(index));
            }
        }
    }
}
