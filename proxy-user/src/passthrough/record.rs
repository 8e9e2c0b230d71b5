//! What is noted of a connection on its way, for the access log. Its line is written however it ends, also when the host
//! that carries it does.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{
    reach::{Attempt, Reached},
    relay::{Carried, Ended, Side},
};
use crate::{
    access_log::{
        WorkerLog,
        connections::{By, Connection, End},
    },
    handover::{self, How, Who},
    kernel::Protocol,
    service::{Server, Service},
};

#[derive(Debug)]
pub struct Record {
    log: Rc<WorkerLog>,
    began: Instant,
    at: SystemTime,
    client: SocketAddr,
    protocol: Protocol,
    entrypoint: Arc<str>,
    pub sni: Option<Box<str>>,
    pub route: Option<Arc<str>>,
    service: Option<Arc<str>>,
    upstream: Option<Arc<str>>,
    upstream_us: Option<u64>,
    pub attempts: Vec<Attempt>,
    pub carried: Rc<Carried>,
    /// `None`: it isn't over.
    end: Option<(End, By)>,
    is_told: bool,
}

impl Record {
    pub fn begin(log: Rc<WorkerLog>, client: SocketAddr, entrypoint: Arc<str>) -> Self {
        Self {
            log,
            began: Instant::now(),
            at: SystemTime::now(),
            client,
            protocol: Protocol::Tcp,
            entrypoint,
            sni: None,
            route: None,
            service: None,
            upstream: None,
            upstream_us: None,
            attempts: Vec::new(),
            carried: Rc::default(),
            end: None,
            is_told: false,
        }
    }

    /// Of a session of datagrams, which is always told of.
    pub fn of_datagrams(log: Rc<WorkerLog>, client: SocketAddr, entrypoint: Arc<str>) -> Self {
        let mut record = Self::begin(log, client, entrypoint);
        (record.protocol, record.is_told) = (Protocol::Udp, true);
        record
    }

    pub fn goes_to(&mut self, service: &Service, server: &Server) {
        self.service = Some(service.name.clone());
        self.upstream = Some(server.label.clone());
    }

    pub fn reached(&mut self, reached: &Reached) {
        self.goes_to(&reached.service, reached.server());
        self.upstream_us = u64::try_from(reached.took.as_micros()).ok();
    }

    /// It is one that is told of: a route takes it, or nobody else would.
    pub fn counts(&mut self) {
        self.is_told = true;
    }

    /// It is over: writes its line.
    pub fn over(mut self, end: End, by: By) {
        self.end = Some((end, by));
    }

    /// The kernel carries it on, also when this host's daemon ends.
    pub fn handed_over(&mut self) {
        self.end = Some((End::HandedOver, By::Weir));
    }

    /// The kernel has carried it to its end. Bytes are those since it was handed over.
    pub fn ended_in_the_kernel(self, ended: &handover::Ended) {
        self.carried.to_server.set(self.carried.to_server.get() + ended.bytes_from_client);
        self.carried.to_client.set(self.carried.to_client.get() + ended.bytes_from_server);
        let (end, by) = how(ended.how);
        self.over(end, by);
    }

    /// It was carried to its end.
    pub fn ended(self, how: &Ended) {
        match how {
            Ended::Closed(first) => self.over(End::Closed, by(*first)),
            Ended::Broken(side, _) => self.over(End::Reset, by(*side)),
        }
    }
}

/// How the log calls the end of a connection that the kernel has carried.
pub fn how(ended: How) -> (End, By) {
    let by = |who| match who {
        Who::Client => By::Client,
        Who::Server => By::Server,
    };
    match ended {
        How::Closed(who) => (End::Closed, by(who)),
        How::Reset(who) => (End::Reset, by(who)),
        How::Unanswered => (End::Reset, By::Server),
        How::Idle => (End::Idle, By::Weir),
        How::Lifetime => (End::Lifetime, By::Weir),
    }
}

fn by(side: Side) -> By {
    match side {
        Side::Client => By::Client,
        Side::Server => By::Server,
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.is_told {
            return;
        }
        // Let go in the middle: the worker ends.
        let (end, ended_by) = self.end.unwrap_or((End::Drain, By::Weir));
        self.log.connection(&Connection {
            ts: self.at,
            kind: "connection",
            client_ip: self.client.ip().to_canonical(),
            client_port: self.client.port(),
            protocol: self.protocol.name(),
            in_kernel: false,
            entrypoint: &self.entrypoint,
            sni: self.sni.as_deref(),
            route: self.route.as_deref(),
            service: self.service.as_deref(),
            upstream: self.upstream.as_deref(),
            upstream_us: self.upstream_us,
            attempts: &self.attempts,
            bytes_in: self.carried.to_server.get(),
            bytes_out: self.carried.to_client.get(),
            duration_us: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
            end,
            ended_by,
        });
    }
}
