//! Servers that break every connection at one point of the exchange.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use weir_lab::lab::namespace::Namespace;

/// Servers that break connections at a given point of the exchange, and count those over which something came.
pub struct Cutter {
    after: Arc<Mutex<Cut>>,
    met: Arc<AtomicUsize>,
}

#[derive(Debug, Clone, Copy)]
pub enum Cut {
    /// When so many bytes have been read.
    Reading(usize),
    /// When nothing more comes.
    Whole,
    /// In the middle of the answer's head.
    Answering,
}

impl Cutter {
    pub fn start(namespaces: &[&Namespace]) -> anyhow::Result<Self> {
        let (after, met) = (Arc::new(Mutex::new(Cut::Whole)), Arc::new(AtomicUsize::new(0)));
        for namespace in namespaces {
            let listener = namespace.run(|| TcpListener::bind("0.0.0.0:9090"))??;
            let (after, met) = (after.clone(), met.clone());
            std::thread::spawn(move || {
                for mut stream in listener.incoming().map_while(Result::ok) {
                    let cut = *after.lock().unwrap_or_else(PoisonError::into_inner);
                    // Counted before the connection breaks: whoever hears of that may look at once.
                    if read_until(&mut stream, cut) {
                        met.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        Ok(Self { after, met })
    }

    pub fn begin(&self, after: Cut) {
        *self.after.lock().unwrap_or_else(PoisonError::into_inner) = after;
        self.met.store(0, Ordering::SeqCst);
    }

    pub fn met(&self) -> usize {
        self.met.load(Ordering::SeqCst)
    }
}

/// Whether something came.
fn read_until(stream: &mut TcpStream, cut: Cut) -> bool {
    let most = if let Cut::Reading(most) = cut { most } else { usize::MAX };
    let mut received = 0;
    // The request's bytes come at once; when no more come for a moment, it is whole.
    let _ = stream.set_read_timeout(Some(Duration::from_millis(30)));
    while received < most {
        let mut some = [0; 16];
        let room = some.len().min(most - received);
        match stream.read(&mut some[..room]) {
            Ok(0) | Err(_) => break,
            Ok(read) => received += read,
        }
    }
    if matches!(cut, Cut::Answering) {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le");
    }
    received > 0
}
