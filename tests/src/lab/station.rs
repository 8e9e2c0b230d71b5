//! A thread with a runtime inside a namespace: where clients written in Rust live.

use std::{future::Future, sync::Arc, thread::JoinHandle};

use anyhow::Context;
use tokio::{runtime::Handle, sync::Notify};

use super::namespace::Namespace;

/// Everything that is run here makes its sockets in the namespace.
#[derive(Debug)]
pub struct Station {
    runtime: Handle,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Station {
    pub fn open(namespace: &Namespace) -> anyhow::Result<Self> {
        // One thread for all: entered once, and no worker or blocking thread of the runtime is elsewhere.
        let (tell, told) = std::sync::mpsc::channel();
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let inside = namespace.run(|| {
            // A thread is born in the namespace of the thread that starts it.
            std::thread::Builder::new().name(format!("in {}", namespace.name())).spawn(move || {
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(why) => {
                        let _ = tell.send(Err(why));
                        return;
                    }
                };
                let _ = tell.send(Ok(runtime.handle().clone()));
                runtime.block_on(stopped.notified());
            })
        })?;
        let thread = inside.context("can't start a thread")?;
        let runtime = told.recv().context("the thread ended early")?.context("can't make a runtime")?;
        Ok(Self { runtime, stop, thread: Some(thread) })
    }

    /// Runs to the end, seen from outside of any runtime.
    pub fn run<F>(&self, work: F) -> anyhow::Result<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (tell, told) = std::sync::mpsc::channel();
        self.runtime.spawn(async move {
            let _ = tell.send(work.await);
        });
        told.recv().context("the work panicked or its station was closed")
    }

    /// Starts something that goes on by itself until the station closes.
    pub fn spawn<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.runtime.spawn(work);
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
