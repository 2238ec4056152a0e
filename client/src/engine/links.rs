//! Connections: opened on demand, greeted, pumped, lost, tried again. The one place that matches
//! a frame's kind to what was asked.

use super::batches::Acked;
use super::cluster::ANYBODY;
use super::door::{Ask, DOOR_GREETING_CAP, Door, Frame, Link, LinkState, Request, UNANSWERED};
use super::time::{MILLIS, Monotonic, Now};
use super::wire;
use super::{DOORS_MAX, Effect, Effects, Engine, LinkId, Outgoing};
use corelog_protocol::ErrorCode;
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::{BrokerId, ShardId};
use corelog_protocol::preamble::Preamble;
use corelog_protocol::produce::ProduceAck;

/// A connection that has not greeted by then is given up; the second, if there are other addresses to try.
const OPEN_NANOS_MAX: u64 = 5_000 * MILLIS;
const OPEN_NANOS_OF_SEVERAL: u64 = 1_000 * MILLIS;

/// What the broker did wrong.
pub(super) type Wrong = &'static str;

impl<T> Engine<T> {
    /// The door to a shard of a broker: the shard to insist on, if any.
    pub(super) fn door_to(&mut self, broker: BrokerId, shard: ShardId) -> usize {
        let mut shard = self.config.insist_on_shard.unwrap_or(shard);
        let found = |doors: &[Door], shard| {
            doors.iter().position(|door| door.broker == broker && door.shard == shard)
        };
        if let Some(door) = found(&self.doors, shard) {
            return door;
        }
        if self.doors.len() >= DOORS_MAX {
            shard = ShardId::ANY;
            if let Some(door) = found(&self.doors, shard) {
                return door;
            }
            if self.doors.len() >= 2 * DOORS_MAX {
                // Nobody has so many brokers: whoever invents them gets no more doors.
                return self.doors.iter().position(|door| door.broker == broker).unwrap_or(0);
            }
        }
        let mut door = Door::new(broker, shard);
        door.find(&self.cluster);
        self.doors.push(door);
        self.doors.len() - 1
    }

    fn door_of_link(&self, id: LinkId) -> Option<usize> {
        self.doors.iter().position(|door| door.link.as_ref().is_some_and(|link| link.id == id))
    }

    pub(super) fn pump_all(&mut self, now: Now, effects: &mut Effects<T>) {
        let mut door = 0;
        // A pump may add doors.
        while door < self.doors.len() {
            self.pump(now, door, effects);
            door += 1;
        }
    }

    /// Sends what may be sent through a door, and opens it if something wants out.
    pub(super) fn pump(&mut self, now: Now, door: usize, effects: &mut Effects<T>) {
        if self.is_closed {
            return;
        }
        if self.doors[door].is_open() {
            self.send_asks(now, door, effects);
            self.send_batches(now, door, effects);
            self.send_fetches(now, door, effects);
            return;
        }
        let at = &mut self.doors[door];
        if at.link.is_none() && at.wants_link() && at.not_before <= now.monotonic {
            let link = LinkId(self.next_link);
            self.next_link += 1;
            let addresses = &self.config.addresses;
            let patience = match addresses.len() > 1 || self.cluster.is_known() {
                true => OPEN_NANOS_OF_SEVERAL,
                false => OPEN_NANOS_MAX,
            };
            let open_by = now.monotonic.after(patience.min(self.config.request_nanos_max));
            at.link = Some(Link::new(link, now.monotonic, open_by));
            let address = at.address.unwrap_or(addresses[self.address % addresses.len()]);
            self.counters.connects += 1;
            effects.push(Effect::Connect { link, address, shard: at.shard });
        }
    }

    pub(super) fn on_connected(&mut self, now: Now, id: LinkId, effects: &mut Effects<T>) {
        let Some(door) = self.door_of_link(id) else { return };
        let Door { shard, incarnation, .. } = self.doors[door];
        let answer_by = now.monotonic.after(self.config.request_nanos_max);
        let Some(link) = self.doors[door].link.as_mut() else { return };
        if link.state != LinkState::Connecting {
            return;
        }
        link.state = LinkState::Greeting;
        let correlation = link.begin(Request::Hello, answer_by);
        let mut bytes = Preamble { shard }.encode().to_vec();
        let (name, cluster) = (&self.config.client_name, self.cluster.id);
        wire::hello(correlation, name, cluster, incarnation, &mut bytes);
        self.send_frames(door, correlation, bytes, effects);
    }

    /// Sends frames that belong to one request.
    pub(super) fn send_frames(
        &mut self,
        door: usize,
        correlation: u64,
        bytes: Vec<u8>,
        effects: &mut Effects<T>,
    ) {
        if let Some(link) = self.doors[door].link.as_mut() {
            link.order(correlation, bytes.len());
            self.counters.bytes_sent += bytes.len() as u64;
            effects.push(Effect::Send { link: link.id, bytes: Outgoing::frames(bytes) });
        }
    }

    pub(super) fn on_sent(&mut self, now: Now, id: LinkId, bytes: u64, effects: &mut Effects<T>) {
        let Some(door) = self.door_of_link(id) else { return };
        let Some(link) = self.doors[door].link.as_mut() else { return };
        link.sent = link.sent.saturating_add(bytes).min(link.ordered);
        while let Some(link) = self.doors[door].link.as_mut()
            && let Some(&(end, queue, batch, batch_bytes)) = link.unanswered.front()
            && end <= link.sent
        {
            link.unanswered.pop_front();
            link.produce_bytes -= batch_bytes;
            self.on_handed_over(now, queue, batch, effects);
        }
    }

    pub(super) fn on_received(
        &mut self,
        now: Now,
        id: LinkId,
        mut bytes: &[u8],
        effects: &mut Effects<T>,
    ) {
        let Some(door) = self.door_of_link(id) else { return };
        self.counters.bytes_received += bytes.len() as u64;
        // An answer can end the connection, and the door may then hold another one.
        while let Some(link) = self.doors[door].link.as_mut().filter(|link| link.id == id) {
            let cap = match link.state {
                LinkState::Open => self.config.frame_bytes_max as u32,
                _ => DOOR_GREETING_CAP,
            };
            let wrong = match link.next_frame(&mut bytes, cap) {
                Ok(None) => return,
                Ok(Some(frame)) => self.on_frame(now, door, frame, effects).err(),
                Err(error) => {
                    tracing::debug!(%error, "bad frame");
                    Some("a frame that is none")
                }
            };
            if let Some(wrong) = wrong {
                self.break_off(now, door, wrong, effects);
                return;
            }
        }
    }

    fn on_frame(
        &mut self,
        now: Now,
        door: usize,
        frame: Frame<'_>,
        effects: &mut Effects<T>,
    ) -> Result<(), Wrong> {
        let header = *frame.header();
        let control = header.control(frame.bytes()).map_err(|_| "a damaged control part")?;
        let link = self.doors[door].link.as_mut().ok_or("no connection")?;
        link.heard_at = now.monotonic;
        link.doubted_at = None;
        if header.correlation & UNANSWERED != 0 {
            if header.kind != FrameKind::Error || link.state != LinkState::Open {
                return Err("an answer that nobody waits for");
            }
            wire::refusal(control)?;
            self.counters.records_refused_unanswered += 1;
            return Ok(());
        }
        let under_way = link.peek(header.correlation).ok_or("an answer to no request under way")?;
        if under_way.end > link.sent {
            // Drivers tell `Sent` first, so the broker has not seen the whole request.
            return Err("an answer before its request");
        }
        let refusal = match header.kind {
            FrameKind::Error => Some(wire::refusal(control)?),
            _ => None,
        };
        // From here on the request is answered: whatever is wrong with the answer, it is settled.
        let under_way =
            link.finish(header.correlation).ok_or("an answer to no request under way")?;
        if !matches!(under_way.request, Request::Hello) {
            self.doors[door].failures = 0;
        }
        match (under_way.request, refusal) {
            (Request::Hello, None) => self.on_hello(door, &header, control)?,
            (Request::Hello, Some(refusal))
                if matches!(refusal.code, ErrorCode::WrongCluster | ErrorCode::BrokerRemoved) =>
            {
                // Another broker lives at that address now, or ours was removed, as may happen. Others know where to go.
                if let Some(link) = &self.doors[door].link {
                    let (address, code) = (self.doors[door].address, refusal.code);
                    tracing::warn!(?address, %code, "not the broker that it was: others are asked");
                    effects.push(Effect::Close { link: link.id });
                }
                self.doors[door].turned_away = Some(refusal);
                self.lose(now, door, effects);
            }
            (Request::Hello, Some(refusal)) => {
                tracing::warn!(code = %refusal.code, message = %refusal.message, "the broker refused the hello");
                return Err("a refused hello");
            }
            (Request::Produce { queue, batch, bytes, partition }, refusal) => {
                if let Some(link) = self.doors[door].link.as_mut() {
                    link.produce_bytes -= bytes;
                }
                match refusal {
                    Some(refusal) => {
                        self.on_produce_refused(now, queue, batch, partition, refusal, effects);
                    }
                    None => {
                        if header.kind != FrameKind::ProduceAck || header.payload_len != 0 {
                            self.on_produce_lost(now, queue, batch, effects);
                            return Err("an answer of the wrong kind");
                        }
                        let ack = ProduceAck::decode(control);
                        let sound = match &ack {
                            Ok(ack) => self.is_ack_sound(queue, batch, partition, ack),
                            Err(_) => false,
                        };
                        match ack {
                            Ok(ack) if sound => {
                                let acked = Acked { ack: &ack, door };
                                self.on_produce_ack(now, queue, batch, acked, effects);
                            }
                            _ => {
                                self.on_produce_lost(now, queue, batch, effects);
                                return Err("an ack that does not fit its batch");
                            }
                        }
                    }
                }
            }
            (Request::Fetch { consumer, asked, bytes_max }, refusal) => {
                if let Some(link) = self.doors[door].link.as_mut() {
                    link.fetches -= 1;
                }
                match refusal {
                    Some(refusal) => {
                        self.on_fetch_refused(now, consumer, &asked, bytes_max, &refusal, effects);
                    }
                    None => {
                        self.on_fetch_reply(now, consumer, &asked, bytes_max, frame, effects)?;
                    }
                }
            }
            (Request::Forgotten, _) => {}
            (Request::Ask(ask), refusal) => {
                let again = ask.clone();
                let outcome = match ask {
                    Ask::Describe(topic) => match refusal {
                        Some(refusal) => Ok(Err(refusal)),
                        None => wire::describe_reply(header.kind, control).map(Ok),
                    }
                    .and_then(|answer| self.on_described(now, door, topic, answer, effects)),
                    Ask::Locate(assignment, generation) => match refusal {
                        Some(refusal) => Ok(Err(refusal)),
                        None => wire::offsets_reply(header.kind, control).map(Ok),
                    }
                    .and_then(|answer| {
                        self.on_located(now, assignment, generation, answer, effects)
                    }),
                    Ask::Admin(request) => {
                        let answer = (refusal, header.kind, control);
                        self.on_admin_reply(now, door, request, answer, effects)
                    }
                };
                if let Err(wrong) = outcome {
                    // Asked again over the next connection. An admin request has been answered.
                    if !matches!(again, Ask::Admin(_)) {
                        self.doors[door].asks.push_back(again);
                    }
                    return Err(wrong);
                }
            }
        }
        Ok(())
    }

    fn on_hello(&mut self, door: usize, header: &FrameHeader, control: &[u8]) -> Result<(), Wrong> {
        let hello = wire::hello_reply(header.kind, control)?;
        if self.doors[door].incarnation.is_some_and(|wanted| wanted != hello.incarnation)
            || self.cluster.id.is_some_and(|wanted| wanted != hello.cluster)
        {
            return Err("a hello of another broker");
        }
        let link = self.doors[door].link.as_mut().ok_or("no connection")?;
        if link.state != LinkState::Greeting {
            return Err("a second hello");
        }
        link.state = LinkState::Open;
        link.cluster = Some(hello.cluster);
        link.peer_frame_bytes = hello.frame_bytes_max as usize;
        self.doors[door].turned_away = None;
        self.producer.limit_batches(hello.frame_bytes_max as usize);
        tracing::debug!(shard = hello.shard.0, shards = hello.shards, "connected");
        Ok(())
    }

    /// The broker broke the protocol: nothing more is believed of this connection.
    pub(super) fn break_off(
        &mut self,
        now: Now,
        door: usize,
        wrong: Wrong,
        effects: &mut Effects<T>,
    ) {
        tracing::warn!(wrong, "the broker broke the protocol");
        self.counters.protocol_errors += 1;
        if let Some(link) = &self.doors[door].link {
            effects.push(Effect::Close { link: link.id });
        }
        self.lose(now, door, effects);
    }

    pub(super) fn on_closed(&mut self, now: Now, id: LinkId, effects: &mut Effects<T>) {
        if let Some(door) = self.door_of_link(id) {
            self.lose(now, door, effects);
        }
    }

    /// A connection is no more: what left whole is in doubt, the rest is asked again.
    pub(super) fn lose(&mut self, now: Now, door: usize, effects: &mut Effects<T>) {
        let Some(mut link) = self.doors[door].link.take() else { return };
        self.leave_followers_behind(door);
        let at = &mut self.doors[door];
        at.failures = at.failures.saturating_add(1);
        let doubled = self.config.reconnect_nanos_min << (at.failures - 1).min(20);
        let wait = doubled.min(self.config.reconnect_nanos_max);
        let wait = wait - self.random.below(wait / 2 + 1);
        at.not_before = now.monotonic.after(wait);
        let stood = link.state == LinkState::Open;
        let broker = at.broker;
        if !stood && broker == ANYBODY {
            self.address = self.address.wrapping_add(1);
        }
        if broker == self.cluster.guide {
            self.turn_guide(now);
        }
        let mut queues: Vec<usize> = link.unanswered.iter().map(|sent| sent.1).collect();
        for under_way in link.abandon() {
            let left = under_way.end <= link.sent;
            match under_way.request {
                Request::Hello => {}
                Request::Produce { queue, .. } => queues.push(queue),
                Request::Fetch { consumer, asked, bytes_max } => {
                    self.on_fetch_lost(consumer, &asked, bytes_max);
                }
                Request::Ask(Ask::Admin(request)) => {
                    self.on_admin_lost(request, left, effects);
                }
                Request::Ask(ask) => self.doors[door].asks.push_back(ask),
                Request::Forgotten => {}
            }
        }
        self.move_asks(door);
        queues.sort_unstable();
        queues.dedup();
        for queue in self.producer.queues.iter_mut().filter(|queue| queue.door == door) {
            // Whatever is still in the old connection is in doubt, as its user knows.
            queue.unconfirmed = 0;
        }
        for queue in queues {
            self.on_queue_cut(now, queue, link.sent, effects);
        }
        if stood || broker != ANYBODY {
            // The broker may come back with other shards, and others may lead its lanes now.
            self.refresh_topics();
        }
    }

    /// Connections whose answers are overdue, or whose brokers are silent.
    pub(super) fn on_timer_links(&mut self, now: Now, effects: &mut Effects<T>) {
        for door in 0..self.doors.len() {
            self.doubt(now, door);
            if let Some(link) = &mut self.doors[door].link
                && link.is_overdue(now.monotonic)
            {
                tracing::warn!("an answer is overdue");
                effects.push(Effect::Close { link: link.id });
                self.lose(now, door, effects);
            }
        }
    }

    pub(super) fn next_wake_of_links(&self) -> Option<Monotonic> {
        self.doors
            .iter()
            .filter_map(|door| match &door.link {
                Some(link) => {
                    [self.next_doubt(door), link.next_deadline()].into_iter().flatten().min()
                }
                None => door.wants_link().then_some(door.not_before),
            })
            .min()
    }

    fn send_asks(&mut self, now: Now, door: usize, effects: &mut Effects<T>) {
        while let Some(ask) = self.doors[door].asks.pop_front() {
            let answer_by = now.monotonic.after(self.config.request_nanos_max);
            let Some(link) = self.doors[door].open_link() else { return };
            let correlation = link.begin(Request::Ask(ask.clone()), answer_by);
            let mut bytes = Vec::new();
            let sendable = match &ask {
                Ask::Describe(topic) => {
                    wire::describe(correlation, &self.topics[*topic].name, &mut bytes);
                    true
                }
                Ask::Locate(assignment, generation) => {
                    self.encode_locate(correlation, *assignment, *generation, &mut bytes)
                }
                Ask::Admin(request) => self.encode_admin(now, correlation, *request, &mut bytes),
            };
            if sendable {
                self.send_frames(door, correlation, bytes, effects);
            } else if let Some(link) = self.doors[door].open_link() {
                // What asked is gone.
                link.finish(correlation);
            }
        }
    }
}
