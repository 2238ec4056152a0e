//! The client inside a glommio executor: the engine, its sockets and its users share one core and
//! no lock. Handles are futures; nothing here may leave the executor.

mod cell;
mod links;

pub use cell::Delivered;

use crate::engine::{
    AdminReply, AdminRequest, AssignmentId, Config, ConsumerConfig, ConsumerId, Effect, Effects,
    Engine, Fetched, FlushId, LinkId, Monotonic, Now, ObjectiveReport, Position, RequestId,
};
use crate::{Error, Offset, Record};
use cell::Cell;
use links::Link;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A connection to a cluster, for the executor that made it. Cheap to clone. Its tasks end when it
/// is [closed](Self::close) or its last clone goes.
#[derive(Clone, Debug)]
pub struct GlommioClient {
    inner: Rc<Inner>,
}

/// Whose drop ends the tasks, which hold only the core.
#[derive(Debug)]
struct Inner {
    core: Rc<RefCell<Core>>,
}

/// What becomes of one record.
type Token = Option<Rc<Cell<Result<Delivered, Error>>>>;

#[derive(Debug)]
struct Core {
    engine: Engine<Token>,
    effects: Effects<Token>,
    links: BTreeMap<LinkId, Rc<Link>>,
    flushes: BTreeMap<FlushId, Rc<Cell<()>>>,
    requests: BTreeMap<RequestId, Rc<Cell<Result<AdminReply, Error>>>>,
    consumers: BTreeMap<ConsumerId, Option<Waker>>,
    /// Connections to be opened once the core is not borrowed.
    to_open: Vec<Rc<Link>>,
    /// Of the timer task.
    timer: Option<Waker>,
    is_closed: bool,
    started: Instant,
}

impl GlommioClient {
    /// A client with these settings.
    ///
    /// # Panics
    /// Outside a glommio executor, or if the settings name no address.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let core = Rc::new(RefCell::new(Core {
            engine: Engine::new(config, crate::seed::fresh()),
            effects: Vec::new(),
            links: BTreeMap::new(),
            flushes: BTreeMap::new(),
            requests: BTreeMap::new(),
            consumers: BTreeMap::new(),
            to_open: Vec::new(),
            timer: None,
            is_closed: false,
            started: Instant::now(),
        }));
        ::glommio::spawn_local(links::keep_time(Rc::clone(&core))).detach();
        Self { inner: Rc::new(Inner { core }) }
    }

    fn step<R>(&self, act: impl FnOnce(&mut Core, Now) -> R) -> R {
        step(&self.inner.core, act)
    }

    /// Sends a record; await what becomes of it. Dropping the future does not take the record back.
    ///
    /// # Errors
    /// If the record was not accepted, [`Error::Full`] among the reasons; then nothing happened.
    pub fn send(
        &self,
        record: &Record<'_>,
    ) -> Result<impl Future<Output = Result<Delivered, Error>> + use<>, Error> {
        let cell = Rc::new(Cell::default());
        let token = Some(Rc::clone(&cell));
        self.step(|core, now| core.engine.produce(now, record, token, &mut core.effects))
            .map_err(|(error, _)| error)?;
        Ok(async move { cell.wait().await })
    }

    /// Sends a record of which nobody wants to hear again.
    ///
    /// # Errors
    /// If the record was not accepted; then nothing happened.
    pub fn send_and_forget(&self, record: &Record<'_>) -> Result<(), Error> {
        self.step(|core, now| core.engine.produce(now, record, None, &mut core.effects))
            .map_err(|(error, _)| error)
    }

    /// Sends what lingers, and waits until all that was sent before is delivered or failed.
    pub async fn flush(&self) {
        let cell = Rc::new(Cell::default());
        let open = self.step(|core, now| {
            if !core.is_closed {
                let flush = core.engine.flush(now, &mut core.effects);
                core.flushes.insert(flush, Rc::clone(&cell));
            }
            !core.is_closed
        });
        if open {
            cell.wait().await;
        }
    }

    /// How sends stand to [`ProducerConfig::objective_nanos`](crate::engine::ProducerConfig). None: there
    /// is none.
    #[must_use]
    pub fn objective(&self) -> Option<ObjectiveReport> {
        self.inner.core.borrow().engine.objective()
    }

    /// Asks the cluster something.
    ///
    /// # Errors
    /// The broker's refusal, or what kept it from being asked.
    pub async fn request(
        &self,
        request: AdminRequest,
        timeout: Duration,
    ) -> Result<AdminReply, Error> {
        let cell = Rc::new(Cell::default());
        self.step(|core, now| {
            let deadline = now.monotonic.after(timeout.as_nanos() as u64);
            let id = core.engine.request(now, request, deadline, &mut core.effects);
            core.requests.insert(id, Rc::clone(&cell));
        });
        cell.wait().await
    }

    /// A consumer: a group of assignments that share a budget.
    #[must_use]
    pub fn consumer(&self, config: ConsumerConfig) -> ConsumerId {
        self.step(|core, _| {
            let consumer = core.engine.consumer(config);
            core.consumers.insert(consumer, None);
            consumer
        })
    }

    /// Starts to read a partition.
    pub fn assign(
        &self,
        consumer: ConsumerId,
        topic: &str,
        partition: u32,
        position: Position,
    ) -> AssignmentId {
        self.step(|core, now| {
            core.engine.assign(now, consumer, topic, partition, position, &mut core.effects)
        })
    }

    /// Stops reading a partition.
    pub fn unassign(&self, assignment: AssignmentId) {
        self.step(|core, now| core.engine.unassign(now, assignment, &mut core.effects));
    }

    /// Goes on from `position`.
    pub fn seek(&self, assignment: AssignmentId, position: Position) {
        self.step(|core, now| core.engine.seek(now, assignment, position, &mut core.effects));
    }

    /// Stops fetching and giving a partition until it is [resumed](Self::resume).
    pub fn pause(&self, assignment: AssignmentId) {
        self.step(|core, now| core.engine.pause(now, assignment, true, &mut core.effects));
    }

    /// Ends a pause.
    pub fn resume(&self, assignment: AssignmentId) {
        self.step(|core, now| core.engine.pause(now, assignment, false, &mut core.effects));
    }

    /// The offset of the record that [`next`](Self::next) gives next of a partition, once known.
    #[must_use]
    pub fn position(&self, assignment: AssignmentId) -> Option<Offset> {
        self.inner.core.borrow().engine.position(assignment)
    }

    /// The next batch or error of a consumer. One task at a time may wait for a consumer.
    pub async fn next(&self, consumer: ConsumerId) -> Fetched {
        poll_fn(|context| {
            let taken = self.step(|core, now| {
                let taken = core.engine.take(now, consumer, &mut core.effects);
                if taken.is_none() {
                    core.consumers.insert(consumer, Some(context.waker().clone()));
                }
                taken
            });
            taken.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Fails what is on its way, closes the connections and ends the tasks.
    pub fn close(&self) {
        close(&self.inner.core);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        close(&self.core);
    }
}

fn close(core: &Rc<RefCell<Core>>) {
    step(core, |core, now| {
        core.is_closed = true;
        core.engine.close(now, &mut core.effects);
    });
    let timer = core.borrow_mut().timer.take();
    timer.into_iter().for_each(Waker::wake);
}

/// Lets `act` step the engine, and carries out what it orders. Never called from inside itself:
/// users are woken, not called.
fn step<R>(shared: &Rc<RefCell<Core>>, act: impl FnOnce(&mut Core, Now) -> R) -> R {
    let mut core = shared.borrow_mut();
    let now = core.now();
    let wanted = core.engine.next_wake();
    let result = act(&mut core, now);
    core.carry_out();
    if core.engine.next_wake() < wanted || wanted.is_none() {
        core.timer.take().into_iter().for_each(Waker::wake);
    }
    let to_open = std::mem::take(&mut core.to_open);
    drop(core);
    for link in to_open {
        ::glommio::spawn_local(links::serve(Rc::clone(shared), link)).detach();
    }
    result
}

impl Core {
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic: Monotonic(self.started.elapsed().as_nanos() as u64),
            wall_ms: wall.as_millis() as i64,
        }
    }

    fn carry_out(&mut self) {
        while !self.effects.is_empty() {
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.carry_out_one(effect);
            }
            self.effects = effects;
        }
    }

    fn carry_out_one(&mut self, effect: Effect<Token>) {
        match effect {
            Effect::Connect { link, address, .. } => {
                let opening = Rc::new(Link::new(link, address));
                self.links.insert(link, Rc::clone(&opening));
                self.to_open.push(opening);
            }
            Effect::Send { link, bytes } => {
                if let Some(link) = self.links.get(&link) {
                    link.push(bytes);
                }
            }
            Effect::Close { link } => {
                if let Some(link) = self.links.remove(&link) {
                    link.close();
                }
            }
            Effect::Delivered(mut batch) => {
                for (index, token) in (0u64..).zip(batch.tokens.drain(..)) {
                    if let Some(cell) = token {
                        cell.set(Ok(Delivered {
                            topic: Rc::from(&*batch.topic),
                            partition: batch.partition,
                            offset: batch.base_offset.map(|base| base.advance(index)),
                            level: batch.level,
                            append_time_ms: batch.append_time_ms,
                            leader: batch.leader,
                            stages: batch.stages,
                        }));
                    }
                }
                self.engine.recycle(batch.tokens);
            }
            Effect::Failed(mut batch) => {
                for cell in batch.tokens.drain(..).flatten() {
                    cell.set(Err(batch.error.clone()));
                }
                self.engine.recycle(batch.tokens);
            }
            Effect::Flushed { flush } => {
                if let Some(cell) = self.flushes.remove(&flush) {
                    cell.set(());
                }
            }
            Effect::Answered { request, answer } => {
                if let Some(cell) = self.requests.remove(&request) {
                    cell.set(answer);
                }
            }
            // To be asked for: see `objective`.
            Effect::Objective(_) => {}
            Effect::Readable { consumer } => {
                if let Some(waker) = self.consumers.get_mut(&consumer).and_then(Option::take) {
                    waker.wake();
                }
            }
        }
    }
}
