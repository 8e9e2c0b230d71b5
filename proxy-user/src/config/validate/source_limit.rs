//! `source_limit` of an entrypoint.

use std::time::Duration;

use super::{
    merge::{Item, Merged},
    scalar,
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{Config, KernelMode, Rate, SourceLimit},
    source::FileId,
    value,
    written::{self, At},
};

/// How many may come at once, at most.
const MOST_AT_ONCE: u32 = 10_000_000;

pub fn of(item: &Item<'_, written::Entrypoint>, findings: &mut Findings) -> Option<SourceLimit> {
    let limit = item.body.source_limit.as_ref()?;
    let what = |key: &str| format!("entrypoint `{}`: source_limit.{key}", item.name.value);
    let written = &limit.value;
    let mut of = |key: &str, burst_key: &str, rate: Option<&At<String>>, burst: Option<&At<i64>>| {
        let Some(rate) = rate else {
            if let Some(burst) = burst {
                let message = format!("{} says nothing without `{key}`", what(burst_key));
                findings
                    .error(Code::Contradiction, item.file, &burst.span, message)
                    .hint(format!("write `{key} = \"50/s\"`, or take `{burst_key}` out"));
            }
            return None;
        };
        let (count, per) = self::rate(item.file, &what(key), rate, findings)?;
        let usual = usual_burst(count, per);
        let burst = scalar::count(item.file, &what(burst_key), burst, usual, 1..=MOST_AT_ONCE, findings);
        Some(Rate { count, per, burst })
    };
    let packets = of("packets", "packet_burst", written.packets.as_ref(), written.packet_burst.as_ref());
    let connections = of(
        "connections",
        "connection_burst",
        written.connections.as_ref(),
        written.connection_burst.as_ref(),
    );
    if written.packets.is_none() && written.connections.is_none() {
        if !findings.lost(&format!("entrypoint.{}.source_limit", item.name.value)) {
            let message = format!("entrypoint `{}`: `source_limit` limits nothing", item.name.value);
            findings
                .error(Code::Missing, item.file, &limit.span, message)
                .hint("write `connections = \"50/s\"`, `packets = \"20000/s\"`, or both");
        }
        return None;
    }
    let cdn = written.cdn.as_ref().is_some_and(|cdn| cdn.value);
    Some(SourceLimit { packets, connections, cdn })
}

/// Says which limits nobody would ever meet.
pub fn that_never_apply(written: &Merged<'_>, config: &Config, findings: &mut Findings) {
    let no_gate = config.kernel.interfaces.is_empty() || config.kernel.mode == KernelMode::Off;
    for (item, entrypoint) in written.entrypoints.items.iter().zip(&config.entrypoints) {
        let (Some(limit), Some(key)) = (entrypoint.source_limit, item.body.source_limit.as_ref()) else {
            continue;
        };
        let (name, allow) = (&item.name.value, &entrypoint.allow);
        if !limit.cdn && !allow.is_empty() && allow.iter().all(|list| config.allowlists[list.0].cdn) {
            let message = format!(
                "entrypoint `{name}`: `source_limit` never applies, since all that it allows are a CDN's and are spared"
            );
            findings
                .warning(Code::NeverApplies, item.file, &key.span, message)
                .hint("take it out, or add `cdn = true` to it to limit each of the CDN's addresses");
        } else if no_gate {
            let message = format!(
                "entrypoint `{name}`: `source_limit` is not enforced: the gate is attached nowhere, and it alone counts"
            );
            findings
                .warning(Code::NeverApplies, item.file, &key.span, message)
                .hint("name interfaces, `[kernel] interfaces = [\"eth0\"]`, or take `source_limit` out");
        }
    }
}

fn rate(file: FileId, what: &str, written: &At<String>, findings: &mut Findings) -> Option<(u32, Duration)> {
    value::rate(&written.value)
        .map_err(|refusal| {
            scalar::refused(file, Code::BadRate, &format!("{what}:"), written, refusal, findings);
        })
        .ok()
}

/// What two seconds bring.
fn usual_burst(count: u32, per: Duration) -> u32 {
    let of_two_seconds = u64::from(count) * 2 / per.as_secs().max(1);
    u32::try_from(of_two_seconds).unwrap_or(u32::MAX).clamp(default::LEAST_BURST, MOST_AT_ONCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_two_seconds_worth_and_never_tiny() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        for (count, per, burst) in [
            (50, second, 100),
            (1, second, 10),
            (1_000_000, second, 2_000_000),
            (600, minute, 20),
            (1, minute, 10),
        ] {
            assert_eq!(usual_burst(count, per), burst, "{count} per {per:?}");
        }
    }
}
