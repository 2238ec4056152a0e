//! `corelog cluster remove` and `balance`: several steps, each shown before it is made and while it is under way.

use std::io::{self, Write};

use corelog::{
    Admin, BrokerId, ClusterStatusReply, NoPlan, Operation, PlanProgress, plan_balance,
    plan_removal,
};
use serde_json::{Value, json};

use super::{brokers_text, progress};
use crate::arguments::PlanHow;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;

pub fn remove(
    context: &Context,
    output: &mut Output,
    admin: &Admin,
    (number, onto): (u32, &[u32]),
    how: &PlanHow,
) -> Result<(), Failure> {
    let broker = BrokerId(number);
    let onto: Vec<BrokerId> = onto.iter().copied().map(BrokerId).collect();
    let plan = |status: &ClusterStatusReply| plan_removal(status, broker, &onto);
    let done = format!(
        "broker {broker} is removed for good: stop it if it runs, its number does not come back"
    );
    carry_out(context, output, admin, plan, (&done, how))
}

pub fn balance(
    context: &Context,
    output: &mut Output,
    admin: &Admin,
    how: &PlanHow,
) -> Result<(), Failure> {
    carry_out(context, output, admin, plan_balance, ("lanes and their leads are balanced", how))
}

fn carry_out(
    context: &Context,
    output: &mut Output,
    admin: &Admin,
    plan: impl Fn(&ClusterStatusReply) -> Result<Vec<Operation>, NoPlan>,
    (done, how): (&str, &PlanHow),
) -> Result<(), Failure> {
    let failed = |error| context.of_broker(&error);
    let before = admin.cluster().map_err(failed)?;
    let steps = plan(&before).map_err(|why| context.of_broker(&corelog::Error::NoPlan(why)))?;
    if how.dry_run {
        if output.json {
            return output.json(&json!({ "dry-run": true, "steps": steps_json(&steps) }));
        }
        if steps.is_empty() {
            return output.line("nothing would change");
        }
        output.line(&format!("would be done, in {}:", count_of(steps.len())))?;
        return steps
            .iter()
            .try_for_each(|step| output.line(&format!("  {}", step_text(step, &before))));
    }
    let is_json = output.json;
    let mut said = String::new();
    let mut left_said = usize::MAX;
    let mut say = |line: String| {
        if !is_json && line != said {
            // Without a reader of it, the work goes on all the same.
            let _ = writeln!(io::stderr(), "{line}");
            said = line;
        }
    };
    let told = |now: &PlanProgress<'_>| {
        let Some(step) = now.steps.first() else { return };
        if now.steps.len() != left_said {
            left_said = now.steps.len();
            let left = count_of(left_said);
            say(format!("{} ({left} left)", step_text(step, now.status)));
        }
        if matches!(now.standing, corelog::Standing::UnderWay { .. }) {
            say(progress(step, now.standing, now.status));
        }
    };
    let after = admin.carry_out_plan(plan, how.patience, told).map_err(failed)?;
    if output.json {
        return output.json(&json!({
            "done": true, "version": after.version, "steps": steps_json(&steps),
        }));
    }
    output.line(done)
}

fn count_of(steps: usize) -> String {
    if steps == 1 { "1 step".into() } else { format!("{steps} steps") }
}

fn step_text(step: &Operation, status: &ClusterStatusReply) -> String {
    match step {
        Operation::Transfer { lane, to } => format!("lane {lane}: broker {to} leads it"),
        Operation::Replace { lane, replicas } => {
            let had = status.lane(*lane).map(|lane| &lane.replicas[..]).unwrap_or_default();
            let comes: Vec<BrokerId> = replicas
                .iter()
                .copied()
                .filter(|id| had.iter().all(|it| it.broker != *id))
                .collect();
            let goes: Vec<BrokerId> =
                had.iter().map(|it| it.broker).filter(|id| !replicas.contains(id)).collect();
            match (&comes[..], &goes[..]) {
                ([], []) => format!("lane {lane}: the change that is under way ends"),
                (comes, goes) => format!(
                    "lane {lane}: {} gets a copy, {} has none any more",
                    brokers_text(comes),
                    brokers_text(goes)
                ),
            }
        }
        Operation::Drain { broker } => format!("broker {broker} leads nothing any more"),
        Operation::Undrain { broker } => format!("broker {broker} may lead again"),
        Operation::Remove { broker } => format!("broker {broker} is removed for good"),
        Operation::AddLanes { broker, up_to } => match status.lanes.len() as u32 + 1 {
            first if first >= up_to.0 => format!("lane {up_to} is made, led by broker {broker}"),
            first => format!("lanes {first} to {up_to} are made, led by broker {broker}"),
        },
    }
}

fn steps_json(steps: &[Operation]) -> Vec<Value> {
    let step = |step: &Operation| match step {
        Operation::Transfer { lane, to } => {
            json!({ "operation": "transfer", "lane": lane.0, "to": to.0 })
        }
        Operation::Replace { lane, replicas } => json!({
            "operation": "replace", "lane": lane.0,
            "replicas": replicas.iter().map(|id| id.0).collect::<Vec<_>>(),
        }),
        Operation::Drain { broker } => json!({ "operation": "drain", "broker": broker.0 }),
        Operation::Undrain { broker } => json!({ "operation": "undrain", "broker": broker.0 }),
        Operation::Remove { broker } => json!({ "operation": "remove", "broker": broker.0 }),
        Operation::AddLanes { broker, up_to } => {
            json!({ "operation": "add-lanes", "broker": broker.0, "up-to": up_to.0 })
        }
    };
    steps.iter().map(step).collect()
}
