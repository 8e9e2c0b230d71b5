//! CPU per request over HTTP/2 and TLS: Weir and nginx with the same certificate, in front of the same server of
//! HTTP/1.1, loaded by h2load with several streams on each connection.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use serde_json::{Map, Value};

use super::{Options, least, median, peers::Peer, say};
use crate::{
    bench::{
        rounded,
        terminators::{Field, Terminator},
    },
    lab::process::cpu_of,
};

/// As of a few browsers, or of a CDN's host, that ask for a page and what belongs to it.
const CONNECTIONS: usize = 16;
const STREAMS: usize = 10;

/// CPU per request in µs, one value a round.
pub struct Costs(BTreeMap<&'static str, Vec<f64>>);

pub fn measure(options: &Options) -> anyhow::Result<Costs> {
    ensure!(
        options.rounds > 0 && options.seconds > 0,
        "nothing to measure: give at least one round and one second"
    );
    let field = Field::set_up()?;
    say(
        options,
        &format!("the same over HTTP/2 and TLS, {CONNECTIONS} connections with {STREAMS} streams each"),
    );
    let mut costs = Costs(BTreeMap::new());
    for round in 0..=options.rounds {
        for terminator in &field.terminators {
            // Round 0 warms up.
            let seconds = if round == 0 { 1 } else { options.seconds };
            let cost =
                one(&field, terminator, seconds).with_context(|| format!("measuring {}", terminator.name))?;
            if round > 0 {
                costs.0.entry(terminator.name).or_default().push(cost);
                say(options, &format!("  round {round}: {} {cost:.1}", terminator.name));
            }
        }
    }
    Ok(costs)
}

fn one(field: &Field, terminator: &Terminator, seconds: u64) -> anyhow::Result<f64> {
    let url = format!("https://{}/small", terminator.address);
    let before = cpu_of(terminator.process.pid())?;
    let requests = load(field, &url, seconds)?;
    let used = cpu_of(terminator.process.pid())? - before;
    Ok(used.as_secs_f64() * 1e6 / requests as f64)
}

/// Runs h2load; how many requests were answered well. Any other answer spoils the figure, and fails.
fn load(field: &Field, url: &str, seconds: u64) -> anyhow::Result<u64> {
    let mut command = Peer::find("h2load")?.command(&field.island, field.cores.aside)?;
    let [connections, streams] = [CONNECTIONS, STREAMS].map(|number| number.to_string());
    command.args(["-t", "1", "-c", &connections, "-m", &streams, "-D", &seconds.to_string(), url]);
    let output = command.output().context("can't run h2load")?;
    let text = String::from_utf8_lossy(&output.stdout);
    answered_well(&text).with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Reads h2load's `status codes: 9 2xx, 0 3xx, 0 4xx, 0 5xx` and `Application protocol: h2`.
fn answered_well(text: &str) -> anyhow::Result<u64> {
    let after = |title: &str| text.lines().find_map(|line| line.trim().strip_prefix(title));
    ensure!(after("Application protocol: ") == Some("h2"), "it didn't speak HTTP/2");
    let codes = after("status codes: ").context("h2load doesn't tell of status codes")?;
    let mut codes = codes.split(", ").map(|part| part.split(' ').next().and_then(|count| count.parse().ok()));
    let good: u64 = codes.next().flatten().context("h2load's status codes can't be read")?;
    ensure!(good > 0 && codes.all(|count| count == Some(0)), "not every request was answered well");
    Ok(good)
}

// === impl Costs ===

impl Costs {
    pub fn report(
        &self,
        options: &Options,
        figures: &mut Map<String, Value>,
        ratios: &mut Map<String, Value>,
    ) -> anyhow::Result<()> {
        for (name, values) in &self.0 {
            figures.insert(format!("{name}_h2_us_min"), rounded(least(values)));
            figures.insert(format!("{name}_h2_us_median"), rounded(median(values)));
            say(
                options,
                &format!("{name:>8}    h2: min {:5.1}  median {:5.1}", least(values), median(values)),
            );
        }
        let of = |name| self.0.get(name).with_context(|| format!("{name} wasn't measured"));
        let ratio = least(of("weir")?) / least(of("nginx")?);
        ratios.insert("h2_cpu_vs_nginx".to_owned(), rounded(ratio));
        figures.insert("h2_connections".to_owned(), CONNECTIONS.into());
        figures.insert("h2_streams_per_connection".to_owned(), STREAMS.into());
        say(options, &format!("weir ÷ nginx, HTTP/2: {ratio:.2}"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "starting benchmark...\n\
        Application protocol: h2\n\n\
        finished in 1.00s, 51234.00 req/s, 2.00MB/s\n\
        requests: 51234 total, 51394 started, 51234 done, 51234 succeeded, 0 failed, 0 errored, 0 timeout\n\
        status codes: 51234 2xx, 0 3xx, 0 4xx, 0 5xx\n";

    #[test]
    fn only_good_answers_over_http2_count() {
        assert_eq!(answered_well(GOOD).unwrap(), 51234);
        for spoilt in [
            GOOD.replace(": h2", ": http/1.1"),
            GOOD.replace("0 5xx", "1 5xx"),
            GOOD.replace("51234 2xx", "0 2xx"),
            String::new(),
        ] {
            assert!(answered_well(&spoilt).is_err(), "{spoilt}");
        }
    }
}
