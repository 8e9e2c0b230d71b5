//! `weir watch`: packets that the gate drops, or at shadowed entrypoints would drop, as it judges them. Reads the kernel, and needs no daemon.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    time::{Duration, Instant, SystemTime},
};

use clap::Args;
use jiff::{Timestamp, tz::TimeZone};
use proxy_common::verdict::DropReason;
use serde_json::json;

use crate::{
    cli::{Failure, kernel::Place, print},
    kernel::{
        KernelFault,
        watch::{Dropped, Total, Watcher},
    },
    packet,
};

/// How often what wasn't shown is summed up.
const SUM_UP: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Only drops for this entrypoint
    #[arg(long, value_name = "NAME")]
    entrypoint: Option<String>,
    /// Only drops for this reason (not_listed, truncated …)
    #[arg(long, value_name = "NAME", value_parser = reason)]
    reason: Option<&'static str>,
    /// Ends after so many drops
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    #[command(flatten)]
    place: Place,
    /// A JSON object on each line
    #[arg(long)]
    json: bool,
}

pub fn run(args: &WatchArgs) -> Result<(), Failure> {
    let Some(mut watcher) = Watcher::open(&args.place.bpffs).map_err(|fault| failed(&fault))? else {
        return Err(Failure::Failed(format!(
            "nothing of Weir's is in the kernel (no pins below {}): there is nothing to watch",
            args.place.bpffs.display()
        )));
    };
    let mut unshown = Unshown::new(watcher.totals().map_err(|fault| failed(&fault))?);
    let mut interfaces = Interfaces::default();
    let mut left = args.count;
    let mut summed_up = Instant::now();
    loop {
        let dropped =
            watcher.wait(SUM_UP.saturating_sub(summed_up.elapsed())).map_err(|fault| failed(&fault))?;
        let mut text = String::new();
        for event in dropped.iter().filter(|event| args.wants(&event.entrypoint, event.reason)) {
            if left == Some(0) {
                break;
            }
            left = left.map(|left| left - 1);
            unshown.shown(event);
            text.push_str(&args.line(event, interfaces.name(event.interface)));
        }
        if left == Some(0) || summed_up.elapsed() >= SUM_UP {
            summed_up = Instant::now();
            let more = unshown.sum_up(&watcher.totals().map_err(|fault| failed(&fault))?);
            let wanted = more.into_iter().filter(|total| args.wants(&total.entrypoint, total.reason));
            text.push_str(&args.more(&wanted.collect::<Vec<_>>()));
        }
        if !text.is_empty() {
            print(&text)?;
        }
        if left == Some(0) {
            return Ok(());
        }
    }
}

impl WatchArgs {
    fn wants(&self, entrypoint: &str, reason: &str) -> bool {
        self.entrypoint.as_ref().is_none_or(|wanted| wanted == entrypoint)
            && self.reason.is_none_or(|wanted| wanted == reason)
    }

    /// One drop, on one line.
    fn line(&self, dropped: &Dropped, interface: &str) -> String {
        let headers = packet::parse(&dropped.head);
        let Dropped { entrypoint, reason, length, shadow, .. } = dropped;
        if self.json {
            let line = json!({
                "event": if *shadow { "would_drop" } else { "drop" },
                "time": timestamp(dropped.at).to_string(),
                "interface": interface,
                "source": headers.map(|headers| headers.source),
                "source_port": headers.and_then(|headers| headers.ports).map(|(source, _)| source),
                "destination": headers.map(|headers| headers.destination),
                "destination_port": headers.and_then(|headers| headers.ports).map(|(_, destination)| destination),
                "protocol": headers.map(|headers| headers.protocol_name()),
                "entrypoint": entrypoint,
                "reason": reason,
                "length": length,
            });
            return format!("{line}\n");
        }
        let time = timestamp(dropped.at).to_zoned(TimeZone::UTC).strftime("%H:%M:%S%.3f");
        let way = headers.map_or_else(
            || "(its addresses are not among its first bytes)".into(),
            |headers| format!("{} → {} {}", headers.from(), headers.to(), headers.protocol_name()),
        );
        let reason = verdict(reason, *shadow);
        format!("{time}  {reason:<12}  {entrypoint}  {way}  {length} bytes on {interface}\n")
    }

    /// What was dropped without being shown.
    fn more(&self, unshown: &[Total]) -> String {
        let mut text = String::new();
        for Total { entrypoint, reason, shadow, packets } in unshown {
            // Writing to a String can't fail.
            let _ = if self.json {
                let time = timestamp(SystemTime::now()).to_string();
                let line = json!({
                    "event": if *shadow { "would_drop_more" } else { "more" },
                    "time": time, "entrypoint": entrypoint, "reason": reason, "packets": packets,
                });
                writeln!(text, "{line}")
            } else {
                let reason = verdict(reason, *shadow);
                writeln!(text, "              {reason:<12}  {entrypoint}  and {packets} more")
            };
        }
        text
    }
}

/// The reason, marked where nothing came of it.
fn verdict(reason: &str, shadow: bool) -> String {
    if shadow { format!("would drop: {reason}") } else { reason.to_owned() }
}

/// Drops that the counters know and that were not shown.
struct Unshown {
    before: Vec<Total>,
    shown: BTreeMap<Kind, u64>,
}

/// Entrypoint, reason, and whether it is shadowed.
type Kind = (String, &'static str, bool);

impl Unshown {
    fn new(before: Vec<Total>) -> Self {
        Self { before, shown: BTreeMap::new() }
    }

    fn shown(&mut self, dropped: &Dropped) {
        *self.shown.entry((dropped.entrypoint.clone(), dropped.reason, dropped.shadow)).or_default() += 1;
    }

    /// Since the last time. A drop that is shown before the counters are read never counts twice: it is carried over.
    fn sum_up(&mut self, now: &[Total]) -> Vec<Total> {
        let kind = |total: &Total| -> Kind { (total.entrypoint.clone(), total.reason, total.shadow) };
        let before: HashMap<_, _> = self.before.iter().map(|total| (kind(total), total.packets)).collect();
        let mut unshown = Vec::new();
        for total in now {
            let key = kind(total);
            let counted = total.packets.saturating_sub(before.get(&key).copied().unwrap_or_default());
            let shown = self.shown.remove(&key).unwrap_or_default();
            if shown > counted {
                self.shown.insert(key, shown - counted);
            } else if counted > shown {
                unshown.push(Total { packets: counted - shown, ..total.clone() });
            }
        }
        self.before = now.to_vec();
        unshown
    }
}

/// Names of interfaces, each looked up once.
#[derive(Default)]
struct Interfaces(HashMap<u32, String>);

impl Interfaces {
    fn name(&mut self, index: u32) -> &str {
        self.0.entry(index).or_insert_with(|| {
            let name = nix::net::if_::if_indextoname(index);
            name.map_or_else(|_| format!("interface {index}"), |name| name.to_string_lossy().into_owned())
        })
    }
}

fn timestamp(at: SystemTime) -> Timestamp {
    Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn reason(text: &str) -> Result<&'static str, String> {
    let names = DropReason::ALL.map(DropReason::name);
    let found = names.into_iter().find(|name| *name == text);
    found.ok_or_else(|| format!("reasons are {}", names.join(", ")))
}

fn failed(fault: &KernelFault) -> Failure {
    Failure::Failed(fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(packets: u64) -> Vec<Total> {
        vec![Total { entrypoint: "https".into(), reason: "not_listed", shadow: false, packets }]
    }

    fn event() -> Dropped {
        Dropped {
            at: SystemTime::UNIX_EPOCH,
            interface: 1,
            entrypoint: "https".into(),
            reason: "not_listed",
            shadow: false,
            cpu: 0,
            length: 54,
            head: packet::syn("203.0.113.9".parse().unwrap(), "198.51.100.1:443".parse().unwrap()).unwrap(),
        }
    }

    #[test]
    fn what_is_shown_and_what_is_summed_up_is_what_was_counted() {
        let mut unshown = Unshown::new(totals(100));
        unshown.shown(&event());
        assert_eq!(unshown.sum_up(&totals(111)), totals(10));
        assert_eq!(unshown.sum_up(&totals(111)), []);
        // Shown a moment before it is counted.
        unshown.shown(&event());
        assert_eq!(unshown.sum_up(&totals(111)), []);
        assert_eq!(unshown.sum_up(&totals(113)), totals(1));
    }

    #[test]
    fn a_line_of_json_has_what_a_script_wants() {
        let args = WatchArgs {
            entrypoint: None,
            reason: None,
            count: None,
            place: Place { bpffs: "/".into() },
            json: true,
        };
        let line: serde_json::Value = serde_json::from_str(&args.line(&event(), "public")).unwrap();
        assert_eq!(line["source"], "203.0.113.9");
        assert_eq!(line["destination_port"], 443);
        assert_eq!((&line["reason"], &line["interface"]), (&json!("not_listed"), &json!("public")));
    }

    #[test]
    fn what_only_would_be_dropped_is_marked_and_counted_apart() {
        let mut unshown = Unshown::new(totals(100));
        unshown.shown(&Dropped { shadow: true, ..event() });
        assert_eq!(unshown.sum_up(&totals(101)), totals(1), "a rehearsal is no drop");
        let place = Place { bpffs: "/".into() };
        let mut args = WatchArgs { entrypoint: None, reason: None, count: None, place, json: false };
        let shadowed = Dropped { shadow: true, ..event() };
        assert!(args.line(&shadowed, "public").contains("  would drop: not_listed  https  "));
        assert!(!args.line(&event(), "public").contains("would"));
        args.json = true;
        assert!(args.line(&shadowed, "public").contains(r#""event":"would_drop""#));
    }

    #[test]
    fn a_reason_that_does_not_exist_is_refused_with_those_that_do() {
        assert_eq!(reason("truncated"), Ok("truncated"));
        assert!(reason("nonsense").unwrap_err().starts_with("reasons are not_listed, "));
    }
}
