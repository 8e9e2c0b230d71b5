//! Who comes in: the visitor, and the stranger who doesn't.

use std::time::{Duration, Instant};

use anyhow::Context;
use proxy_common::names::GATE_COUNTERS;

use crate::{
    demo::{
        PATIENCE,
        figures::{Figures, words},
        stage::Stage,
        world::World,
    },
    lab::{
        Lab,
        addresses::{HTTPS, HTTPS_V6, STRANGER, STRANGER_V6, VISITOR, VISITOR_V6},
        client::Browser,
        knock::{self, Knocking, knock},
        pinned,
        weir::Weir,
    },
};

/// The entrypoint's name, and the gate's word for the stranger.
const ENTRYPOINT: &str = "https";
const NOT_LISTED: &str = "not_listed";
/// Shorter than a second, after which a SYN would be sent again and be counted twice.
const KNOCK: Duration = Duration::from_millis(400);

pub fn the_visitor_is_served(
    stage: &mut Stage,
    world: &mut World,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    stage.scene("A visitor comes through Cloudflare, and is served");
    stage.act(&format!("GET https://example.com/ from {VISITOR} and {VISITOR_V6}"));
    let mut all_well = true;
    for (to, alpn) in [(HTTPS, "http/1.1"), (HTTPS, "h2"), (HTTPS_V6, "http/1.1"), (HTTPS_V6, "h2")] {
        let browser = Browser::new(&world.lab, &world.lab.visitor, to, &[alpn])?;
        let reply = browser.get("/")?;
        let well = reply.status == 200 && reply.upstream().is_some();
        all_well &= well;
        let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
        stage.fact(
            well,
            &format!(
                "{family}, {:?}: {} from server {} in {}",
                reply.version,
                reply.status,
                reply.upstream().unwrap_or("(none)"),
                words(reply.took)
            ),
        );
    }
    figures.visitor_ok = all_well;
    Ok(())
}

pub fn the_stranger_is_dropped(
    stage: &mut Stage,
    world: &mut World,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    stage.scene("A stranger knocks, and dies in the kernel");
    let before = (dropped(&world.lab)?, handshakes(&world.lab)?);
    let (v4, v6) = (20, 10);
    stage.act(&format!("{v4} connection attempts from {STRANGER}, {v6} from {STRANGER_V6}"));
    let knocks = stage.meanwhile("knocking", || -> anyhow::Result<_> {
        let mut sum = knock(&world.lab.stranger, HTTPS, v4, KNOCK)?;
        let more = knock(&world.lab.stranger, HTTPS_V6, v6, KNOCK)?;
        sum.connected += more.connected;
        sum.refused += more.refused;
        sum.silent += more.silent;
        Ok(sum)
    })?;
    let after = (dropped(&world.lab)?, handshakes(&world.lab)?);
    let passed = syns(world);
    figures.stranger_passed += passed;
    figures.stranger_dropped += after.0 - before.0;

    stage.act("bpftool map dump pinned …/maps/GATE_COUNTERS   (the share of one CPU)");
    stage.plain("");
    stage.quote(&excerpt(&world.lab)?);
    stage.plain("");
    stage.fact(
        knocks.silent == v4 + v6,
        &format!("{} attempts, {} answers", v4 + v6, v4 + v6 - knocks.silent),
    );
    stage.fact(
        after.0 - before.0 >= (v4 + v6) as u64,
        &format!("the kernel's counter `{NOT_LISTED}` rose from {} to {}", before.0, after.0),
    );
    stage.fact(passed == 0, &format!("SYNs of the stranger that came as far as TCP: {passed}"));
    stage.fact(
        after.1 == before.1,
        &format!("handshakes at the edge (PassiveOpens): {} before, {} after", before.1, after.1),
    );
    Ok(())
}

pub fn the_list_is_edited(stage: &mut Stage, world: &mut World, figures: &mut Figures) -> anyhow::Result<()> {
    stage.scene("The allowlist is edited, without a restart");
    let pid = world.weir.pid();
    let shut = world.toml.clone();
    let open = shut.replace("allow = [\"cloudflare\"]", "allow = [\"cloudflare\", \"friends\"]")
        + &format!("\n[allowlist.friends]\nprefixes = [\"{STRANGER}/32\", \"{STRANGER_V6}/128\"]\n");
    let before = dropped(&world.lab)?;

    stage.act("the stranger's addresses go into a list of their own, and the file is saved");
    world.rewrite(open)?;
    let saved = Instant::now();
    let opened = stage.meanwhile("waiting for a connection", || {
        knock::until_connected(&world.lab.stranger, HTTPS, PATIENCE)
    })?;
    figures.reload = Some(opened);
    let browser = Browser::of_site(&world.lab, &world.lab.stranger)?;
    let reply = browser.get("/")?;
    stage.fact(
        reply.status == 200 && reply.upstream().is_some(),
        &format!("{} after that it connects, and gets {}", words(opened), reply.status),
    );

    stage.act("and out of it again");
    world.rewrite(shut)?;
    let shut_out = stage
        .meanwhile("waiting for silence", || knock::until_silent(&world.lab.stranger, HTTPS, PATIENCE))?;
    figures.unload = Some(shut_out);
    // From here on the stranger is a stranger again: nothing more may come through.
    let admitted = syns(world);
    let knocks = knock(&world.lab.stranger, HTTPS, 20, KNOCK)?;
    let passed = syns(world) - admitted;
    figures.stranger_passed += passed;
    figures.stranger_dropped += dropped(&world.lab)? - before;
    stage.fact(
        knocks.silent == 20 && passed == 0,
        &format!("{} after that its packets die in the kernel once more", words(shut_out)),
    );
    let during = world.load()?.records_since(saved);
    stage.fact(
        during.iter().all(crate::lab::load::Record::is_served) && world.weir.pid() == pid,
        &format!("meanwhile the visitor had {} requests, none failed", during.len()),
    );
    Ok(())
}

pub fn the_daemon_is_killed(
    stage: &mut Stage,
    world: &mut World,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    stage.scene("The daemon is killed; the gate stands");
    stage.act("kill -9 on weir");
    world.weir.kill()?;
    let (before, seen) = (dropped(&world.lab)?, syns(world));
    let stranger = knock(&world.lab.stranger, HTTPS, 20, KNOCK)?;
    let visitor = knock(&world.lab.visitor, HTTPS, 10, KNOCK)?;
    let after = dropped(&world.lab)?;
    let passed = syns(world) - seen;
    figures.stranger_passed += passed;
    figures.stranger_dropped += after - before;
    stage.fact(
        stranger.silent == 20 && passed == 0 && after - before >= 20,
        &format!(
            "20 attempts of the stranger: {} answers, the counter rose by {}",
            20 - stranger.silent,
            after - before
        ),
    );
    stage.fact(
        visitor.refused == 10,
        &format!("10 of the visitor: {} reached the (closed) port, as they should", visitor.refused),
    );
    Ok(())
}

pub fn the_daemon_returns(stage: &mut Stage, world: &mut World, figures: &mut Figures) -> anyhow::Result<()> {
    stage.scene("The daemon returns, and adopts what it finds");
    let (before, seen) = (dropped(&world.lab)?, syns(world));
    let stranger = Knocking::start(&world.lab.stranger, HTTPS)?;
    stage.act("weir run, while the stranger goes on knocking");
    let begun = Instant::now();
    world.weir = Weir::start(&world.lab, &world.toml)?.quietly();
    let restart = begun.elapsed();
    figures.restart = Some(restart);
    stage.meanwhile("waiting for the servers", || world.wait_for_both_servers())?;
    let stranger = stranger.stop()?;
    let after = dropped(&world.lab)?;
    let passed = syns(world) - seen;
    figures.stranger_passed += passed;
    figures.stranger_dropped += after - before;
    let knocked = stranger.connected + stranger.refused + stranger.silent;
    stage.fact(
        stranger.silent == knocked && passed == 0,
        &format!("{knocked} attempts of the stranger meanwhile: {} answers", knocked - stranger.silent),
    );
    stage.fact(
        after >= before + knocked as u64,
        &format!("the counter went on from where it was: {before} → {after}"),
    );
    let reply = world.visitor.get("/")?;
    stage.fact(
        reply.status == 200 && reply.upstream().is_some(),
        &format!("the visitor is served again; the daemon answered {} after its start", words(restart)),
    );
    Ok(())
}

/// What the gate has counted for packets from no list.
fn dropped(lab: &Lab) -> anyhow::Result<u64> {
    pinned::packets(lab, ENTRYPOINT, NOT_LISTED)
}

/// SYNs of the stranger that have come through the gate up to now.
fn syns(world: &World) -> usize {
    world.witness.syns_from(STRANGER) + world.witness.syns_from(STRANGER_V6)
}

/// TCP handshakes that were completed at an open port of the edge.
fn handshakes(lab: &Lab) -> anyhow::Result<u64> {
    let snmp = lab.edge.proc_net("snmp")?;
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = lines.next().zip(lines.next()).context("no TCP counters")?;
    let at = names.split(' ').position(|name| name == "PassiveOpens").context("no PassiveOpens")?;
    Ok(values.split(' ').nth(at).context("no PassiveOpens")?.parse()?)
}

/// The counters of the guarded entrypoint as bpftool prints them, on one CPU that has seen packets.
fn excerpt(lab: &Lab) -> anyhow::Result<String> {
    let dump = pinned::dump(lab, GATE_COUNTERS)?;
    let lines: Vec<_> = dump.lines().collect();
    let at = lines
        .iter()
        .enumerate()
        .position(|(at, line)| {
            line.contains(&format!("\"{NOT_LISTED}\""))
                && lines.get(at + 1).is_some_and(|packets| !packets.trim_end().ends_with(": 0,"))
        })
        .context("bpftool shows no dropped packet")?;
    let from = lines[..at].iter().rposition(|line| line.contains("\"cpu\"")).unwrap_or(at);
    Ok(lines[from..lines.len().min(at + 4)].join("\n"))
}
