//! Certificates that come and go while the daemon runs, from the fleet's store: every entrypoint that shows what is in the store
//! looks here, at each handshake. Who puts them here is [`crate::fleet::sharing`].

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{certificates::Certificates, names::Table};

#[derive(Debug, Default)]
pub struct Shelf(ArcSwap<Held>);

#[derive(Debug, Default)]
pub struct Held {
    pub certificates: Certificates,
    table: Arc<Table>,
}

impl Shelf {
    /// From the next handshake on, these are shown, and no others.
    pub fn put(&self, certificates: Certificates) {
        let table = Arc::new(Table::new(&certificates));
        self.0.store(Arc::new(Held { certificates, table }));
    }

    pub fn held(&self) -> Arc<Held> {
        self.0.load_full()
    }

    pub fn table(&self) -> Arc<Table> {
        self.0.load().table.clone()
    }
}
