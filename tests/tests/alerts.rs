//! What packaging/ has for Prometheus and Grafana: rules that say what they should, and nothing that asks for a metric which
//! isn't there.

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use anyhow::{Context, ensure};
use serde_json::Value;
use weir_lab::{
    lab::weir::{Ran, finish},
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

const ALERTS: &str = include_str!("../../packaging/prometheus/alerts.yml");
const GRAFANA: &str = include_str!("../../packaging/grafana/weir.json");

fn promtool(arguments: &[&str]) -> anyhow::Result<Ran> {
    let mut promtool = Command::new("promtool");
    promtool.args(arguments);
    finish(promtool)
}

fn alerts() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus/alerts.yml")
}

#[test]
fn every_alert_comes_when_it_should_and_only_then() -> Done {
    needs!(Need::Program("promtool"));
    let rules = alerts();
    let rules = rules.to_str().context("a path of this machine")?;
    let checked = promtool(&["check", "rules", rules])?;
    ensure!(checked.code == 0, "{checked:?}");

    let folder = tempfile::tempdir()?;
    let tests = folder.path().join("alerts.yml");
    let text = include_str!("support/alerts.yml");
    std::fs::write(&tests, text.replace("RULES", rules))?;
    let mut tested = Command::new("promtool");
    tested.args(["test", "rules"]).arg(&tests);
    let tested = tested.output()?;
    let said = String::from_utf8_lossy(&tested.stdout) + String::from_utf8_lossy(&tested.stderr);
    ensure!(tested.status.success(), "{said}");
    // None is left out.
    for alert in ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        ensure!(text.contains(&format!("alertname: {alert}")), "nothing tries {alert}");
    }
    Ok(())
}

/// Every expression of the dashboard, as Prometheus would get it.
fn expressions(of: &Value, into: &mut Vec<String>) {
    match of {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| name == "expr") {
                    Some(expression) => into.push(expression.replace("$__rate_interval", "5m")),
                    None => expressions(value, into),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|one| expressions(one, into)),
        _ => {}
    }
}

#[test]
fn the_grafana_dashboard_asks_what_prometheus_understands() -> Done {
    needs!(Need::Program("promtool"));
    let dashboard: Value = serde_json::from_str(GRAFANA)?;
    let mut asked = Vec::new();
    expressions(&dashboard, &mut asked);
    ensure!(asked.len() > 30, "{asked:?}");
    let rules = asked.iter().enumerate().map(|(at, expression)| {
        let expression = serde_json::to_string(expression).unwrap_or_default();
        format!("      - {{ record: \"weir:asked:{at}\", expr: {expression} }}\n")
    });
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("asked.yml");
    std::fs::write(&file, format!("groups:\n  - name: asked\n    rules:\n{}", rules.collect::<String>()))?;
    let checked = promtool(&["check", "rules", file.to_str().context("a path of this machine")?])?;
    ensure!(checked.code == 0, "{checked:?}");

    let panels = dashboard["panels"].as_array().context("no panels")?;
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].to_string()).collect();
    ensure!(ids.len() == panels.len(), "two panels have the same id");
    Ok(())
}

#[test]
fn only_metrics_that_there_are_are_asked_for() {
    let pages =
        [include_str!("../../docs/metrics.md"), include_str!("../../docs/kernel-passthrough.md")].concat();
    let cells = pages.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let known: BTreeSet<&str> = cells.flat_map(|cell| cell.split('`')).collect();
    for text in [ALERTS, GRAFANA] {
        let names = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        for name in names.filter(|name| name.starts_with("weir_")) {
            let plain = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            assert!(known.contains(name) || plain.is_some_and(|plain| known.contains(plain)), "{name}");
        }
    }
}
