//! The lines of connections that a daemon before has handed to the kernel and this one sees end. No worker of this one knows
//! them: what is known stands in the kernel, and in the configuration that runs now.

use std::{net::SocketAddr, time::SystemTime};

use proxy_common::translate;
use tokio::sync::mpsc;

use crate::{
    access_log::{WorkerLog, connections::Connection},
    handover::Ended,
    passthrough::record::how,
    snapshot::Snapshot,
    worker::Running,
};

/// Writes a line for each, until nobody tells of any more.
pub async fn write_down(mut ended: mpsc::UnboundedReceiver<Ended>, running: Running) {
    let log = WorkerLog::default();
    while let Some(one) = ended.recv().await {
        let snapshot = running.load_full();
        log.switch_to(&snapshot.access_logs);
        write(&log, &snapshot, &one);
        while let Ok(one) = ended.try_recv() {
            write(&log, &snapshot, &one);
        }
        log.flush();
    }
}

fn write(log: &WorkerLog, snapshot: &Snapshot, ended: &Ended) {
    let service = snapshot.services.iter().find(|service| translate::service(&service.name) == ended.service);
    let upstream = ended.server.to_string();
    let (end, ended_by) = how(ended.how);
    log.connection(&Connection {
        ts: SystemTime::now().checked_sub(ended.lasted).unwrap_or(SystemTime::UNIX_EPOCH),
        kind: "connection",
        client_ip: ended.client.ip(),
        client_port: ended.client.port(),
        protocol: "tcp",
        in_kernel: false,
        entrypoint: entrypoint(snapshot, ended.entrypoint).unwrap_or("?"),
        sni: None,
        route: None,
        service: service.map(|service| &*service.name),
        upstream: Some(&upstream),
        upstream_us: None,
        attempts: &[],
        bytes_in: ended.bytes_from_client,
        bytes_out: ended.bytes_from_server,
        duration_us: u64::try_from(ended.lasted.as_micros()).unwrap_or(u64::MAX),
        end,
        ended_by,
    });
}

/// The one at which it came in: bound to its very address before one that is bound to all.
fn entrypoint(snapshot: &Snapshot, at: SocketAddr) -> Option<&str> {
    let bound = |is_the_one: &dyn Fn(SocketAddr) -> bool| {
        let mut all = snapshot.config.entrypoints.iter();
        all.find(|entrypoint| entrypoint.bind.iter().any(|bind| is_the_one(*bind)))
    };
    let very = bound(&|bind| bind == at);
    very.or_else(|| bound(&|bind| bind.ip().is_unspecified() && bind.port() == at.port()))
        .map(|entrypoint| &*entrypoint.name)
}
