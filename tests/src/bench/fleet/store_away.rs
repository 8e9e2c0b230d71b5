//! What becomes of requests while the store is away: etcd is killed for a minute, and meanwhile one host is reloaded and another
//! is restarted. Visitors come as through a load balancer: who finds a host's door closed goes to the next.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::ensure;
use nix::sys::signal::Signal;

use super::{Figures, Options, say};
use crate::{
    lab::{
        fleet::{FleetLab, PATIENCE, SITE, get_over},
        wait,
    },
    needs::Need,
};

const HOSTS: usize = 3;
/// How long the store is away.
const AWAY: Duration = Duration::from_secs(60);
/// Visitors, each asking so often.
const VISITORS: usize = 3;
const EVERY: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Seen {
    asked: AtomicU64,
    failed: AtomicU64,
}

pub fn measure(options: &Options) -> anyhow::Result<Figures> {
    for need in [Need::Weir, Need::Program("etcd")] {
        need.met().map_err(anyhow::Error::msg)?;
    }
    let mut lab = FleetLab::up(HOSTS)?;
    ensure!(lab.push("before", &["--wait"])?.code == 0, "the first push failed");
    lab.until_served(&["before"; HOSTS])?;
    let (seen, over) = (Arc::<Seen>::default(), Arc::<AtomicBool>::default());
    let hosts: Vec<SocketAddr> = lab.hosts.iter().map(|host| host.addr).collect();
    let visitors: Vec<_> = (0..VISITORS)
        .map(|nth| {
            let (seen, over, mut hosts) = (seen.clone(), over.clone(), hosts.clone());
            hosts.rotate_left(nth % HOSTS);
            std::thread::spawn(move || visit(&hosts, &seen, &over))
        })
        .collect();

    // The minute: at its middle, a host ends and begins.
    lab.etcd.stop()?;
    let back = Instant::now() + AWAY;
    until(back.checked_sub(AWAY * 2 / 3));
    lab.hosts[0].signal(Signal::SIGHUP)?;
    until(back.checked_sub(AWAY / 3));
    lab.hosts[1].terminate()?;
    lab.hosts[1].begin()?;
    lab.until_served(&["before"; HOSTS])?;
    until(Some(back));
    lab.etcd.go_on()?;
    ensure!(lab.push("after", &["--wait"])?.code == 0, "the push afterwards failed");
    lab.until_served(&["after"; HOSTS])?;
    over.store(true, Ordering::Relaxed);
    wait::until_true("the visitors have left", PATIENCE, || {
        Ok(visitors.iter().all(JoinHandle::is_finished))
    })?;

    let (asked, failed) = (seen.asked.load(Ordering::Relaxed), seen.failed.load(Ordering::Relaxed));
    say(options, &format!("  {asked} requests around a minute without the store: {failed} failed"));
    Ok(Figures::from_iter([
        ("store_away_requests".to_owned(), asked.into()),
        ("store_away_failed_requests".to_owned(), failed.into()),
    ]))
}

/// Asks until it is over. A request has failed when a host that took the connection gave no good answer, or none took one.
fn visit(hosts: &[SocketAddr], seen: &Seen, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        seen.asked.fetch_add(1, Ordering::Relaxed);
        let answer =
            hosts.iter().find_map(|host| TcpStream::connect(host).ok()).map(|open| get_over(open, SITE));
        let good =
            matches!(&answer, Some(Ok(reply)) if reply.starts_with("HTTP/1.1 200") && reply.ends_with("ok"));
        if !good {
            seen.failed.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(EVERY);
    }
}

fn until(moment: Option<Instant>) {
    let left = moment.map_or(Duration::ZERO, |moment| moment.saturating_duration_since(Instant::now()));
    std::thread::sleep(left);
}
