//! `corelog cluster`: brokers and lanes, and planned changes of who leads what.

mod plan;

use std::io::{self, Write};

use corelog::{
    Admin, BrokerId, BrokerStatus, ClusterStatusReply, LaneId, LaneLoad, LaneStatus, Operation,
    PlannedMove, Standing, planned_moves,
};
use serde_json::{Value, json};

use crate::arguments::{ClusterCommand, How, Which};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Column, Output};
use crate::units::{count, rate};

pub fn run(context: &Context, output: &mut Output, command: ClusterCommand) -> Result<(), Failure> {
    let client = context.connect()?;
    let admin = context.admin(&client);
    let (operation, how) = match command {
        ClusterCommand::Status => return status(context, output, &admin),
        ClusterCommand::Transfer { which, to, how } => {
            let lane = lane(context, &admin, &which)?;
            (Operation::Transfer { lane, to: BrokerId(to) }, how)
        }
        ClusterCommand::Move { which, replicas, how } => {
            let lane = lane(context, &admin, &which)?;
            let replicas = replicas.into_iter().map(BrokerId).collect();
            (Operation::Replace { lane, replicas }, how)
        }
        ClusterCommand::Drain { number, how } => {
            (Operation::Drain { broker: BrokerId(number) }, how)
        }
        ClusterCommand::Undrain { number, how } => {
            (Operation::Undrain { broker: BrokerId(number) }, how)
        }
        ClusterCommand::Remove { number, onto, how } => {
            return plan::remove(context, output, &admin, (number, &onto), &how);
        }
        ClusterCommand::Balance { how } => return plan::balance(context, output, &admin, &how),
    };
    operate(context, output, &admin, &operation, &how)
}

/// The one that is named, or in which the named partition is.
fn lane(context: &Context, admin: &Admin, which: &Which) -> Result<LaneId, Failure> {
    let Some((topic, number)) = &which.partition else {
        return Ok(LaneId(which.lane.unwrap_or_default()));
    };
    let info = admin.describe_topic(topic).map_err(context.of_topic(topic))?;
    let place = info.places.get(*number as usize);
    place.map(|place| place.lane).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("topic {topic} has no partition {number}"))
            .fix(format!("`corelog topic describe {topic}` shows those that it has"))
    })
}

fn operate(
    context: &Context,
    output: &mut Output,
    admin: &Admin,
    operation: &Operation,
    how: &How,
) -> Result<(), Failure> {
    let failed = |error| context.of_broker(&error);
    let before = admin.cluster().map_err(failed)?;
    let moves = planned_moves(operation, &before);
    if how.dry_run {
        admin.check(operation).map_err(failed)?;
        return tell_plan(output, operation, &moves, "would change", "dry-run");
    }
    if how.no_wait {
        admin.operate(operation).map_err(failed)?;
        return tell_plan(output, operation, &moves, "begun", "begun");
    }
    let is_json = output.json;
    let mut said = String::new();
    let told = |status: &ClusterStatusReply, standing: &Standing| {
        let line = progress(operation, standing, status);
        if !is_json && line != said {
            // Without a reader of it, the work goes on all the same.
            let _ = writeln!(io::stderr(), "{line}");
            said = line;
        }
    };
    let after = admin.carry_out(operation, how.patience, told).map_err(failed)?;
    if output.json {
        return output.json(&json!({
            "done": true, "version": after.version, "moved": moves_json(&moves, Some(&after)),
        }));
    }
    for planned in &moves {
        let leader = after.lane(planned.lane).and_then(|lane| lane.leader);
        // An undrained broker gets its lanes later.
        if leader.is_some() && leader != planned.from {
            output.line(&moved(planned, leader))?;
        }
    }
    output.line(&done(operation, &moves))
}

fn progress(operation: &Operation, standing: &Standing, status: &ClusterStatusReply) -> String {
    match (operation, standing) {
        (_, Standing::Done) => "done".into(),
        (Operation::Transfer { lane, to }, Standing::UnderWay { .. }) => {
            format!("lane {lane} is handed over to broker {to}")
        }
        (Operation::Replace { lane, .. }, Standing::UnderWay { .. }) => {
            let now = status.lane(*lane).map_or(String::new(), replicas_text);
            format!("lane {lane} is copied; entries lacking: {now}")
        }
        (Operation::Drain { broker }, Standing::UnderWay { lanes }) if lanes.is_empty() => {
            format!(
                "broker {broker} leads no lane any more; the lead of the metadata is handed over"
            )
        }
        (Operation::Drain { broker }, Standing::UnderWay { lanes }) => {
            format!("broker {broker} still leads {}", lanes_text(lanes.iter().copied()))
        }
        (Operation::Undrain { broker }, Standing::UnderWay { .. }) => {
            format!("broker {broker} may lead again")
        }
        (Operation::Remove { broker }, Standing::UnderWay { .. }) => {
            format!("broker {broker} is removed; its vote about the metadata is taken from it")
        }
        (Operation::AddLanes { .. }, Standing::UnderWay { lanes }) => {
            format!("{} are made, and not led yet", lanes_text(lanes.iter().copied()))
        }
        (_, Standing::TakenBack) => "it took too long and was taken back: once more".into(),
    }
}

fn done(operation: &Operation, moves: &[PlannedMove]) -> String {
    match operation {
        Operation::Transfer { lane, to } => format!("broker {to} leads lane {lane}"),
        Operation::Replace { lane, replicas } => {
            format!("lane {lane} is on {}", brokers_text(replicas))
        }
        Operation::Drain { broker } => {
            format!("broker {broker} leads nothing, until `corelog cluster undrain {broker}`")
        }
        Operation::Undrain { broker } if moves.is_empty() => {
            format!("broker {broker} may lead again")
        }
        Operation::Remove { broker } => format!("broker {broker} is removed for good"),
        Operation::AddLanes { broker, up_to } => added(*broker, *up_to),
        Operation::Undrain { broker } => {
            let lanes = lanes_text(moves.iter().map(|planned| planned.lane));
            format!(
                "broker {broker} may lead again; it gets back {lanes} once it has kept up for 5 s"
            )
        }
    }
}

fn added(broker: BrokerId, up_to: LaneId) -> String {
    format!("there are {up_to} lanes, and broker {broker} leads the new ones")
}

fn tell_plan(
    output: &mut Output,
    operation: &Operation,
    moves: &[PlannedMove],
    said: &str,
    key: &str,
) -> Result<(), Failure> {
    if output.json {
        return output.json(&json!({ key: true, "moves": moves_json(moves, None) }));
    }
    let what = match operation {
        Operation::Transfer { lane, to } => {
            format!("broker {to} leads lane {lane}, now and whenever it can")
        }
        Operation::Replace { lane, replicas } => {
            format!("lane {lane} is on {}", brokers_text(replicas))
        }
        Operation::Drain { broker } => format!("broker {broker} leads nothing"),
        Operation::Undrain { broker } => format!("broker {broker} may lead again"),
        Operation::Remove { broker } => format!("broker {broker} is removed for good"),
        Operation::AddLanes { broker, up_to } => added(*broker, *up_to),
    };
    output.line(&format!("{said}: {what}"))?;
    moves.iter().try_for_each(|planned| output.line(&format!("  {}", moved(planned, planned.to))))
}

fn moved(planned: &PlannedMove, to: Option<BrokerId>) -> String {
    let name = |id: Option<BrokerId>, nobody: &str| match id {
        Some(id) => format!("broker {id}"),
        None => nobody.into(),
    };
    let to = name(to, "whoever is caught up first");
    format!("lane {}: from {} to {to}", planned.lane, name(planned.from, "nobody"))
}

fn moves_json(moves: &[PlannedMove], after: Option<&ClusterStatusReply>) -> Vec<Value> {
    let leader = |planned: &PlannedMove| match after {
        Some(after) => after.lane(planned.lane).and_then(|lane| lane.leader),
        None => planned.to,
    };
    let told = |planned: &PlannedMove| {
        json!({
            "lane": planned.lane.0,
            "from": planned.from.map(|id| id.0),
            "to": leader(planned).map(|id| id.0),
        })
    };
    moves.iter().map(told).collect()
}

fn brokers_text(brokers: &[BrokerId]) -> String {
    match brokers {
        [broker] => format!("broker {broker}"),
        brokers => {
            let brokers: Vec<String> = brokers.iter().map(ToString::to_string).collect();
            format!("brokers {}", brokers.join(", "))
        }
    }
}

fn lanes_text(lanes: impl Iterator<Item = LaneId>) -> String {
    let lanes: Vec<String> = lanes.map(|lane| lane.to_string()).collect();
    match &lanes[..] {
        [lane] => format!("lane {lane}"),
        lanes => format!("lanes {}", lanes.join(", ")),
    }
}

fn status(context: &Context, output: &mut Output, admin: &Admin) -> Result<(), Failure> {
    let status = admin.cluster().map_err(|error| context.of_broker(&error))?;
    if output.json {
        return output.json(&status_json(&status));
    }
    let leader = match status.metadata_leader {
        Some(leader) => format!("led by broker {leader}"),
        None => "led by nobody that is known: who is alive and caught up is not known".into(),
    };
    output.line(&format!(
        "metadata at version {}, {leader}; told by broker {}",
        count(status.version),
        status.me
    ))?;
    if !status.voters.is_empty() {
        let told = match &status.learners[..] {
            [] => String::new(),
            learners => format!(", and told to {}", brokers_text(learners)),
        };
        output.line(&format!("it is decided by {}{told}", brokers_text(&status.voters)))?;
    }
    let mut columns = vec![
        ("BROKER", Column::Number),
        ("ADDRESS", Column::Text),
        ("RACK", Column::Text),
        ("SHARDS", Column::Number),
        ("STATE", Column::Text),
        ("LEADS", Column::Number),
        ("REPLICAS", Column::Number),
    ];
    columns.extend(LOAD_COLUMNS);
    let rows = status.brokers.iter().map(|broker| {
        let has = |lane: &&LaneStatus| lane.replicas.iter().any(|it| it.broker == broker.id);
        let mut row = vec![
            broker.id.to_string(),
            broker.address.to_string(),
            if broker.rack.is_empty() { "-".into() } else { broker.rack.clone() },
            broker.shards.to_string(),
            broker_state(broker),
            count(status.led_by(broker.id).count() as u64),
            count(status.lanes.iter().filter(has).count() as u64),
        ];
        row.extend(load_cells(load_of_broker(&status, broker.id)));
        row
    });
    output.table(&columns, rows)?;
    output.line(
        "load is what leading costs, in bytes to move: those that come in once for each follower, those that go out, and 4 KiB for \
         each request; over about 30 s, ? if that is not known",
    )?;
    output.line("entries that a replica lacks are in brackets, ? if that is not known")?;
    let mut columns = vec![
        ("LANE", Column::Number),
        ("EPOCH", Column::Number),
        ("LEADER", Column::Number),
        ("STATE", Column::Text),
    ];
    columns.extend(LOAD_COLUMNS);
    columns.push(("REPLICAS, THE PREFERRED LEADER FIRST", Column::Text));
    let rows = status.lanes.iter().map(|lane| {
        let mut row = vec![
            lane.lane.to_string(),
            lane.epoch.to_string(),
            lane.leader.map_or("-".into(), |leader| leader.to_string()),
            lane_state(lane),
        ];
        row.extend(load_cells(lane.load));
        row.push(replicas_text(lane));
        row
    });
    output.table(&columns, rows)
}

/// Above what [`load_cells`] gives.
const LOAD_COLUMNS: [(&str, Column); 4] = [
    ("LOAD", Column::Number),
    ("IN", Column::Number),
    ("RECORDS/S", Column::Number),
    ("OUT", Column::Number),
];

fn load_cells(load: Option<LaneLoad>) -> [String; 4] {
    match load {
        None => ["?".into(), "?".into(), "?".into(), "?".into()],
        Some(it) => [rate(it.load), rate(it.bytes_in), count(it.records_in), rate(it.bytes_out)],
    }
}

/// Of all that it leads, if that is known of each.
fn load_of_broker(status: &ClusterStatusReply, id: BrokerId) -> Option<LaneLoad> {
    status.led_by(id).try_fold(LaneLoad::default(), |sum, lane| {
        let load = lane.load?;
        Some(LaneLoad {
            load: sum.load.saturating_add(load.load),
            bytes_in: sum.bytes_in.saturating_add(load.bytes_in),
            records_in: sum.records_in.saturating_add(load.records_in),
            bytes_out: sum.bytes_out.saturating_add(load.bytes_out),
            requests: sum.requests.saturating_add(load.requests),
        })
    })
}

fn load_json(load: Option<LaneLoad>) -> Option<Value> {
    load.map(|load| {
        json!({
            "bytes_per_second": load.load, "bytes_in_per_second": load.bytes_in,
            "records_in_per_second": load.records_in, "bytes_out_per_second": load.bytes_out,
            "requests_per_second": load.requests,
        })
    })
}

fn broker_state(broker: &BrokerStatus) -> String {
    let alive = match broker.is_alive {
        Some(true) => "alive",
        Some(false) => "silent",
        None => "?",
    };
    if broker.is_draining { format!("{alive}, draining") } else { alive.into() }
}

fn lane_state(lane: &LaneStatus) -> String {
    let mut state = match (lane.leader, lane.is_serving) {
        (None, _) => String::from("without a leader"),
        (Some(_), true) => "serving".into(),
        (Some(_), false) => "led, not known to serve".into(),
    };
    if let Some(to) = lane.moving_to {
        state += &match lane.leader == Some(to) {
            true => ", about to change its replicas".into(),
            false => format!(", moving to {to}"),
        };
    }
    if !lane.before.is_empty() {
        let before: Vec<String> = lane.before.iter().map(ToString::to_string).collect();
        state += &format!(", changing from {}", before.join(" "));
    }
    state
}

/// `3  1 (0)  2 (1,200)`: the leader has no brackets.
fn replicas_text(lane: &LaneStatus) -> String {
    let text = |replica: &corelog::ReplicaStatus| match replica.behind {
        _ if lane.leader == Some(replica.broker) => replica.broker.to_string(),
        None => format!("{} (?)", replica.broker),
        Some(behind) => format!("{} ({})", replica.broker, count(behind)),
    };
    lane.replicas.iter().map(text).collect::<Vec<_>>().join("  ")
}

fn status_json(status: &ClusterStatusReply) -> Value {
    let broker = |broker: &BrokerStatus| {
        json!({
            "id": broker.id.0, "address": broker.address.to_string(), "rack": broker.rack,
            "shards": broker.shards, "alive": broker.is_alive, "draining": broker.is_draining,
            "leads": status.led_by(broker.id).map(|lane| lane.lane.0).collect::<Vec<_>>(),
            "load": load_json(load_of_broker(status, broker.id)),
        })
    };
    let lane = |lane: &LaneStatus| {
        let replica = |it: &corelog::ReplicaStatus| json!({ "broker": it.broker.0, "behind": it.behind, "caught_up": it.is_caught_up });
        json!({
            "lane": lane.lane.0, "epoch": lane.epoch.0, "leader": lane.leader.map(|id| id.0),
            "serving": lane.is_serving, "moving_to": lane.moving_to.map(|id| id.0),
            "replicas": lane.replicas.iter().map(replica).collect::<Vec<_>>(),
            "before": lane.before.iter().map(|id| id.0).collect::<Vec<_>>(),
            "load": load_json(lane.load),
        })
    };
    json!({
        "version": status.version, "me": status.me.0,
        "metadata_leader": status.metadata_leader.map(|id| id.0),
        "voters": status.voters.iter().map(|id| id.0).collect::<Vec<_>>(),
        "learners": status.learners.iter().map(|id| id.0).collect::<Vec<_>>(),
        "brokers": status.brokers.iter().map(broker).collect::<Vec<_>>(),
        "lanes": status.lanes.iter().map(lane).collect::<Vec<_>>(),
    })
}
