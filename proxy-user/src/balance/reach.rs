//! Tiers and zones: who of a service's servers is in reach.
//!
//! The servers of the first tier get all work. While too few of them take any, the next tier's join them, and so on. Within
//! what is in reach, the servers of the host's own zone get all work, unless too few of those take any. Both go by
//! weight.

use super::Field;

/// What is worked out beforehand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Each server's place; empty: there is one tier and one zone, and everybody is in reach.
    places: Vec<Place>,
    tiers: usize,
    /// In percent: while less of the tiers in reach takes work, the next one joins. 0: while nobody of them does.
    tier_spill: u32,
    /// In percent: while less of the own zone takes work, the other zones join. 0: while nobody of it does.
    zone_spill: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// 0 for the first tier, whatever its number.
    tier: usize,
    /// In the host's own zone, or in none.
    near: bool,
}

/// Who is in reach at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InReach<'a> {
    places: &'a [Place],
    /// The last tier.
    tier: usize,
    near_only: bool,
}

/// Weights of those that take work, and of all.
#[derive(Default)]
struct Weighed {
    open: u64,
    all: u64,
}

impl Reach {
    /// `tiers` and `near` (in the host's own zone, or in none) are those of the servers, in their order.
    pub fn new(tiers: &[u32], near: &[bool], tier_spill: u32, zone_spill: u32) -> Self {
        let mut order: Vec<u32> = tiers.to_vec();
        order.sort_unstable();
        order.dedup();
        // A zone that has none of the servers is no reason to prefer any.
        let zones = near.iter().any(|near| *near) && !near.iter().all(|near| *near);
        if order.len() < 2 && !zones {
            return Self::default();
        }
        let place = |(tier, near): (&u32, &bool)| Place {
            tier: order.partition_point(|known| known < tier),
            near: !zones || *near,
        };
        let places = tiers.iter().zip(near).map(place).collect();
        Self { places, tiers: order.len(), tier_spill, zone_spill }
    }

    /// Who is in reach now; `None`: everybody.
    pub fn now(&self, field: &impl Field) -> Option<InReach<'_>> {
        if self.places.is_empty() {
            return None;
        }
        let weighed = |within: &dyn Fn(&Place) -> bool| {
            let mut weighed = Weighed::default();
            for (index, _) in self.places.iter().enumerate().filter(|(_, place)| within(place)) {
                let weight = u64::from(field.weight(index));
                weighed.all += weight;
                if field.takes_work(index) {
                    weighed.open += weight;
                }
            }
            weighed
        };
        let enough = |tier: &usize| weighed(&|place| place.tier <= *tier).is_enough(self.tier_spill);
        let tier = (0..self.tiers).find(enough).unwrap_or(self.tiers);
        let near = weighed(&|place| place.tier <= tier && place.near);
        Some(InReach { places: &self.places, tier, near_only: near.is_enough(self.zone_spill) })
    }
}

impl InReach<'_> {
    pub fn contains(self, index: usize) -> bool {
        self.places.get(index).is_none_or(|place| place.tier <= self.tier && (place.near || !self.near_only))
    }
}

impl Weighed {
    fn is_enough(&self, percent: u32) -> bool {
        self.open > 0 && self.open * 100 >= self.all * u64::from(percent)
    }
}
