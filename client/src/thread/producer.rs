//! Sending records.

use super::Inner;
use super::delivery::{Callback, Delivery, Report, Token};
use super::signal::Signal;
use crate::{Error, Record};
use std::sync::Arc;
use std::time::Instant;

/// Sends records. Cheap to clone, and usable from any thread: records of one thread keep their
/// order within a partition.
#[derive(Clone, Debug)]
pub struct Producer {
    inner: Arc<Inner>,
}

impl Producer {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Sends a record. Blocks while the memory budget is used up, at most for the delivery timeout.
    ///
    /// # Errors
    /// If the record was not accepted; then nothing happened. What becomes of it afterwards is told
    /// by the delivery.
    pub fn send(&self, record: &Record<'_>) -> Result<Delivery, Error> {
        let (delivery, cell) = Delivery::new();
        self.accept(record, Token::Handle(cell), true)?;
        Ok(delivery)
    }

    /// As [`send`](Self::send), but gives [`Error::Full`] rather than block.
    ///
    /// # Errors
    /// If the record was not accepted.
    pub fn try_send(&self, record: &Record<'_>) -> Result<Delivery, Error> {
        let (delivery, cell) = Delivery::new();
        self.accept(record, Token::Handle(cell), false)?;
        Ok(delivery)
    }

    /// Sends a record of which nobody wants to hear again. [`flush`](Self::flush) waits for it too.
    ///
    /// # Errors
    /// If the record was not accepted.
    pub fn send_and_forget(&self, record: &Record<'_>) -> Result<(), Error> {
        self.accept(record, Token::Nobody, true)
    }

    /// Sends with a callback instead of handles: no allocation per record, and no thread to wake.
    ///
    /// The callback is called on the client's IO thread, with the tag that the record was sent with.
    /// It must be quick and must not block: sends from inside it are never blocked but refused with
    /// [`Error::Full`].
    #[must_use]
    pub fn on_delivery(
        &self,
        callback: impl Fn(u64, Result<&Report, &Error>) + Send + Sync + 'static,
    ) -> CallbackProducer {
        CallbackProducer { producer: self.clone(), callback: Arc::new(callback) }
    }

    /// Sends what lingers, and waits until all that was sent before is delivered or failed, and
    /// has been told: every handle is done, every callback was called. From inside a callback it
    /// does not wait, since the callback is what it would wait for.
    pub fn flush(&self) {
        let signal = Arc::new(Signal::default());
        let mut step = self.inner.shared.step();
        let now = step.now;
        let core = &mut *step.core;
        if core.is_stopping {
            return;
        }
        let flush = core.engine.flush(now, &mut core.effects);
        if core.io_thread == Some(std::thread::current().id()) {
            step.finish();
            return;
        }
        core.flushes.insert(flush, Arc::clone(&signal));
        step.finish();
        signal.wait_until(None);
    }

    fn accept(&self, record: &Record<'_>, mut token: Token, may_block: bool) -> Result<(), Error> {
        let mut until = None;
        let mut step = self.inner.shared.step();
        loop {
            let now = step.now;
            let core = &mut *step.core;
            match core.engine.produce(now, record, token, &mut core.effects) {
                Ok(()) => {
                    step.finish();
                    return Ok(());
                }
                Err((Error::Full, back)) if may_block => token = back,
                Err((error, _)) => return Err(error),
            }
            let until = *until.get_or_insert_with(|| Instant::now() + self.inner.delivery_max);
            let is_io_thread = core.io_thread == Some(std::thread::current().id());
            if is_io_thread || Instant::now() >= until {
                return Err(Error::Full);
            }
            step = step.wait_for_room(until);
        }
    }
}

/// Sends records whose deliveries go to a callback.
#[derive(Clone)]
pub struct CallbackProducer {
    producer: Producer,
    callback: Arc<Callback>,
}

impl CallbackProducer {
    /// Sends a record. Blocks while the memory budget is used up, but not on the IO thread.
    ///
    /// # Errors
    /// If the record was not accepted; then the callback is not called.
    pub fn send(&self, record: &Record<'_>, tag: u64) -> Result<(), Error> {
        self.producer.accept(record, Token::Callback(Arc::clone(&self.callback), tag), true)
    }

    /// As [`send`](Self::send), but gives [`Error::Full`] rather than block.
    ///
    /// # Errors
    /// If the record was not accepted; then the callback is not called.
    pub fn try_send(&self, record: &Record<'_>, tag: u64) -> Result<(), Error> {
        self.producer.accept(record, Token::Callback(Arc::clone(&self.callback), tag), false)
    }

    /// As [`Producer::flush`]: afterwards the callbacks of all that was sent before were called.
    pub fn flush(&self) {
        self.producer.flush();
    }
}

impl std::fmt::Debug for CallbackProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallbackProducer").finish_non_exhaustive()
    }
}
