//! Benchmarks: ratios against peers in the same run, because the machine is shared and its clock time isn't ours.

pub mod failover;
pub mod fleet;
pub mod flood;
pub mod gate;
mod host;
pub mod http;
pub mod lists;
pub mod memory;
pub mod metrics;
pub mod passthrough;
pub mod reload;
mod sending;
pub mod sni_relay;
mod terminators;
pub mod tls;

use serde_json::{Map, json};

/// Measures the gate; `json`: the figures once more, for programs, as the last line.
pub fn gate(json: bool) -> anyhow::Result<()> {
    let mut measured = gate::run()?;
    let flooded = flood::run()?;
    measured.figures.extend(flooded.figures);
    measured.ratios.extend(flooded.ratios);
    tell("gate", &measured, json);
    Ok(())
}

/// Measures only the flood.
pub fn flood(json: bool) -> anyhow::Result<()> {
    tell("flood", &flood::run()?, json);
    Ok(())
}

fn tell(bench: &str, measured: &gate::GateFigures, json: bool) {
    if json {
        let figures: Map<_, _> = measured
            .figures
            .iter()
            .map(|figure| (figure.name.clone(), rounded(figure.nanoseconds)))
            .collect();
        let ratios: Map<_, _> =
            measured.ratios.iter().map(|(name, ratio)| ((*name).to_owned(), rounded(*ratio))).collect();
        anstream::println!("{}", json!({ "bench": bench, "ratios": ratios, "figures": figures }));
    }
}

/// To a thousandth.
fn rounded(value: f64) -> serde_json::Value {
    json!((value * 1000.0).round() / 1000.0)
}
