//! Everybody who is on the way through the edge while a daemon takes over from another one: requests over HTTP/1.1 and HTTP/2, a
//! connection that speaks WebSocket's kind of protocol, one that is relayed, and one that the kernel carries.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, ensure};

use super::{
    Lab,
    addresses::{EDGE, HTTP, HTTPS, ONE},
    client::Browser,
    load::{self, Load, Record},
    raw::{Raw, serve},
    stand::{PATIENCE, Stand},
    wait,
};

const ECHO: u16 = 9100;
const SWITCHING: u16 = 9101;
const RELAYED: SocketAddr = SocketAddr::new(IpAddr::V4(EDGE), 7001);
const CARRIED: SocketAddr = SocketAddr::new(IpAddr::V4(EDGE), 7002);

/// What the configuration has beside the standard one.
#[must_use]
pub fn configuration() -> String {
    format!(
        r#"
[entrypoint.plain]
bind = "{HTTP}"
allow = ["cloudflare"]
[entrypoint.relayed]
bind = "{RELAYED}"
protocol = "tcp"
allow = ["cloudflare"]
[entrypoint.carried]
bind = "{CARRIED}"
protocol = "tcp"
allow = ["cloudflare"]
[service.switching]
servers = ["{ONE}:{SWITCHING}"]
[service.relayed]
servers = ["{ONE}:{ECHO}"]
offload = "off"
[service.carried]
servers = ["{ONE}:{ECHO}"]
[[route]]
name = "switching"
entrypoint = "plain"
service = "switching"
[[route]]
name = "relayed"
entrypoint = "relayed"
passthrough = "relayed"
[[route]]
name = "carried"
entrypoint = "carried"
passthrough = "carried"
"#
    )
}

/// Those that stay for as long as this is.
#[derive(Debug)]
pub struct Travellers {
    loads: [Load; 2],
    lasting: Vec<Lasting>,
    said: u64,
}

/// A connection that is kept, and says something now and then.
#[derive(Debug)]
pub struct Lasting {
    what: &'static str,
    line: Raw,
}

impl Travellers {
    /// Sets all of them off, so many requests a second each.
    pub fn set_off(stand: &Stand, per_second: u32) -> anyhow::Result<Self> {
        let lab = &stand.lab;
        serve(&lab.one, &format!("{ONE}:{ECHO}"), |_, line| echo(line))?;
        serve(&lab.one, &format!("{ONE}:{SWITCHING}"), |_, line| switch(line))?;
        wait::until_true("the kernel carries what it is to carry", PATIENCE, || {
            let forwarding = stand.weir.status()?["forwarding"]["entrypoints"].take();
            let all = forwarding.as_array().into_iter().flatten();
            Ok(all.filter(|one| one["entrypoint"] == "carried").any(|one| one.get("why_not").is_none()))
        })
        .with_context(|| {
            stand.weir.status().map(|status| status["forwarding"].to_string()).unwrap_or_default()
        })?;
        let second = Browser::new(lab, &lab.visitor, HTTPS, &["h2"])?;
        let load = |browser| Load::start(&lab.visitor, browser, "/", per_second);
        let loads = [load(&stand.visitor)?, load(&second)?];
        for load in &loads {
            load.wait_for_more(20, PATIENCE)?;
        }
        let mut travellers = Self { loads, lasting: Lasting::all(lab)?, said: 0 };
        travellers.all_are_heard()?;
        Ok(travellers)
    }

    /// Connections that last say something, and it comes back.
    pub fn all_are_heard(&mut self) -> anyhow::Result<()> {
        for lasting in &mut self.lasting {
            self.said += 1;
            lasting.is_heard(self.said)?;
        }
        Ok(())
    }

    /// So many more requests of each load have ended.
    pub fn wait_for_more(&self, requests: usize) -> anyhow::Result<()> {
        self.loads.iter().try_for_each(|load| load.wait_for_more(requests, PATIENCE))
    }

    /// Ends those connections, so that whoever has them is rid of them.
    pub fn leave(&mut self) {
        self.lasting.clear();
    }

    /// Everything that was asked.
    pub fn arrive(self) -> anyhow::Result<Vec<Record>> {
        let mut records = Vec::new();
        for load in self.loads {
            records.extend(load.stop()?);
        }
        Ok(records)
    }

    /// All went well.
    pub fn arrive_all(self) -> anyhow::Result<()> {
        load::all_served(&self.arrive()?)
    }
}

impl Lasting {
    /// One of each kind.
    pub fn all(lab: &Lab) -> anyhow::Result<Vec<Self>> {
        let mut switched = Raw::connect(&lab.visitor, HTTP)?;
        switched.say(
            b"GET /chat HTTP/1.1\r\nHost: chat.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )?;
        let head = switched.head()?;
        ensure!(head.starts_with("http/1.1 101 "), "not switched:\n{head}");
        Ok(vec![
            Self { what: "a WebSocket", line: switched },
            Self { what: "a connection that is relayed", line: Raw::connect(&lab.visitor, RELAYED)? },
            Self { what: "a flow in the kernel", line: Raw::connect(&lab.visitor, CARRIED)? },
        ])
    }

    pub fn is_heard(&mut self, number: u64) -> anyhow::Result<()> {
        let said = format!("{number:08}: {}\n", self.what);
        let mut back = vec![0; said.len()];
        self.line.say(&said).with_context(|| self.what)?;
        self.line.stream.read_exact(&mut back).with_context(|| self.what)?;
        ensure!(back == said.as_bytes(), "{} brought back {:?}", self.what, String::from_utf8_lossy(&back));
        Ok(())
    }
}

fn echo(mut line: Raw) -> anyhow::Result<()> {
    let mut buffer = [0; 4096];
    // Whoever says nothing for long is still there.
    line.stream.set_read_timeout(None)?;
    line.stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    loop {
        match line.stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => line.stream.write_all(&buffer[..read])?,
        }
    }
}

fn switch(mut line: Raw) -> anyhow::Result<()> {
    line.head()?;
    line.say(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
    echo(line)
}
