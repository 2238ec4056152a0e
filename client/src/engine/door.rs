//! The way to one shard of one broker: at most one connection, its handshake, its requests under way, and what
//! waits for it. A door stays when its connection is lost; [`Link`] is the connection.
//!
//! Knows frames, correlations and stream positions. Knows nothing of what is asked.

use super::assignment::AssignmentId;
use super::consumer::ConsumerId;
use super::fetch::InFetch;
use super::time::Monotonic;
use super::{LinkId, RequestId};
use crate::Refusal;
use corelog_protocol::frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader};
use corelog_protocol::ids::{BrokerId, ClusterId, Incarnation, PartitionId, ShardId};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Correlations of level `none` carry this bit: nobody waits for their answer, and a refusal may
/// still come.
pub(super) const UNANSWERED: u64 = 1 << 63;

/// Caps a frame from a broker that has not greeted.
pub(super) const DOOR_GREETING_CAP: u32 = 4 << 10;

/// What a broker takes in one frame, until its hello tells.
pub(super) const PEER_FRAME_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Door {
    /// 0: whoever answers at the addresses of the settings.
    pub broker: BrokerId,
    pub shard: ShardId,
    /// Where that broker is, and which one is meant. None: see above.
    pub address: Option<SocketAddr>,
    pub incarnation: Option<Incarnation>,
    pub link: Option<Link>,
    /// Why its broker did not greet, if it said so, and none has greeted here since.
    pub turned_away: Option<Refusal>,
    /// Failed connections since the last that stood.
    pub failures: u32,
    /// No connection is tried before this.
    pub not_before: Monotonic,
    /// Queues with a batch that may leave.
    pub ready: VecDeque<usize>,
    /// Assignments that want a fetch.
    pub fetchable: VecDeque<AssignmentId>,
    /// When what all fetches so far count for is worked off.
    pub fetches_free_at: Monotonic,
    /// Other requests that wait to be sent.
    pub asks: VecDeque<Ask>,
}

/// A request whose control is a table. Its content is looked up when it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    /// The places of this topic's partitions.
    Describe(usize),
    /// Where an assignment begins.
    Locate(AssignmentId, u64),
    Admin(RequestId),
}

#[derive(Debug)]
pub(super) enum Request {
    Hello,
    Ask(Ask),
    Produce {
        queue: usize,
        batch: u64,
        bytes: usize,
        partition: PartitionId,
    },
    Fetch {
        consumer: ConsumerId,
        asked: Vec<InFetch>,
        bytes_max: usize,
    },
    /// It is asked elsewhere meanwhile: its answer is not wanted any more.
    Forgotten,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LinkState {
    Connecting,
    Greeting,
    Open,
}

#[derive(Debug)]
pub(super) struct Link {
    pub id: LinkId,
    pub state: LinkState,
    /// It is given up if it does not stand by then.
    pub open_by: Monotonic,
    /// When something was last heard; at first, when it was begun.
    pub heard_at: Monotonic,
    /// Nothing was heard for long: others were asked whether its broker still leads, last at this time.
    pub doubted_at: Option<Monotonic>,
    /// The cluster that its broker is of, once it has greeted.
    pub cluster: Option<ClusterId>,
    /// Positions in the outgoing stream: ordered to be sent, and taken by the socket.
    pub ordered: u64,
    pub sent: u64,
    pub produce_bytes: usize,
    pub fetches: usize,
    /// The broker's cap for our frames.
    pub peer_frame_bytes: usize,
    /// Batches of level `none`: where each ends in the stream, its queue, id and bytes.
    pub unanswered: VecDeque<(u64, usize, u64, usize)>,
    input: Vec<u8>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// When answers are overdue, in the order of time: fetches may be held for long, and have a list of
    /// their own.
    overdue: [VecDeque<(Monotonic, u64)>; 2],
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    under_way: Option<UnderWay>,
}

/// A request that was ordered to be sent, and where it ends in the stream.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub request: Request,
    pub end: u64,
}

/// A frame that arrived whole: inside the driver's bytes, or in a buffer of its own.
pub(super) enum Frame<'a> {
    Borrowed(FrameHeader, &'a [u8]),
    Owned(FrameHeader, Vec<u8>),
}

impl Frame<'_> {
    pub(super) fn header(&self) -> &FrameHeader {
        match self {
            Self::Borrowed(header, _) | Self::Owned(header, _) => header,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(_, bytes) => bytes,
            Self::Owned(_, bytes) => bytes,
        }
    }
}

impl Door {
    pub(super) fn new(broker: BrokerId, shard: ShardId) -> Self {
        Self {
            broker,
            shard,
            address: None,
            incarnation: None,
            link: None,
            turned_away: None,
            failures: 0,
            not_before: Monotonic(0),
            ready: VecDeque::new(),
            fetchable: VecDeque::new(),
            fetches_free_at: Monotonic(0),
            asks: VecDeque::new(),
        }
    }

    pub(super) fn wants_link(&self) -> bool {
        !self.ready.is_empty() || !self.fetchable.is_empty() || !self.asks.is_empty()
    }

    pub(super) fn open_link(&mut self) -> Option<&mut Link> {
        self.link.as_mut().filter(|link| link.state == LinkState::Open)
    }

    /// An admin request is under way through this door.
    pub(super) fn asks_for(&self, request: RequestId) -> bool {
        self.link.as_ref().is_some_and(|link| link.asks_for(request))
    }

    pub(super) fn is_open(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.state == LinkState::Open)
    }
}

impl Link {
    pub(super) fn new(id: LinkId, now: Monotonic, open_by: Monotonic) -> Self {
        Self {
            id,
            state: LinkState::Connecting,
            open_by,
            heard_at: now,
            doubted_at: None,
            cluster: None,
            ordered: 0,
            sent: 0,
            produce_bytes: 0,
            fetches: 0,
            peer_frame_bytes: PEER_FRAME_BYTES,
            unanswered: VecDeque::new(),
            input: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            overdue: Default::default(),
        }
    }

    /// Remembers a request that is about to be ordered, and names it. The end is set by [`Self::ordered`].
    pub(super) fn begin(&mut self, request: Request, answer_by: Monotonic) -> u64 {
        let list = usize::from(matches!(request, Request::Fetch { .. }));
        let under_way = Some(UnderWay { request, end: u64::MAX });
        let (index, generation) = match self.free.pop() {
            Some(index) => {
                let slot = &mut self.slots[index as usize];
                slot.under_way = under_way;
                (index, slot.generation)
            }
            None => {
                self.slots.push(Slot { generation: 0, under_way });
                (self.slots.len() as u32 - 1, 0)
            }
        };
        let correlation = u64::from(generation) << 32 | u64::from(index);
        // Most answers come in order, so answered ones leave at the front.
        self.forget_answered(list);
        self.overdue[list].push_back((answer_by, correlation));
        correlation
    }

    fn forget_answered(&mut self, list: usize) {
        while let Some(&(_, correlation)) = self.overdue[list].front()
            && self.peek(correlation).is_none()
        {
            self.overdue[list].pop_front();
        }
    }

    /// Takes note that `bytes` of this request were ordered. Returns where they end in the stream.
    pub(super) fn order(&mut self, correlation: u64, bytes: usize) -> u64 {
        self.ordered += bytes as u64;
        let end = self.ordered;
        if let Some(under_way) = self.slot(correlation) {
            under_way.end = end;
        }
        end
    }

    fn slot(&mut self, correlation: u64) -> Option<&mut UnderWay> {
        let slot = self.slots.get_mut(correlation as u32 as usize)?;
        (u64::from(slot.generation) == correlation >> 32)
            .then_some(slot.under_way.as_mut())
            .flatten()
    }

    pub(super) fn peek(&self, correlation: u64) -> Option<&UnderWay> {
        let slot = self.slots.get(correlation as u32 as usize)?;
        (u64::from(slot.generation) == correlation >> 32)
            .then_some(slot.under_way.as_ref())
            .flatten()
    }

    /// The request that this correlation names, if it is under way. It is no longer.
    pub(super) fn finish(&mut self, correlation: u64) -> Option<UnderWay> {
        self.peek(correlation)?;
        let index = correlation as u32;
        let slot = &mut self.slots[index as usize];
        // Bit 63 of a correlation is `UNANSWERED`.
        slot.generation = (slot.generation + 1) & 0x7fff_ffff;
        self.free.push(index);
        slot.under_way.take()
    }

    fn asks_for(&self, id: RequestId) -> bool {
        let requests = self.slots.iter().filter_map(|slot| slot.under_way.as_ref());
        requests
            .map(|under_way| &under_way.request)
            .any(|request| matches!(request, Request::Ask(Ask::Admin(asked)) if *asked == id))
    }

    /// All requests under way, oldest first.
    pub(super) fn abandon(&mut self) -> Vec<UnderWay> {
        let mut all: Vec<_> =
            self.slots.iter_mut().filter_map(|slot| slot.under_way.take()).collect();
        all.sort_by_key(|under_way| under_way.end);
        all
    }

    /// When the oldest request is overdue, or the handshake.
    pub(super) fn next_deadline(&self) -> Option<Monotonic> {
        if self.state != LinkState::Open {
            return Some(self.open_by);
        }
        self.overdue.iter().filter_map(|list| list.front()).map(|&(deadline, _)| deadline).min()
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.doubted_at.is_some()
    }

    /// When a connection is to be doubted, or doubted once more: `doubt_nanos` after the oldest request that waits should have been
    /// answered, if nothing is heard meanwhile. `request_nanos_max` is what each may take, beyond what
    /// its broker was asked to hold it.
    pub(super) fn next_doubt(&self, doubt_nanos: u64, request_nanos_max: u64) -> Option<Monotonic> {
        let last = self.doubted_at.unwrap_or(self.heard_at);
        if self.state != LinkState::Open {
            return Some(last.after(doubt_nanos));
        }
        let oldest = self.next_deadline()?;
        let due = Monotonic(oldest.0.saturating_sub(request_nanos_max));
        Some(due.max(last).after(doubt_nanos))
    }

    /// True if it is to be doubted now.
    pub(super) fn begin_doubt(&mut self, now: Monotonic, nanos: u64, request_max: u64) -> bool {
        (0..self.overdue.len()).for_each(|list| self.forget_answered(list));
        let is_due = self.next_doubt(nanos, request_max).is_some_and(|at| at <= now);
        if is_due {
            self.doubted_at = Some(now);
        }
        is_due
    }

    /// Takes out the questions under way that `wanted` names, to be asked elsewhere.
    pub(super) fn take_asks(&mut self, wanted: impl Fn(&Ask) -> bool) -> Vec<Ask> {
        let requests = self.slots.iter_mut().filter_map(|slot| slot.under_way.as_mut());
        let mut taken = Vec::new();
        for under_way in requests {
            if let Request::Ask(ask) = &under_way.request
                && wanted(ask)
                && let Request::Ask(ask) =
                    std::mem::replace(&mut under_way.request, Request::Forgotten)
            {
                taken.push((under_way.end, ask));
            }
        }
        taken.sort_by_key(|&(end, _)| end);
        taken.into_iter().map(|(_, ask)| ask).collect()
    }

    /// Takes out the fetches under way of whose partitions none is wanted any more: whose, of what, and the budget that
    /// they hold.
    pub(super) fn take_fetches(
        &mut self,
        is_wanted: impl Fn(&InFetch) -> bool,
    ) -> Vec<(ConsumerId, Vec<InFetch>, usize)> {
        let requests = self.slots.iter_mut().filter_map(|slot| slot.under_way.as_mut());
        let mut taken = Vec::new();
        for under_way in requests {
            if let Request::Fetch { asked, .. } = &under_way.request
                && !asked.iter().any(&is_wanted)
                && let Request::Fetch { consumer, asked, bytes_max } =
                    std::mem::replace(&mut under_way.request, Request::Forgotten)
            {
                self.fetches -= 1;
                taken.push((consumer, asked, bytes_max));
            }
        }
        taken
    }

    /// True if an answer, or the handshake, is overdue.
    pub(super) fn is_overdue(&mut self, now: Monotonic) -> bool {
        if self.state != LinkState::Open {
            // The hello is a request too, but its own deadline may lie behind that of the handshake.
            return self.open_by <= now;
        }
        (0..self.overdue.len()).for_each(|list| self.forget_answered(list));
        self.next_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Takes the next whole frame out of what has come and `bytes`. None: all bytes are taken in
    /// and more are needed. Memory grows with what came, never with what a header announces.
    pub(super) fn next_frame<'a>(
        &mut self,
        bytes: &mut &'a [u8],
        cap: u32,
    ) -> Result<Option<Frame<'a>>, FrameError> {
        if self.input.is_empty() {
            match FrameHeader::decode(bytes, cap) {
                Ok(header) if bytes.len() >= header.frame_bytes() => {
                    let (frame, rest) = bytes.split_at(header.frame_bytes());
                    *bytes = rest;
                    return Ok(Some(Frame::Borrowed(header, frame)));
                }
                Ok(_) | Err(FrameError::Incomplete { .. }) => {
                    self.input.extend_from_slice(bytes);
                    *bytes = &[];
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        if self.input.len() < FRAME_HEADER_BYTES {
            self.fill(bytes, FRAME_HEADER_BYTES);
        }
        let header = match FrameHeader::decode(&self.input, cap) {
            Ok(header) => header,
            Err(FrameError::Incomplete { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        self.fill(bytes, header.frame_bytes());
        if self.input.len() < header.frame_bytes() {
            return Ok(None);
        }
        Ok(Some(Frame::Owned(header, std::mem::take(&mut self.input))))
    }

    fn fill(&mut self, bytes: &mut &[u8], until: usize) {
        let missing = until.saturating_sub(self.input.len()).min(bytes.len());
        let (piece, rest) = bytes.split_at(missing);
        self.input.extend_from_slice(piece);
        *bytes = rest;
    }
}
