//! Three scripted brokers and one log. Each has a view of its own of who leads, so a test can let one be
//! behind the times, silent, gone, or another one than before.
//!
//! The log is what a quorum has: who leads appends to it, knows each stamp, and acknowledges. Who
//! only believes to lead appends nothing, and holds what it was sent until it hears the news.

use super::peer::*;
use crate::engine::*;
use corelog_protocol::ErrorCode;
use corelog_protocol::batch::BatchView;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::*;
use corelog_protocol::message::*;
use std::collections::BTreeMap;
use std::net::SocketAddr;

pub struct Trio {
    pub scene: Scene,
    pub brokers: [Peer; 3],
    /// Who leads in truth, and the epoch.
    pub truth: View,
    pub log: Vec<Appended>,
    /// What each broker was asked: broker, kind.
    pub asked: BTreeMap<(u32, FrameKind), usize>,
    fetches: Vec<Asked>,
    /// Fetches that wait at a follower, and until when.
    near: Vec<(Asked, Monotonic)>,
    /// The leader says that an offset beyond the end is out of range; else it waits for it.
    pub is_strict: bool,
    /// Whoever hears that it leads no more says so to those who wait for records.
    pub is_prompt: bool,
    /// What followers answer to readers that take any replica, instead of serving them.
    pub refuses_near: Option<ErrorCode>,
    /// Acks are lost: what is appended is not answered.
    pub is_mute: bool,
    /// All say that there is no such topic, with this hint, ms.
    pub denies_topics: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// 0: nobody.
    pub leader: u32,
    pub epoch: u64,
}

pub struct Peer {
    pub view: View,
    pub incarnation: u64,
    /// Connections are refused.
    pub is_down: bool,
    /// It takes everything in, and says nothing.
    pub is_silent: bool,
    /// It greets, and knows nothing.
    pub is_joining: bool,
    /// What came while it believed to lead.
    stuck: Vec<Asked>,
    /// Empty: it does not say.
    pub rack: &'static str,
    /// It follows, and serves readers that take any replica up to here. None: it does not, or does not know them.
    pub follows_to: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Appended {
    stamp: (u64, u16, u32),
    pub values: Vec<String>,
    base: u64,
}

pub fn address(broker: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, broker as u8], 7421))
}

impl Trio {
    /// Broker 1 leads, all know it, and the client knows their addresses.
    pub fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new((1..=3).map(address).collect());
        config.producer.window_batches = 3;
        change(&mut config);
        let truth = View { leader: 1, epoch: 1 };
        let peer = |id: u64| Peer {
            view: truth,
            incarnation: 100 + id,
            is_down: false,
            is_silent: false,
            is_joining: false,
            stuck: Vec::new(),
            rack: "",
            follows_to: None,
        };
        Self {
            scene: Scene::new(config),
            brokers: [peer(1), peer(2), peer(3)],
            truth,
            log: Vec::new(),
            asked: BTreeMap::new(),
            fetches: Vec::new(),
            near: Vec::new(),
            is_strict: false,
            is_prompt: false,
            refuses_near: None,
            is_mute: false,
            denies_topics: None,
        }
    }

    pub fn broker(&mut self, id: u32) -> &mut Peer {
        &mut self.brokers[id as usize - 1]
    }

    /// Another leader, of the next epoch, of which nobody has heard.
    pub fn elect(&mut self, leader: u32) {
        self.truth = View { leader, epoch: self.truth.epoch + 1 };
    }

    /// A broker hears the news, and answers what it could not append.
    pub fn tell(&mut self, id: u32) {
        let view = self.truth;
        self.broker(id).view = view;
        for asked in std::mem::take(&mut self.broker(id).stuck) {
            if !self.scene.links[&asked.link].closed {
                self.scene.refuse(&asked, ErrorCode::OutcomeUnknown, 0);
            }
        }
        let is_sent_away = |asked: &Asked, trio: &Self| {
            let far = trio.scene.links.get(&asked.link).filter(|far| !far.closed);
            far.is_some_and(|far| far.address == address(id)) && view.leader != id
        };
        if self.is_prompt {
            for asked in std::mem::take(&mut self.fetches) {
                match is_sent_away(&asked, self) {
                    true => {
                        let refused = refused_fetch(&asked, 0, ErrorCode::NotLeader);
                        self.scene.bytes(asked.link, &refused);
                    }
                    false => self.fetches.push(asked),
                }
            }
        }
    }

    pub fn tell_all(&mut self) {
        (1..=3).for_each(|id| self.tell(id));
    }

    /// Its connections end, and no new one is taken.
    pub fn kill(&mut self, id: u32) {
        self.broker(id).is_down = true;
        self.broker(id).stuck.clear();
        self.cut(id);
    }

    pub fn cut(&mut self, id: u32) {
        for link in self.scene.open_links() {
            if self.scene.links[&link].address == address(id) {
                self.scene.links.get_mut(&link).unwrap().closed = true;
                self.scene.event(Event::Closed { link });
            }
        }
    }

    pub fn count(&self, id: u32, kind: FrameKind) -> usize {
        self.asked.get(&(id, kind)).copied().unwrap_or(0)
    }

    pub fn values(&self) -> Vec<String> {
        self.log.iter().flat_map(|appended| appended.values.clone()).collect()
    }

    /// Lets time pass, in which the brokers answer within a millisecond.
    pub fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            while self.serve() {}
            self.scene.sleep(1);
            self.feed_near();
        }
        while self.serve() {}
    }

    fn id_of(&self, link: LinkId) -> u32 {
        let address = self.scene.links[&link].address;
        (1..=3).find(|&id| self::address(id) == address).expect("an address that was told")
    }

    fn serve(&mut self) -> bool {
        let mut was_busy = false;
        for link in self.scene.open_links() {
            let id = self.id_of(link);
            if self.broker(id).is_down {
                self.scene.links.get_mut(&link).unwrap().closed = true;
                self.scene.event(Event::Closed { link });
                was_busy = true;
            } else if self.scene.links[&link].preamble.is_none() && !self.broker(id).is_silent {
                self.scene.event(Event::Connected { link });
            }
        }
        for asked in self.scene.asked() {
            was_busy = true;
            if self.scene.links[&asked.link].closed {
                continue;
            }
            let id = self.id_of(asked.link);
            *self.asked.entry((id, asked.header.kind)).or_default() += 1;
            if !self.broker(id).is_silent {
                self.answer(id, asked);
            }
        }
        was_busy
    }

    fn answer(&mut self, id: u32, asked: Asked) {
        let View { leader, .. } = self.broker(id).view;
        match asked.header.kind {
            FrameKind::Hello => {
                let hello = Hello::decode(&asked.control).unwrap();
                let incarnation = Incarnation(self.broker(id).incarnation);
                if hello.incarnation.is_some_and(|wanted| wanted != incarnation) {
                    self.scene.refuse(&asked, ErrorCode::WrongCluster, 0);
                    return;
                }
                let shard = self.scene.links[&asked.link].shard;
                self.scene.answer(&asked, &HelloReply { incarnation, ..hello_reply(shard) });
            }
            FrameKind::TopicDescribe | FrameKind::TopicList if self.broker(id).is_joining => {
                self.scene.refuse(&asked, ErrorCode::Recovering, 0);
            }
            FrameKind::TopicDescribe if let Some(hint) = self.denies_topics => {
                self.scene.refuse(&asked, ErrorCode::UnknownTopic, hint);
            }
            FrameKind::TopicDescribe => {
                let reply = TopicDescribeReply { topic: self.describe(id) };
                self.scene.answer(&asked, &reply);
            }
            FrameKind::TopicList => self.scene.answer(&asked, &TopicListReply::default()),
            FrameKind::Produce | FrameKind::Offsets if leader != id => {
                self.scene.refuse(&asked, ErrorCode::NotLeader, 0);
            }
            FrameKind::Produce if self.truth.leader != id => self.broker(id).stuck.push(asked),
            FrameKind::Produce => self.append(&asked),
            FrameKind::Fetch
                if leader != id
                    && asked.fetch().any_replica
                    && self.broker(id).follows_to.is_some() =>
            {
                if let Some(code) = self.refuses_near {
                    return self.scene.refuse(&asked, code, 0);
                }
                let wait = u64::from(asked.fetch().wait_max_ms) * 1_000_000;
                let until = self.scene.now.monotonic.after(wait);
                self.near.push((asked, until));
                self.feed_near();
            }
            FrameKind::Fetch if leader != id => {
                self.scene.refuse(&asked, ErrorCode::NotLeader, 0);
            }
            FrameKind::Fetch => {
                self.fetches.push(asked);
                self.feed();
            }
            kind => panic!("{kind}"),
        }
    }

    pub fn describe(&mut self, id: u32) -> TopicInfo {
        let View { leader, epoch } = self.broker(id).view;
        let mut info = topic("t", &[0]);
        info.places[0].broker = BrokerId(leader);
        info.places[0].epoch = Epoch(epoch);
        let place = |(at, broker): (usize, &Peer)| BrokerPlace {
            id: BrokerId(at as u32 + 1),
            address: address(at as u32 + 1),
            shards: 4,
            incarnation: Incarnation(broker.incarnation),
            rack: broker.rack.into(),
        };
        let places = self.brokers.iter().enumerate().map(place).collect();
        info.brokers = Brokers { me: BrokerId(id), places };
        let copy = |id| ReplicaPlace { lane: info.places[0].lane, broker: BrokerId(id) };
        info.replica_places = (1..=3).map(copy).collect();
        info
    }

    fn append(&mut self, asked: &Asked) {
        let header = *BatchView::parse(&asked.payload).unwrap().header();
        let id = header.producer_id.0;
        let stamp = (id, header.producer_epoch, header.base_sequence);
        let former = asked.produce().former.map(|former| (id, former.epoch, former.sequence));
        let known = self
            .log
            .iter()
            .find(|it| id != 0 && (it.stamp == stamp || former.is_some_and(|at| it.stamp == at)));
        let base = match known {
            Some(known) => {
                assert!(asked.produce().sent_before, "it stands already, and nobody said so");
                assert_eq!(known.values, asked.values());
                known.base
            }
            None => {
                let last = self.log.iter().rev().find(|appended| appended.stamp.0 == id);
                let next = last.map_or(0, |last| last.stamp.2 + last.values.len() as u32);
                let epoch = last.map_or(0, |last| last.stamp.1);
                let is_first = stamp.1 > epoch && stamp.2 == 0;
                if id != 0 && stamp.1 < epoch {
                    self.scene.refuse(asked, ErrorCode::ProducerFenced, 0);
                    return;
                }
                if id != 0 && !is_first && (stamp.1, stamp.2) != (epoch, next) {
                    self.scene.refuse(asked, ErrorCode::OutOfOrder, 0);
                    return;
                }
                let base = self.values().len() as u64;
                self.log.push(Appended { stamp, values: asked.values(), base });
                base
            }
        };
        if !self.is_mute && asked.produce().durability.is_acknowledged() {
            self.scene.ack(asked, base);
        }
        self.feed();
    }

    /// Answers the fetches that wait at the leader for something that is there now.
    fn feed(&mut self) {
        let (leader, end) = (self.truth.leader, self.values().len() as u64);
        for asked in std::mem::take(&mut self.fetches) {
            let Some(far) = self.scene.links.get(&asked.link).filter(|far| !far.closed) else {
                continue;
            };
            let offset = asked.fetch().partitions[0].offset.0;
            let is_leader = leader > 0 && far.address == address(leader);
            if is_leader && self.is_strict && offset > end {
                let code = ErrorCode::OffsetOutOfRange;
                self.scene.bytes(asked.link, &refused_fetch(&asked, end, code));
                continue;
            }
            if !is_leader || offset >= end {
                self.fetches.push(asked);
                continue;
            }
            let values = self.values().split_off(offset as usize);
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let reply = fetch_reply(&asked, end, &[(100, entry(100, offset, &values))]);
            self.scene.bytes(asked.link, &reply);
        }
    }

    /// Answers the fetches that wait at followers, if there is something, or they have waited long enough.
    fn feed_near(&mut self) {
        for (asked, until) in std::mem::take(&mut self.near) {
            let Some(far) = self.scene.links.get(&asked.link).filter(|far| !far.closed) else {
                continue;
            };
            let id = (1..=3).find(|&id| address(id) == far.address).expect("a broker");
            if self.broker(id).is_silent {
                continue;
            }
            let Some(end) = self.broker(id).follows_to else {
                let refused = refused_fetch(&asked, 0, ErrorCode::NotLeader);
                self.scene.bytes(asked.link, &refused);
                continue;
            };
            let offset = asked.fetch().partitions[0].offset.0;
            let mut values = self.values();
            values.truncate(end as usize);
            let end = values.len() as u64;
            let known: Vec<&str> =
                values.iter().skip(offset as usize).map(String::as_str).collect();
            let reply = match known.is_empty() {
                true if self.scene.now.monotonic < until => {
                    self.near.push((asked, until));
                    continue;
                }
                true => fetch_reply(&asked, end, &[(100, Vec::new())]),
                false => fetch_reply(&asked, end, &[(100, entry(100, offset, &known))]),
            };
            self.scene.bytes(asked.link, &reply);
        }
    }
}
