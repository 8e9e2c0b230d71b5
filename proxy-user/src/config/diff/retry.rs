//! What changes of `retry` and `hedge`.

use super::{Keys, joined};
use crate::config::{
    model::{Hedge, HedgeAfter, Retry},
    value::{show, show_size},
};

pub fn service(retry: &Retry, hedge: Option<&Hedge>, keys: &mut Keys) {
    let Retry { attempts, within, buffer, methods, statuses, budget, backoff } = retry;
    let range = |range: &std::ops::RangeInclusive<u16>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    keys.extend([
        ("retry.attempts", attempts.to_string()),
        ("retry.within", show(*within)),
        ("retry.buffer", show_size(*buffer as u64)),
        ("retry.statuses", joined(statuses.iter().map(range))),
        ("retry.budget", format!("{budget}%")),
        ("retry.backoff", show(*backoff)),
    ]);
    if !methods.is_empty() {
        keys.insert("retry.methods", joined(methods));
    }
    if let Some(Hedge { after, most }) = hedge {
        let after = match after {
            HedgeAfter::Delay(delay) => show(*delay),
            HedgeAfter::Quantile(percent) => format!("p{percent}"),
        };
        keys.extend([("hedge.after", after), ("hedge.most", format!("{most}%"))]);
    }
}
