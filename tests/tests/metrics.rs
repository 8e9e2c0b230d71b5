//! `/metrics`, read by Prometheus' own tools and compared with what happened.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use weir_lab::{
    lab::{
        addresses::HTTPS,
        exposition,
        knock::knock,
        stand::{PATIENCE, Stand},
        wait,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

#[test]
fn prometheus_reads_what_happened() -> Done {
    needs!(Need::Root, Need::Weir, Need::Ebpf, Need::Program("promtool"));
    let mut stand = Stand::up()?;
    let before = scrape(&stand)?;
    for _ in 0..3 {
        assert_eq!(stand.visitor.get("/")?.status.as_u16(), 200);
    }
    assert_eq!(knock(&stand.lab.stranger, HTTPS, 7, KNOCK)?.silent, 7);

    let text = scrape(&stand)?;
    let value = |text: &str, series: &str| -> anyhow::Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no {series} in\n{text}"))?.parse()?)
    };
    for (series, more) in [
        ("weir_service_requests_total{service=\"app\"}", 3.0),
        ("weir_entrypoint_requests_total{entrypoint=\"https\"}", 3.0),
        ("weir_gate_dropped_packets_total{entrypoint=\"https\",reason=\"not_listed\"}", 7.0),
        ("weir_gate_dropped_packets_total{entrypoint=\"https\",reason=\"blocked\"}", 0.0),
    ] {
        assert_eq!(value(&text, series)? - value(&before, series)?, more, "{series}");
    }
    assert_eq!(value(&text, UP)?, 1.0);
    assert_eq!(value(&text, "weir_gate_enforcing")?, 1.0);
    assert!(value(&text, "weir_allowlist_prefixes{allowlist=\"cloudflare\",ip_version=\"4\"}")? >= 1.0);
    assert!(text.contains("weir_certificate_expiry_timestamp_seconds{entrypoint=\"https\",name="), "{text}");

    // Prometheus' own judgement of names, units, types and help.
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn()?;
    promtool.stdin.take().context("a piped stdin")?.write_all(text.as_bytes())?;
    let said = promtool.wait_with_output()?;
    let complaints = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && complaints.is_empty(), "{complaints}\n{text}");

    // docs/ names what there is, and nothing else. What only hosts of a fleet tell is tried there.
    let mut described = exposition::described();
    described.retain(|name| !name.starts_with("weir_fleet_"));
    assert_eq!(exposition::told(&text), described);

    stand.one.kill()?;
    wait::until_true("a dead server is told", PATIENCE, || Ok(value(&scrape(&stand)?, UP)? == 0.0))?;
    let falls = UP.replace("_up{", "_falls_total{");
    assert_eq!(value(&scrape(&stand)?, &falls)? - value(&text, &falls)?, 1.0);
    Ok(())
}

const UP: &str = "weir_server_up{service=\"app\",server=\"10.0.0.11:8080\"}";

/// Shorter than the second after which a SYN would be sent again.
const KNOCK: Duration = Duration::from_millis(400);

fn scrape(stand: &Stand) -> anyhow::Result<String> {
    let reply = stand.weir.admin().get("/metrics")?;
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    Ok(reply.text())
}
