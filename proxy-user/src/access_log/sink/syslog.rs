//! A log in a syslog: on this host, or elsewhere over UDP, TCP (counted octets, RFC 6587) or TLS (RFC 5425).

mod channel;
pub mod message;

use std::io;

use super::{Place, Stopped, each_line};
use crate::config::model;
use channel::Channel;
use message::Framer;

/// As much is sent at a time, where messages need not be sent one by one. When a connection breaks, what it took of that
/// is sent again: rather twice than never.
const BATCH: usize = 16 * 1024;

pub struct Syslog {
    channel: Channel,
    framer: Framer,
    message: Vec<u8>,
    batch: Vec<u8>,
}

impl Syslog {
    pub fn new(syslog: &model::Syslog, log: &str) -> io::Result<Self> {
        let channel = Channel::new(&syslog.transport)?;
        let framer = Framer::new(syslog, channel.is_local(), log);
        Ok(Self { channel, framer, message: Vec::new(), batch: Vec::new() })
    }
}

impl Place for Syslog {
    fn write(&mut self, lines: &[u8]) -> Result<(), Stopped> {
        let mut done = 0;
        self.channel.open().map_err(|error| Stopped { done, error })?;
        self.framer.now();
        self.batch.clear();
        for line in each_line(lines) {
            self.message.clear();
            self.framer.write(line.severity, line.text, &mut self.message);
            let ready = if self.channel.counts_octets() {
                self.batch.extend_from_slice(itoa::Buffer::new().format(self.message.len()).as_bytes());
                self.batch.push(b' ');
                self.batch.extend_from_slice(&self.message);
                if self.batch.len() < BATCH && line.end < lines.len() {
                    continue;
                }
                &self.batch
            } else {
                &self.message
            };
            self.channel.send(ready).map_err(|error| Stopped { done, error })?;
            self.batch.clear();
            done = line.end;
        }
        Ok(())
    }

    fn comes_back(&self) -> bool {
        true
    }
}
