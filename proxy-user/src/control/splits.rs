//! Weights of splits at run time, and their judges: `weir split`. Keeps the disk and what runs in step, notes what variants have
//! counted, and lets judges look when it is time.

mod taken;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    apply::Fleet,
    order::{Answer, JudgeOrder, Refusal, Split as Wanted},
};
use crate::{
    admin::status::splits,
    config::{
        model::{self, ServiceId},
        steps_of_judge,
    },
    journal::{Kind, Note},
    snapshot::Snapshot,
    variants::{
        MadeOf,
        figures::NOTE_EVERY,
        judge::{Decision, Judge, Plan},
        memory::Kept,
        running,
        split::Split,
    },
};

pub const HEAVIEST: u32 = 10_000;

#[derive(Debug)]
pub struct Splits {
    note: Instant,
    look: Instant,
    /// The snapshot that was looked at last, and what its configuration said.
    generation: u64,
    configured: BTreeMap<Arc<str>, Vec<(Arc<str>, u32)>>,
}

impl Splits {
    /// Takes up what judges were at. Weights that were set are in force already: the snapshot has them.
    pub fn at_start(fleet: &Fleet) -> Self {
        let (snapshot, now) = (fleet.running().load_full(), Timestamp::now());
        for (name, mut kept) in snapshot.splits.all() {
            if let Some(judge) = kept.judge.as_mut().filter(|judge| judge.is_running()) {
                judge.resume(now);
                tracing::info!("the judge of `{name}` goes on: {}", judge.told(now));
                snapshot.splits.hold(&name, kept);
            }
        }
        let begin = Instant::now();
        let mut splits = Self { note: begin, look: begin, generation: 0, configured: BTreeMap::new() };
        splits.look(fleet);
        splits
    }

    /// Resolves when it is time to look. Safe to cancel.
    pub async fn due(&self) {
        tokio::time::sleep_until(self.note.min(self.look)).await;
    }

    /// Notes what was counted, and lets judges look. Also to be called after each reload.
    pub fn look(&mut self, fleet: &Fleet) {
        let (snapshot, now) = (fleet.running().load_full(), Instant::now());
        if snapshot.generation != self.generation {
            self.generation = snapshot.generation;
            self.tell_what_is_shadowed(&snapshot);
        }
        if self.note <= now {
            for variant in all(&snapshot).flat_map(|split| &split.variants) {
                variant.figures.note(now.into_std());
            }
            self.note = now + NOTE_EVERY;
        }
        let next = judge_all(&snapshot, Timestamp::now());
        self.look = now + next.unwrap_or(NOTE_EVERY);
    }

    /// After a reload: judges begin with what runs now.
    pub fn keep_up(&mut self, fleet: &Fleet) {
        if fleet.generation() != self.generation {
            self.look(fleet);
        }
    }

    /// # Errors
    /// When it is refused; then nothing has changed.
    pub fn order(&mut self, wanted: &Wanted, fleet: &Fleet) -> Answer {
        let snapshot = fleet.running().load_full();
        let split = all(&snapshot)
            .find(|split| *split.name == *wanted.name)
            .ok_or_else(|| unknown(&snapshot, wanted))?;
        let now = Timestamp::now();
        let before = snapshot.splits.of(&split.name).unwrap_or_default();
        let running = before.judge.as_ref().is_some_and(Judge::is_running);
        let mut kept = before.clone();
        match (&wanted.judge, wanted.reset, wanted.stop) {
            (None, false, false) => {
                kept.weights = Some(weights(split, &wanted.weights)?);
                if running {
                    stop(&mut kept, "the weights were set by hand", now);
                } else {
                    // What an earlier one found has been heard.
                    kept.judge = None;
                }
            }
            (None, true, false) => kept = Kept::default(),
            (None, false, true) if running => stop(&mut kept, "by hand", now),
            (None, false, true) => {
                return Err(Refusal::Refused(format!("no judge is at work on `{}`", split.name)));
            }
            (Some(_), false, false) if running => {
                return Err(Refusal::Refused(format!(
                    "a judge is at work on `{}` already; `weir split {} --stop` stops it",
                    split.name, split.name
                )));
            }
            (Some(order), false, false) => {
                let plan = plan(split, configured(&snapshot, &split.name), order)?;
                let judge = Judge::new(plan, now);
                kept = Kept { weights: Some(shares(&judge)), judge: Some(judge) };
            }
            _ => return Err(faulty("either weights, or `--reset`, `--stop` or a judge: one at a time")),
        }
        let chosen = kept.weights.as_ref().and_then(|weights| running::fitting(split, weights));
        snapshot
            .splits
            .keep(&split.name, kept)
            .map_err(|why| Refusal::Refused(format!("nothing was changed: {why} (`[state] dir`)")))?;
        split.set(chosen);
        tracing::info!("the weights of `{}` are {}", split.name, told(split));
        let message = format!("the weights of `{}` are {}", split.name, told(split));
        Note::new(Kind::SplitSet, message).service(&*split.name).write();
        self.look = Instant::now();
        self.look(fleet);
        Ok(serde_json::json!({ "split": splits::of(split, &snapshot, std::time::Instant::now()) }))
    }

    /// Weights that were set hold against the configuration's: somebody who changes those should know.
    fn tell_what_is_shadowed(&mut self, snapshot: &Snapshot) {
        let mut configured = BTreeMap::new();
        for split in all(snapshot) {
            let names = split.variants.iter().map(|variant| variant.service.name.clone());
            let now: Vec<_> = names.zip(split.configured.iter().copied()).collect();
            let kept = snapshot.splits.of(&split.name).is_some_and(|kept| kept.weights.is_some());
            let changed = self.configured.get(&split.name).is_some_and(|before| *before != now);
            let name = &split.name;
            if kept && !split.weights().overridden {
                tracing::warn!(
                    "the variants of `{name}` are not those whose weights were set at run time: the configured weights \
                     hold; `weir split {name} --reset` forgets the others"
                );
            } else if kept && changed {
                tracing::warn!(
                    "the configured weights of `{name}` have changed, but those that were set at run time hold ({}); `weir \
                     split {name} --reset` makes the configured ones hold",
                    told(split)
                );
            }
            configured.insert(split.name.clone(), now);
        }
        self.configured = configured;
    }
}

/// All splits of a snapshot.
pub fn all(snapshot: &Snapshot) -> impl Iterator<Item = &Split> {
    snapshot.services.iter().filter_map(|service| match &service.made_of {
        Some(MadeOf::Split(split)) => Some(split),
        _ => None,
    })
}

/// The weight of a split's variant now, and the sum of all.
pub fn weight(snapshot: &Snapshot, split: &str, variant: &str) -> Option<(u32, u32)> {
    let split = all(snapshot).find(|known| *known.name == *split)?;
    let index = split.variants.iter().position(|known| *known.service.name == *variant)?;
    let weights = split.weights();
    Some((weights.each[index], weights.each.iter().sum()))
}

/// Lets all judges look, and says when the next one has to.
fn judge_all(snapshot: &Snapshot, now: Timestamp) -> Option<Duration> {
    let mut next: Option<Duration> = None;
    for (name, mut kept) in snapshot.splits.all() {
        let Some(judge) = kept.judge.as_mut().filter(|judge| judge.is_running()) else { continue };
        let split = all(snapshot).find(|split| *split.name == *name);
        let variants = split.and_then(|split| {
            let (new, old) = (split.variant(&judge.plan.variant)?, split.variant(&judge.plan.against)?);
            (split.variants.len() == 2).then_some((split, new, old))
        });
        let Some((split, new, old)) = variants else {
            judge.stop("the split is another one since the last reload", now);
            tracing::warn!("the judge of `{name}` {}", judge.told(now));
            judged(&name, judge, now);
            keep(snapshot, &name, kept);
            continue;
        };
        let counted = || (new.figures.counted(), old.figures.counted());
        let (counted_new, counted_old) = counted();
        let was = judge.state.clone();
        let decision = judge.look(now, &counted_new, &counted_old);
        match decision {
            Decision::Stay if judge.state == was => {
                next = earlier(next, judge.next_look(now));
                snapshot.splits.hold(&name, kept);
                continue;
            }
            Decision::Stay => tracing::warn!("the judge of `{name}` {}", judge.told(now)),
            Decision::Shift(_) => {
                kept.weights = Some(shares(judge));
                tracing::info!("the judge of `{name}`: {}", judge.told(now));
            }
            Decision::GoBack => {
                let weights = [(judge.plan.variant.clone(), 0), (judge.plan.against.clone(), 100)];
                kept.weights = Some(weights.into());
                tracing::error!("the judge of `{name}` {}", judge.told(now));
            }
            Decision::Finish => tracing::info!("the judge of `{name}` {}", judge.told(now)),
        }
        judged(&name, judge, now);
        split.set(kept.weights.as_ref().and_then(|weights| running::fitting(split, weights)));
        if let Some(judge) = kept.judge.as_mut().filter(|judge| judge.is_running()) {
            // The step begins with what was counted before it.
            let (new, old) = counted();
            judge.look(now, &new, &old);
            next = earlier(next, judge.next_look(now));
        }
        keep(snapshot, &name, kept);
    }
    next
}

/// Into the journal.
fn judged(split: &str, judge: &Judge, now: Timestamp) {
    let message = format!("the judge of `{split}`: {}", judge.told(now));
    Note::new(Kind::SplitJudged, message).service(split).write();
}

fn earlier(one: Option<Duration>, other: Duration) -> Option<Duration> {
    Some(one.map_or(other, |one| one.min(other)))
}

/// What a judge has decided holds also where the disk doesn't take it.
fn keep(snapshot: &Snapshot, name: &str, kept: Kept) {
    if let Err(why) = snapshot.splits.keep(name, kept.clone()) {
        tracing::error!("{why}: a restart would undo what the judge of `{name}` has decided");
        snapshot.splits.hold(name, kept);
    }
}

fn stop(kept: &mut Kept, why: &str, now: Timestamp) {
    if let Some(judge) = kept.judge.as_mut().filter(|judge| judge.is_running()) {
        judge.stop(why, now);
    }
}

fn shares(judge: &Judge) -> BTreeMap<String, u32> {
    let share = judge.share();
    [(judge.plan.variant.clone(), share), (judge.plan.against.clone(), 100 - share)].into()
}

fn told(split: &Split) -> String {
    let weights = split.weights();
    let each = split.variants.iter().zip(&weights.each);
    each.map(|(variant, weight)| format!("{}={weight}", variant.service.name)).collect::<Vec<_>>().join(" ")
}

fn faulty(sentence: impl Into<String>) -> Refusal {
    Refusal::Faulty(format!("error: {}", sentence.into()))
}

fn unknown(snapshot: &Snapshot, wanted: &Wanted) -> Refusal {
    let names: Vec<_> = all(snapshot).map(|split| format!("`{}`", split.name)).collect();
    let there =
        if names.is_empty() { "there is none".to_owned() } else { format!("there are {}", names.join(", ")) };
    Refusal::Refused(format!("there is no split `{}`; {there}", wanted.name))
}

/// A weight for each variant, and for nobody else.
fn weights(split: &Split, wanted: &BTreeMap<String, u32>) -> Result<BTreeMap<String, u32>, Refusal> {
    let names: Vec<_> = split.variants.iter().map(|variant| &*variant.service.name).collect();
    if let Some(unknown) = wanted.keys().find(|name| !names.contains(&name.as_str())) {
        return Err(faulty(format!(
            "`{unknown}` is none of the variants of `{}`: {}",
            split.name,
            names.join(", ")
        )));
    }
    if let Some(missing) = names.iter().find(|name| !wanted.contains_key(**name)) {
        return Err(faulty(format!(
            "say a weight for each variant: `{missing}` has none (`{missing}=0` for no requests)"
        )));
    }
    if wanted.values().any(|weight| *weight > HEAVIEST) || wanted.values().all(|weight| *weight == 0) {
        return Err(faulty(format!("weights go from 0 to {HEAVIEST}, and at least one is more than 0")));
    }
    Ok(wanted.clone())
}

/// The judge that is configured for a split.
fn configured<'s>(snapshot: &'s Snapshot, name: &str) -> Option<(&'s model::Judge, &'s Arc<str>)> {
    let services = &snapshot.config.services;
    let service = services.iter().find(|service| *service.name == *name)?;
    match &service.made_of {
        Some(model::MadeOf::Split(model::Split { judge: Some(judge), .. })) => {
            Some((judge, &services[judge.variant.0].name))
        }
        _ => None,
    }
}

/// What was ordered, before what is configured, before what holds by default.
fn plan(
    split: &Split,
    configured: Option<(&model::Judge, &Arc<str>)>,
    order: &JudgeOrder,
) -> Result<Plan, Refusal> {
    let [one, other] = &*split.variants else {
        return Err(faulty(format!(
            "`{}` has not two variants: a judge judges the new one by the old one",
            split.name
        )));
    };
    let names = [one, other].map(|variant| variant.service.name.to_string());
    let new = match (&order.variant, configured) {
        (Some(name), _) => name.clone(),
        (None, Some((_, name))) => name.to_string(),
        (None, None) => {
            let weights = split.weights();
            match weights.each[0].cmp(&weights.each[1]) {
                std::cmp::Ordering::Less => names[0].clone(),
                std::cmp::Ordering::Greater => names[1].clone(),
                std::cmp::Ordering::Equal => {
                    let [one, other] = &names;
                    return Err(faulty(format!(
                        "which one is new? `--variant {one}` or `--variant {other}`"
                    )));
                }
            }
        }
    };
    let Some(against) = names.iter().find(|name| **name != new).filter(|_| names.contains(&new)) else {
        return Err(faulty(format!(
            "`{new}` is none of the variants of `{}`: {}",
            split.name,
            names.join(", ")
        )));
    };
    let by_default = model::Judge::by_default(ServiceId(0));
    let base = configured.map_or(&by_default, |(judge, _)| judge);
    let every = order.every_ms.map_or(base.every, Duration::from_millis);
    let confidence = order.confidence.unwrap_or(base.confidence);
    let min_samples = order.min_samples.unwrap_or(base.min_samples);
    if !(Duration::from_secs(1)..=Duration::from_secs(720 * 3600)).contains(&every) {
        return Err(faulty("a step takes from 1s to 720h"));
    }
    if !(5_000..=9_999).contains(&confidence) {
        return Err(faulty("the confidence goes from 50% to 99.99%"));
    }
    if min_samples < 10 {
        return Err(faulty("fewer than 10 requests tell nothing"));
    }
    let steps = order.steps.clone().unwrap_or_else(|| base.steps.clone());
    Ok(Plan {
        variant: new.clone(),
        against: against.clone(),
        steps: steps_of_judge(steps).map_err(faulty)?,
        every,
        margin_errors: order.margin_errors.unwrap_or(base.margin_errors),
        margin_latency: order.margin_latency.unwrap_or(base.margin_latency),
        confidence,
        min_samples,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{acme::Board, config};

    const CONFIG: &str = "
[entrypoint.web]
bind = '127.0.0.1:8080'
[service.app]
servers = '10.0.0.1:80'
[service.old]
servers = '10.0.0.2:80'
[service.shop]
split = { app = 20, old = 80 }
judge = { variant = 'app', every = '1h', steps = ['7', '100'] }
[[route]]
service = 'shop'
[state]
dir = 'STATE'
";

    fn snapshot(text: &str, before: Option<&Snapshot>) -> Snapshot {
        let loaded = config::load_text(std::path::Path::new("weir.toml"), text);
        let config = Arc::new(loaded.unwrap_or_else(|report| panic!("{report}")).config);
        Snapshot::new(config, &Arc::<Board>::default(), before).unwrap()
    }

    fn the_split(snapshot: &Snapshot) -> &Split {
        all(snapshot).next().unwrap()
    }

    #[test]
    fn weights_that_were_set_hold_over_reloads_and_restarts_until_the_variants_are_others() {
        let folder = tempfile::tempdir().unwrap();
        let text = CONFIG.replace("STATE", folder.path().to_str().unwrap());
        let first = snapshot(&text, None);
        assert_eq!(told(the_split(&first)), "app=20 old=80");
        let set = Kept { weights: Some([("app".into(), 1), ("old".into(), 3)].into()), judge: None };
        first.splits.keep("shop", set).unwrap();
        the_split(&first).variants[0].figures.answered(Duration::from_millis(1));

        let reloaded = snapshot(&text.replace("app = 20", "app = 50"), Some(&first));
        assert_eq!(told(the_split(&reloaded)), "app=1 old=3");
        assert_eq!(*the_split(&reloaded).configured, [50, 80]);
        assert_eq!(the_split(&reloaded).variants[0].figures.counted().requests(), 1, "figures go on");
        assert_eq!(told(the_split(&snapshot(&text, None))), "app=1 old=3");

        let other = format!("{text}[service.third]\nservers = '10.0.0.3:80'\n")
            .replace("old = 80", "old = 80, third = 1")
            .replace("judge = {", "# judge = {");
        assert_eq!(told(the_split(&snapshot(&other, Some(&first)))), "app=20 old=80 third=1");
    }

    #[test]
    fn an_order_goes_before_the_configuration_and_that_before_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let text = CONFIG.replace("STATE", folder.path().to_str().unwrap());
        let with = snapshot(&text, None);
        let judge = configured(&with, "shop");
        let made = plan(the_split(&with), judge, &JudgeOrder::default()).unwrap();
        assert_eq!((&*made.variant, &*made.against, &*made.steps), ("app", "old", &[7, 100][..]));
        assert_eq!((made.every, made.confidence), (Duration::from_secs(3600), 9500));
        let order = JudgeOrder { variant: Some("old".into()), every_ms: Some(2000), ..JudgeOrder::default() };
        let made = plan(the_split(&with), judge, &order).unwrap();
        assert_eq!((&*made.variant, made.every), ("old", Duration::from_secs(2)));
        let made = plan(the_split(&with), None, &JudgeOrder::default()).unwrap();
        assert_eq!((&*made.variant, made.steps.len()), ("app", 5), "the one with the smaller share is new");
        for wrong in [
            JudgeOrder { variant: Some("third".into()), ..JudgeOrder::default() },
            JudgeOrder { steps: Some(vec![100]), ..JudgeOrder::default() },
            JudgeOrder { steps: Some(vec![20, 10]), ..JudgeOrder::default() },
            JudgeOrder { every_ms: Some(10), ..JudgeOrder::default() },
            JudgeOrder { confidence: Some(10_000), ..JudgeOrder::default() },
        ] {
            assert!(plan(the_split(&with), judge, &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_judge_whose_variant_fails_takes_its_requests_away_and_a_restart_knows() {
        let folder = tempfile::tempdir().unwrap();
        let text = CONFIG.replace("STATE", folder.path().to_str().unwrap());
        let runs = snapshot(&text, None);
        let split = the_split(&runs);
        let began = Timestamp::now();
        let judge =
            Judge::new(plan(split, configured(&runs, "shop"), &JudgeOrder::default()).unwrap(), began);
        runs.splits.keep("shop", Kept { weights: Some(shares(&judge)), judge: Some(judge) }).unwrap();
        assert!(judge_all(&runs, began).is_some());
        for _ in 0..200 {
            split.variants[0].figures.failed(crate::variants::figures::Failure::Status);
            split.variants[1].figures.answered(Duration::from_millis(1));
        }
        assert_eq!(judge_all(&runs, began + Duration::from_secs(400)), None);
        assert_eq!(told(split), "app=0 old=100");
        let restarted = snapshot(&text, None);
        assert_eq!(told(the_split(&restarted)), "app=0 old=100");
        let judge = restarted.splits.of("shop").unwrap().judge.unwrap();
        assert!(judge.told(began).contains("WENT BACK"), "{}", judge.told(began));
    }

    #[test]
    fn a_weight_is_wanted_for_each_variant_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let runs = snapshot(&CONFIG.replace("STATE", folder.path().to_str().unwrap()), None);
        let ask = |pairs: &[(&str, u32)]| {
            let wanted = pairs.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
            weights(the_split(&runs), &wanted).map_err(|refusal| refusal.to_string())
        };
        assert!(ask(&[("app", 0), ("old", 1)]).is_ok());
        for (pairs, why) in [
            (&[("app", 1)][..], "`old` has none"),
            (&[("app", 1), ("old", 1), ("odl", 1)], "`odl` is none of the variants"),
            (&[("app", 0), ("old", 0)], "at least one is more than 0"),
            (&[("app", 10_001), ("old", 0)], "from 0 to 10000"),
        ] {
            let refused = ask(pairs).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
