//! TLS that breaks off or lies, at every point of a connection: it is refused or let go, and nobody else notices.

use std::{
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use rustls::{AlertDescription, ClientConfig, ClientConnection, Stream, pki_types::ServerName};
use weir_lab::{
    lab::{
        SITE,
        addresses::HTTPS,
        raw::Raw,
        stand::{PATIENCE, Stand},
        wait,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// How far a client goes before it breaks off.
#[derive(Debug, Clone, Copy)]
enum Point {
    Connected,
    HalfAHello,
    Hello,
    ServerHello,
    Handshake,
    HalfARecord,
    HalfAHead,
    HalfABody,
    Request,
    HalfAnAnswer,
}

/// How it breaks off.
#[derive(Debug, Clone, Copy)]
enum End {
    Close,
    Reset,
    /// Its own side alone, for a moment.
    HalfClose,
    /// As TLS wants it.
    CloseNotify,
}

const POINTS: [Point; 10] = [
    Point::Connected,
    Point::HalfAHello,
    Point::Hello,
    Point::ServerHello,
    Point::Handshake,
    Point::HalfARecord,
    Point::HalfAHead,
    Point::HalfABody,
    Point::Request,
    Point::HalfAnAnswer,
];
const ENDS: [End; 4] = [End::Close, End::Reset, End::HalfClose, End::CloseNotify];

/// A connection as the client sees it.
struct Client {
    raw: Raw,
    tls: ClientConnection,
}

impl Client {
    fn connect(stand: &Stand, config: &Arc<ClientConfig>) -> anyhow::Result<Self> {
        let raw = Raw::connect(&stand.lab.visitor, HTTPS)?;
        let tls = ClientConnection::new(config.clone(), ServerName::try_from(SITE)?)?;
        Ok(Self { raw, tls })
    }

    fn hello(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut hello = Vec::new();
        self.tls.write_tls(&mut hello)?;
        Ok(hello)
    }

    fn shakes_hands(&mut self) -> std::io::Result<()> {
        while self.tls.is_handshaking() {
            self.tls.complete_io(&mut self.raw.stream)?;
        }
        Ok(())
    }

    fn says(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(Stream::new(&mut self.tls, &mut self.raw.stream).write_all(text.as_bytes())?)
    }

    fn goes_to(&mut self, point: Point) -> Done {
        match point {
            Point::Connected => return Ok(()),
            Point::HalfAHello => {
                let hello = self.hello()?;
                return self.raw.say(&hello[..hello.len() / 2]);
            }
            Point::Hello | Point::ServerHello => {
                let hello = self.hello()?;
                self.raw.say(hello)?;
                if matches!(point, Point::ServerHello) {
                    self.raw.stream.read_exact(&mut [0; 100])?;
                }
                return Ok(());
            }
            _ => self.shakes_hands()?,
        }
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {SITE}\r\n\r\n");
        match point {
            Point::HalfARecord => {
                self.tls.writer().write_all(get("/").as_bytes())?;
                let record = self.hello()?;
                self.raw.say(&record[..record.len() / 2])
            }
            Point::HalfAHead => self.says("GET / HTTP/1.1\r\nHo"),
            Point::HalfABody => {
                self.says(&format!("POST /count HTTP/1.1\r\nHost: {SITE}\r\nContent-Length: 9\r\n\r\nhalf"))
            }
            // Whoever closes as TLS wants it may still wait for its answer, so that comes soon.
            Point::Request => self.says(&get("/slow?ms=500")),
            Point::HalfAnAnswer => {
                self.says(&get("/bytes?n=3000000"))?;
                Stream::new(&mut self.tls, &mut self.raw.stream).read_exact(&mut [0; 100])?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn ends(mut self, end: End) -> Done {
        match end {
            End::Close => {}
            End::Reset => socket2::SockRef::from(&self.raw.stream).set_linger(Some(Duration::ZERO))?,
            End::HalfClose => {
                self.raw.end()?;
                self.raw.stream.set_read_timeout(Some(Duration::from_millis(20)))?;
                let _ = self.raw.stream.read(&mut [0; 4096]);
            }
            End::CloseNotify => {
                self.tls.send_close_notify();
                let rest = self.hello()?;
                self.raw.say(rest)?;
            }
        }
        Ok(())
    }
}

fn open_files(stand: &Stand) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", stand.weir.pid()))?.count())
}

/// Waits until so many connections of clients are left.
fn connections_are(stand: &Stand, left: u64) -> Done {
    wait::until_true(&format!("{left} connections are left"), PATIENCE * 2, || {
        let workers = stand.weir.status()?["workers"].clone();
        let open = workers.as_array().map(|each| each.iter().filter_map(serde_json::Value::as_u64).sum());
        Ok(open == Some(left))
    })
}

#[test]
fn what_breaks_off_or_lies_at_any_point_leaves_nothing_behind() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    let config = stand.lab.authority.client_config(&["http/1.1"])?;
    // Who says nothing more in the middle of a handshake is let go; meanwhile others are served.
    let mut silent = Vec::new();
    for point in [Point::Connected, Point::HalfAHello, Point::ServerHello] {
        let mut client = Client::connect(&stand, &config)?;
        client.goes_to(point)?;
        silent.push(client);
    }
    let sweep = || -> Done {
        for point in POINTS {
            for end in ENDS {
                let mut client = Client::connect(&stand, &config)?;
                client.goes_to(point).with_context(|| format!("{point:?}"))?;
                client.ends(end).with_context(|| format!("{point:?}, {end:?}"))?;
            }
            assert_eq!(stand.visitor.get("/")?.status, 200, "{point:?}");
        }
        // A hello with a byte of it wrong, wherever: refused, or understood in another way.
        let length = Client::connect(&stand, &config)?.hello()?.len();
        for at in (0..length).step_by(13) {
            let mut client = Client::connect(&stand, &config)?;
            let mut hello = client.hello()?;
            let at = at.min(hello.len() - 1);
            hello[at] ^= 0xff;
            let _ = client.raw.say(hello);
        }
        assert_eq!(stand.visitor.get("/")?.status, 200);
        Ok(())
    };
    sweep()?;
    connections_are(&stand, 0).context("the silent ones are let go too")?;
    for client in &mut silent {
        client.raw.rest().context("it was not closed")?;
    }
    let (files, memory) = (open_files(&stand)?, stand.weir.process().memory("VmRSS")?);
    for _ in 0..3 {
        sweep()?;
    }
    connections_are(&stand, 0)?;
    // Connections to servers come and go, a few at a time.
    wait::until_true("no file is left open", PATIENCE, || Ok(open_files(&stand)? <= files + 4))?;
    let grown = stand.weir.process().memory("VmRSS")?.saturating_sub(memory);
    ensure!(grown < 4 << 20, "it keeps {grown} bytes");
    assert!(!stand.weir.log_text().contains("panicked"), "{}", stand.weir.log_text());
    Ok(())
}

#[test]
fn names_and_protocols_that_are_none_are_refused_and_a_side_may_be_closed() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up()?;
    // 1. Protocols that nobody speaks here. Without any, HTTP/1.1 is spoken.
    for offered in [&["nonsense"][..], &["h3"], &["acme-tls/1"], &["http/0.9", "spdy/3"]] {
        let mut client = Client::connect(&stand, &stand.lab.authority.client_config(offered)?)?;
        let refused = client.shakes_hands().expect_err("there is nothing to speak").into_inner();
        let refused = refused.and_then(|why| why.downcast::<rustls::Error>().ok());
        let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
        assert_eq!(refused.as_deref(), Some(&alert), "{offered:?}");
    }
    // 2. Names that are none, as long as a real one: an alert, or the certificate for unknown ones.
    let config = stand.lab.authority.client_config(&[])?;
    for (name, is_refused) in
        [(b'\0', true), (b'.', true), (b' ', true), (0xff, true), (b'9', true), (b'a', false)]
    {
        let mut client = Client::connect(&stand, &config)?;
        let mut hello = client.hello()?;
        let at = hello.windows(SITE.len()).position(|part| part == SITE.as_bytes()).context("no name")?;
        hello[at..at + SITE.len()].fill(name);
        client.raw.say(hello)?;
        let mut record = [0; 6];
        client.raw.stream.read_exact(&mut record)?;
        // The type of the first record: an alert, or a handshake.
        assert_eq!(record[0], if is_refused { 0x15 } else { 0x16 }, "{name:#x}");
    }
    let told = stand.weir.log_text();
    assert!(!told.contains("SNI"), "a stranger can fill the log: {told}");
    // 3. A client may end its side behind its request, if it says so.
    for closes in [false, true] {
        let mut client = Client::connect(&stand, &config)?;
        client.shakes_hands()?;
        client.says(&format!("GET /slow?ms=300 HTTP/1.1\r\nHost: {SITE}\r\n\r\n"))?;
        client.tls.send_close_notify();
        let rest = client.hello()?;
        client.raw.say(rest)?;
        if closes {
            client.raw.end()?;
        }
        let mut answer = [0; 15];
        Stream::new(&mut client.tls, &mut client.raw.stream).read_exact(&mut answer)?;
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
    }
    assert_eq!(stand.visitor.get("/")?.status, 200);
    Ok(())
}
