//! Where the memory of a request's future waits for the next request of the worker.
//!
//! The future is larger than what glibc keeps at hand for each thread (1 KiB), so that to allocate it anew for each request
//! costs a search through free memory, and to free it a merge with its neighbours: 4 % of a small request. Connections
//! that are idle hold none of it.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    cell::RefCell,
    pin::Pin,
    ptr::NonNull,
    task::{Context, Poll},
};

/// So many pieces are kept for later; a worker has about as many requests under way at a time.
const MOST: usize = 64;

thread_local! {
    static SHELF: RefCell<Shelf> = const { RefCell::new(Shelf(Vec::new())) };
}

/// Memory that nobody uses, all of it allocated with the layout beside it.
struct Shelf(Vec<(NonNull<u8>, Layout)>);

/// A future on the heap, in memory that goes back to the shelf.
pub struct Shelved<F> {
    /// Holds an `F`, until this is dropped.
    at: NonNull<F>,
}

// === impl Shelf ===

impl Shelf {
    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // There is one kind of future, so the last is mostly right.
        let index = self.0.iter().rposition(|(_, known)| *known == layout)?;
        Some(self.0.swap_remove(index).0)
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        for (memory, layout) in self.0.drain(..) {
            // SAFETY: it was allocated with this layout, and nobody else knows it.
            unsafe { dealloc(memory.as_ptr(), layout) };
        }
    }
}

// === impl Shelved ===

impl<F: Future> Shelved<F> {
    /// `make` writes the future where it stays: none is copied.
    pub fn new(make: impl FnOnce() -> F) -> Self {
        const { assert!(size_of::<F>() > 0) };
        let layout = Layout::new::<F>();
        let known = SHELF.with_borrow_mut(|shelf| shelf.take(layout));
        let memory = known.unwrap_or_else(|| {
            // SAFETY: the layout's size is not zero.
            NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
        });
        let at = memory.cast::<F>();
        // SAFETY: the memory has the layout of an `F`, and nobody else knows it. Should `make` panic, it leaks.
        unsafe { at.write(make()) };
        Self { at }
    }
}

impl<F: Future> Future for Shelved<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `at` holds an `F` that nobody else refers to. It never moves: it is dropped where it was written.
        unsafe { Pin::new_unchecked(self.at.as_mut()) }.poll(cx)
    }
}

// The future itself doesn't move when this does.
impl<F> Unpin for Shelved<F> {}

impl<F> Drop for Shelved<F> {
    fn drop(&mut self) {
        /// Back on the shelf, also if the future panics while it is dropped.
        struct Back(NonNull<u8>, Layout);
        impl Drop for Back {
            fn drop(&mut self) {
                let Self(memory, layout) = *self;
                // When the thread ends, the shelf may be gone already.
                let shelved = SHELF.try_with(|shelf| {
                    let mut shelf = shelf.borrow_mut();
                    let fits = shelf.0.len() < MOST;
                    if fits {
                        shelf.0.push((memory, layout));
                    }
                    fits
                });
                if !shelved.unwrap_or(false) {
                    // SAFETY: it was allocated with this layout, and holds nothing any more.
                    unsafe { dealloc(memory.as_ptr(), layout) };
                }
            }
        }
        let _back = Back(self.at.cast(), Layout::new::<F>());
        // SAFETY: `at` holds an `F`, which nobody refers to any more, and which is not dropped twice.
        unsafe { self.at.drop_in_place() };
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending, rc::Rc, task::Waker};

    use super::*;

    fn poll<F: Future>(future: &mut Shelved<F>) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Says when it is dropped.
    struct Guard(Rc<Cell<u32>>);

    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn a_future_runs_and_its_memory_serves_the_next() {
        let at = |text: &'static str| {
            let bytes = [7_u8; 3000];
            let mut future = Shelved::new(|| async move { (text, bytes.len()) });
            assert_eq!(poll(&mut future), Poll::Ready((text, 3000)));
            future.at.cast::<u8>()
        };
        assert_eq!(at("one"), at("two"));
    }

    #[test]
    fn what_a_future_holds_is_dropped_once_finished_or_not() {
        let dropped = Rc::new(Cell::new(0));
        let make = |ends: bool| {
            let guard = Guard(dropped.clone());
            Shelved::new(|| async move {
                let _guard = guard;
                if !ends {
                    pending::<()>().await;
                }
            })
        };
        let mut one = make(true);
        assert!(poll(&mut one).is_ready());
        drop(one);
        let mut two = make(false);
        assert!(poll(&mut two).is_pending());
        drop((two, make(false)));
        assert_eq!(dropped.get(), 3);
    }

    #[test]
    fn more_than_the_shelf_holds_are_freed() {
        let many: Vec<_> = (0..2 * MOST).map(|number| Shelved::new(|| async move { number })).collect();
        drop(many);
        SHELF.with_borrow(|shelf| assert_eq!(shelf.0.len(), MOST));
    }
}
