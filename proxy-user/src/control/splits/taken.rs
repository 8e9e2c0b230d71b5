//! Weights of splits that were set at other hosts of the fleet: by an operator, or by a judge at work there.

use jiff::Timestamp;

use super::{Splits, all, stop, told};
use crate::{
    control::apply::Fleet,
    fleet::shared::{ledger::Word, switch::Switch},
    journal::{Kind, Note},
    variants::{memory::Kept, running},
};

impl Splits {
    /// Takes up what was set elsewhere. What became of each, in order. A judge that is at work here gives way to it. Splits and variants
    /// that this host doesn't have (yet) are no fault.
    pub fn take(&mut self, words: &[&Word], fleet: &Fleet) -> Vec<Result<(), String>> {
        words.iter().map(|word| self.take_one(word, fleet)).collect()
    }

    fn take_one(&mut self, word: &Word, fleet: &Fleet) -> Result<(), String> {
        let snapshot = fleet.running().load_full();
        let (name, weights) = match &word.switch {
            Some(Switch::Split { name, weights }) => (name.as_str(), Some(weights.clone())),
            _ => (word.name.trim_start_matches("splits/"), None),
        };
        let by = word.host.as_deref().unwrap_or("another host");
        let mut kept = snapshot.splits.of(name).unwrap_or_default();
        if kept.weights == weights {
            return Ok(());
        }
        stop(&mut kept, &format!("the weights were set at {by}"), Timestamp::now());
        kept = match weights {
            Some(weights) => Kept { weights: Some(weights), judge: kept.judge },
            None => Kept::default(),
        };
        let weights = kept.weights.clone();
        snapshot.splits.keep(name, kept).map_err(|why| format!("{why} (`[state] dir`)"))?;
        if let Some(split) = all(&snapshot).find(|split| *split.name == *name) {
            split.set(weights.as_ref().and_then(|weights| running::fitting(split, weights)));
            let message = format!("the weights of `{name}` are {}", told(split));
            tracing::info!("{message} (set at {by})");
            Note::new(Kind::SplitSet, message).service(name).host(word.host.as_deref()).write();
        }
        Ok(())
    }
}
