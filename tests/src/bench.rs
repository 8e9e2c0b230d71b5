//! Benchmarks: ratios against peers in the same run, because the machine is shared and its clock time isn't ours.

pub mod gate;
pub mod http;

use serde_json::{Map, json};

/// Measures the gate; `json`: the figures once more, for programs, as the last line.
pub fn gate(json: bool) -> anyhow::Result<()> {
    let measured = gate::run()?;
    if json {
        let figures: Map<_, _> = measured
            .figures
            .iter()
            .map(|figure| (figure.name.clone(), rounded(figure.nanoseconds)))
            .collect();
        let ratios = json!({ "full_gate_vs_drop": rounded(measured.full_gate_vs_drop) });
        anstream::println!("{}", json!({ "bench": "gate", "ratios": ratios, "figures": figures }));
    }
    Ok(())
}

/// To a thousandth.
fn rounded(value: f64) -> serde_json::Value {
    json!((value * 1000.0).round() / 1000.0)
}
