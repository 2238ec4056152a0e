//! A stored result, run again: does it come out as it did?

use std::io;
use std::path::Path;

use super::outcome::{Interval, Outcome};
use super::ratio::Ratio;
use super::scenario;
use super::target::Target;
use super::{Length, run_once, tell};
use crate::report::Table;

/// True if the run was verified and no figure differs beyond the noise of both.
pub fn run(stored: &Path, target: &Target, length: Length, out: &Path) -> io::Result<bool> {
    let before = Outcome::read(stored)?;
    let path = stored.join("scenario.toml");
    let scenario = scenario::read(&path.to_string_lossy())?;
    let now = run_once(&scenario, target, length, out)?;
    print!("{}", tell::tell(&now));
    println!("\nStored: {}", before.first_line);
    for difference in differences(&before, &now) {
        println!("Not alike: {difference}.");
    }
    let mut table = Table::new(["stored and now", "ratio, and 99 % interval", ""]);
    let mut is_same = true;
    for (name, pick) in figures(before.is_open_loop) {
        let list = |outcome: &Outcome| -> Vec<f64> {
            let warm_up = outcome.scenario.warm_up_seconds;
            let end = outcome.scenario.seconds;
            let counted = outcome
                .intervals
                .iter()
                .filter(|it| it.at_seconds >= warm_up && it.at_seconds < end);
            counted.filter_map(pick).collect()
        };
        let ratio = Ratio::of_lists(&list(&before), &list(&now), before.began_unix_seconds);
        let Some(ratio) = ratio else { continue };
        is_same &= !ratio.is_different();
        let word = if ratio.is_different() { "differs" } else { "no difference" };
        table.row([name.into(), ratio.show(), word.into()]);
    }
    println!("\n{}", table.show());
    println!(
        "{}",
        if is_same { "It came out as it did." } else { "It did not come out as it did." }
    );
    Ok(now.is_clean() && is_same)
}

type Pick = fn(&Interval) -> Option<f64>;

fn figures(is_open: bool) -> Vec<(&'static str, Pick)> {
    let mut list: Vec<(&'static str, Pick)> =
        vec![("acknowledged per second", |it| Some(it.acknowledged_per_second))];
    if is_open {
        list.push(("response time p50", |it| it.response.map(|short| short.p50 as f64)));
        list.push(("response time p99", |it| it.response.map(|short| short.p99 as f64)));
    } else {
        list.push(("service time p50", |it| it.service.map(|short| short.p50 as f64)));
    }
    list
}

fn differences(before: &Outcome, now: &Outcome) -> Vec<String> {
    let mut list = Vec::new();
    let mut compare = |what: &str, before: &str, now: &str| {
        if before != now {
            list.push(format!("{what} was {before} and is {now}"));
        }
    };
    compare("the settings' fingerprint", &before.fingerprint, &now.fingerprint);
    compare("the commit", &before.host.commit, &now.host.commit);
    compare("the build", &before.host.flags, &now.host.flags);
    compare("the machine", &before.host.describe(), &now.host.describe());
    compare("the broker", &before.brokers, &now.brokers);
    list
}
