//! `weir split`

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use clap::Args;
use serde_json::json;

use crate::{
    admin::status::splits::{MirrorStatus, SplitStatus, SplitsDocument},
    cli::{
        Failure,
        admin::{AdminArgs, fleet_knows},
        print,
        table::{self, Cell, Table, Tone},
    },
    config::{parse_duration, parse_share},
    variants::figures::Summary,
};

#[derive(Debug, Args)]
pub struct SplitArgs {
    /// The split; without it, all are shown
    name: Option<String>,
    /// A weight for each variant: app=50 old=50. They hold at once, over reloads and restarts, until `--reset`
    #[arg(value_name = "VARIANT=WEIGHT", value_parser = weight, requires = "name")]
    weights: Vec<(String, u32)>,
    /// Go back to the configured weights
    #[arg(long, requires = "name", conflicts_with_all = ["weights", "stop", "judge"])]
    reset: bool,
    /// Stop the judge; the weights stay as they are
    #[arg(long, requires = "name", conflicts_with_all = ["weights", "judge"])]
    stop: bool,
    /// Have a judge move requests to the new variant, step by step, and back when that is worse
    #[arg(long, requires = "name", conflicts_with = "weights")]
    judge: bool,
    /// The percentages of the steps: 1,5,20,50,100 (begins a judge too)
    #[arg(long = "step", value_name = "PERCENT", value_delimiter = ',', requires = "name", conflicts_with_all = ["weights", "reset", "stop"])]
    steps: Vec<u32>,
    /// The new variant; without it, the one that has the smaller weight now
    #[arg(long, requires = "name")]
    variant: Option<String>,
    /// How long each step takes at least [default: 10m]
    #[arg(long, value_parser = span, requires = "name")]
    every: Option<Duration>,
    /// By how many points of percentage the new variant's error ratio may be higher [default: 0.5%]
    #[arg(long, value_parser = share, requires = "name")]
    margin_errors: Option<u32>,
    /// By how much its median and 99th percentile may be longer [default: 20%]
    #[arg(long, value_parser = share, requires = "name")]
    margin_latency: Option<u32>,
    /// How sure the judge must be to go back [default: 95%]
    #[arg(long, value_parser = share, requires = "name")]
    confidence: Option<u32>,
    /// Requests that each variant must have had in a step [default: 100]
    #[arg(long, requires = "name")]
    min_samples: Option<u64>,
    /// Only at this host: the others of its fleet are told nothing
    #[arg(long, requires = "name")]
    here: bool,
    #[command(flatten)]
    admin: AdminArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &SplitArgs) -> Result<(), Failure> {
    let settings = args.variant.is_some()
        || args.every.is_some()
        || args.margin_errors.is_some()
        || args.margin_latency.is_some()
        || args.confidence.is_some()
        || args.min_samples.is_some();
    let judges = args.judge || !args.steps.is_empty();
    if settings && !judges {
        let sentence = "error: these are settings of a judge: `--judge` or `--step 1,5,20,50,100` begins one";
        return Err(Failure::BadConfig(sentence.to_owned()));
    }
    match &args.name {
        Some(name) if !args.weights.is_empty() || args.reset || args.stop || judges => {
            change(args, name, judges)
        }
        name => show(args, name.as_deref()),
    }
}

fn change(args: &SplitArgs, name: &str, judges: bool) -> Result<(), Failure> {
    let weights: BTreeMap<_, _> = args.weights.iter().cloned().collect();
    if weights.len() != args.weights.len() {
        return Err(Failure::BadConfig("error: a variant has two weights".to_owned()));
    }
    let judge = judges.then(|| {
        json!({
            "variant": args.variant,
            "steps": (!args.steps.is_empty()).then_some(&args.steps),
            "every_ms": args.every.map(|every| every.as_millis() as u64),
            "margin_errors": args.margin_errors,
            "margin_latency": args.margin_latency,
            "confidence": args.confidence,
            "min_samples": args.min_samples,
        })
    });
    let order = json!({ "name": name, "weights": weights, "reset": args.reset, "stop": args.stop, "judge": judge, "here": args.here });
    let answer = args.admin.order("/api/v1/splits/set", &order)?;
    if args.json {
        return print(&format!("{answer}\n"));
    }
    let split: SplitStatus =
        serde_json::from_value(answer["split"].clone()).map_err(|error| not_understood(&error))?;
    print(&format!("{}{}", line(&split), fleet_knows(&answer)))
}

fn show(args: &SplitArgs, name: Option<&str>) -> Result<(), Failure> {
    let (status, body) = args.admin.get("/api/v1/splits")?;
    if !status.is_success() {
        return Err(Failure::Failed(format!("the daemon answered {status}: is it another version?")));
    }
    let mut document: SplitsDocument =
        serde_json::from_slice(&body).map_err(|error| not_understood(&error))?;
    if let Some(name) = name {
        let all: Vec<_> = document.splits.iter().map(|split| format!("`{}`", split.name)).collect();
        document.splits.retain(|split| split.name == name);
        document.mirrors.retain(|mirror| mirror.name == name);
        if document.splits.is_empty() && document.mirrors.is_empty() {
            let there = if all.is_empty() {
                "there is none".to_owned()
            } else {
                format!("there are {}", all.join(", "))
            };
            return Err(Failure::Failed(format!("there is no split `{name}`; {there}")));
        }
    }
    if args.json {
        let text = serde_json::to_string(&document).map_err(|error| not_understood(&error))?;
        return print(&format!("{text}\n"));
    }
    print(&text(&document))
}

fn not_understood(error: &serde_json::Error) -> Failure {
    Failure::Failed(format!("the daemon's answer is not understood ({error}): is it another version?"))
}

/// How a split stands, in a line, and its judge in another.
pub fn line(split: &SplitStatus) -> String {
    let weights: Vec<_> = split.variants.iter().map(|one| format!("{}={}", one.name, one.weight)).collect();
    let mut text = format!("split `{}`: {}", split.name, weights.join(" "));
    if split.overridden {
        let shadowed: Vec<_> =
            split.variants.iter().map(|one| format!("{}={}", one.name, one.configured)).collect();
        // Writing to a String can't fail.
        let at = split.from.as_ref().map(|from| format!(" at {from}")).unwrap_or_default();
        let _ = write!(text, " (set at run time{at}; configured: {})", shadowed.join(" "));
    }
    text.push('\n');
    if let Some(judge) = &split.judge {
        let _ = writeln!(text, "  judge: {}", judge.told);
    }
    text
}

fn text(document: &SplitsDocument) -> String {
    if document.splits.is_empty() && document.mirrors.is_empty() {
        return "no service is split or mirrored\n".to_owned();
    }
    let mut text = String::new();
    for split in &document.splits {
        // Writing to a String can't fail.
        let width = table::width();
        let _ = writeln!(text, "{}{}", table::fitted(&line(split), width), figures(split).text(width));
    }
    for mirror in &document.mirrors {
        let MirrorStatus { name, service, to, copies, dropped, too_long } = mirror;
        let _ = writeln!(
            text,
            "mirror `{name}`: {service} to {to}: {} copies sent, {} failed, {dropped} dropped, {too_long} too long",
            copies.requests,
            copies.errors_5xx + copies.errors_connection,
        );
    }
    text
}

fn figures(split: &SplitStatus) -> Table {
    let mut table =
        Table::new(["variant", "over", "requests", "5xx", "no answer", "errors", "p50 ms", "p99 ms", ""]);
    for variant in &split.variants {
        let down = if variant.can_answer { "" } else { "NO SERVER UP" };
        let rows = [
            ("1 minute", &variant.last_minute),
            ("5 minutes", &variant.last_5_minutes),
            ("all", &variant.all),
        ];
        for (nth, (span, summary)) in rows.into_iter().enumerate() {
            let Summary { requests, errors_5xx, errors_connection, error_ratio, .. } = summary;
            let number =
                |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"));
            table.add([
                if nth == 0 { variant.name.clone() } else { String::new() }.into(),
                span.into(),
                requests.to_string().into(),
                errors_5xx.to_string().into(),
                errors_connection.to_string().into(),
                error_ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{:.2} %", ratio * 100.0)).into(),
                number(summary.latency_p50_ms).into(),
                number(summary.latency_p99_ms).into(),
                Cell::toned(if nth == 0 { down } else { "" }, Tone::Bad),
            ]);
        }
    }
    table
}

fn weight(text: &str) -> Result<(String, u32), String> {
    let pair = text.split_once('=').and_then(|(name, weight)| Some((name, weight.parse().ok()?)));
    match pair {
        Some((name, weight)) if !name.is_empty() => Ok((name.to_owned(), weight)),
        _ => Err("expected a variant and its weight: `app=50`".to_owned()),
    }
}

fn span(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .map_err(|refusal| format!("it {}: {}", refusal.because, refusal.hint.unwrap_or_default()))
}

fn share(text: &str) -> Result<u32, String> {
    parse_share(text)
        .map_err(|refusal| format!("it {}: {}", refusal.because, refusal.hint.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_written_behind_its_variant() {
        assert_eq!(weight("app=50"), Ok(("app".into(), 50)));
        for wrong in ["app", "app=", "=5", "app=-1", "app=half"] {
            assert!(weight(wrong).is_err(), "{wrong}");
        }
    }
}
