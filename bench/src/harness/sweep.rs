//! The highest rate that meets an objective, by bisection: each trial is a run with a constant rate on topics of its own, against
//! the same brokers.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::page;
use super::run::{Measured, Nobody};
use super::scenario::Scenario;
use super::schedule::Plan;
use super::target::{Session, Target};
use super::{floors, host::Host, unix_seconds};
use crate::latency::show;
use crate::report::{Table, thousands};

/// `p99 < 2ms`: of response times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    pub quantile: f64,
    pub nanos: u64,
}

impl std::str::FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no objective: write it as \"p99 < 2ms\"");
        let (name, bound) = text.split_once('<').ok_or_else(wrong)?;
        let percent: f64 =
            name.trim().strip_prefix('p').ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
        let bound = bound.trim();
        let at =
            bound.find(|letter: char| letter.is_alphabetic() || letter == 'µ').ok_or_else(wrong)?;
        let (number, unit) = bound.split_at(at);
        let unit = match unit.trim() {
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            _ => return Err(wrong()),
        };
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        if !(percent > 0.0 && percent < 100.0 && number > 0.0) {
            return Err(wrong());
        }
        Ok(Self { quantile: percent / 100.0, nanos: (number * unit) as u64 })
    }
}

impl Objective {
    fn show(&self) -> String {
        format!("p{} < {}", (self.quantile * 1e5).round() / 1e3, show(self.nanos))
    }
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub objective: Objective,
    /// Rates to begin with, per second.
    pub from: f64,
    pub to: f64,
    /// Length of each trial.
    pub seconds: f64,
    /// The answer is so close to what fails, as a share.
    pub within: f64,
}

/// One rate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trial {
    pub offered: f64,
    pub acknowledged: f64,
    pub p50: u64,
    pub p99: u64,
    /// Of the objective's quantile.
    pub reached: u64,
    pub meets: bool,
    /// It did not keep up, whatever the latencies.
    pub fell_behind: bool,
    pub steal_percent: f64,
}

#[derive(Serialize)]
struct Report<'a> {
    objective: String,
    best_per_second: Option<f64>,
    trials: &'a [Trial],
    at_the_best: Option<&'a Outcome>,
}

/// True if some rate meets the objective, and nothing was lost at any.
pub fn run(
    scenario: &Scenario,
    target: &Target,
    settings: &Settings,
    floor_seconds: f64,
    out: &Path,
) -> io::Result<bool> {
    let mut session = Session::start(target, scenario)?;
    let floor = floors::measure(scenario, session.folder(), floor_seconds)?;
    println!("{}: the highest rate with {}", scenario.title, settings.objective.show());
    let mut trials = Vec::new();
    let mut best: Option<(Scenario, Measured, u64)> = None;
    let mut is_clean = true;
    let mut attempt = |rate: f64| -> io::Result<bool> {
        let scenario = at_rate(scenario, rate, settings.seconds);
        let began = unix_seconds();
        let measured = session.measure(&scenario, &Nobody)?;
        is_clean &= measured.verdict.is_clean();
        let trial = judge(&scenario, &measured, rate, settings.objective);
        eprintln!(
            "{:>12}/s  p50 {:>9}  p99 {:>9}  {}",
            thousands(rate),
            show(trial.p50),
            show(trial.p99),
            if trial.meets { "meets it" } else { "does not" }
        );
        let meets = trial.meets;
        trials.push(trial);
        if meets {
            best = Some((scenario, measured, began));
        }
        Ok(meets)
    };
    let found = bisect(settings.from, settings.to, settings.within, &mut attempt)?;
    trials.sort_by(|a, b| a.offered.total_cmp(&b.offered));
    let outcome = best.map(|(scenario, measured, began)| -> io::Result<Outcome> {
        let about = session.about(&scenario)?;
        let host = Host::look(session.folder());
        Ok(Outcome::new(&scenario, about, session.brokers(), host, Some(floor), began, &measured))
    });
    let outcome = outcome.transpose()?;
    let report = Report {
        objective: settings.objective.show(),
        best_per_second: found,
        trials: &trials,
        at_the_best: outcome.as_ref(),
    };
    std::fs::create_dir_all(out)?;
    let json = serde_json::to_string_pretty(&report).map_err(io::Error::other)?;
    std::fs::write(out.join("sweep.json"), json + "\n")?;
    std::fs::write(
        out.join("report.html"),
        render(scenario, settings, found, &trials, outcome.as_ref()),
    )?;
    print!("{}", table(&trials, settings).show());
    if let Some(outcome) = &outcome {
        println!("At the best rate: {}", outcome.first_line);
    }
    println!("{}\n{}", conclusion(settings, found), out.join("report.html").display());
    if !is_clean {
        println!("FAILED: messages were lost, doubled, out of order or changed in a trial.");
    }
    Ok(found.is_some() && is_clean)
}

/// Doubles until a rate fails, then halves the distance. `None`: even the lowest fails.
fn bisect(
    from: f64,
    to: f64,
    within: f64,
    attempt: &mut dyn FnMut(f64) -> io::Result<bool>,
) -> io::Result<Option<f64>> {
    if !attempt(from)? {
        return Ok(None);
    }
    let (mut good, mut bad) = (from, None);
    while bad.is_none() && good < to {
        let next = (good * 2.0).min(to);
        match attempt(next)? {
            true => good = next,
            false => bad = Some(next),
        }
    }
    let Some(mut bad) = bad else { return Ok(Some(good)) };
    while bad / good > 1.0 + within {
        let middle = f64::midpoint(good, bad);
        match attempt(middle)? {
            true => good = middle,
            false => bad = middle,
        }
    }
    Ok(Some(good))
}

fn at_rate(scenario: &Scenario, per_second: f64, seconds: f64) -> Scenario {
    let schedule = match scenario.schedule {
        Plan::Poisson { .. } => Plan::Poisson { per_second },
        _ => Plan::Constant { per_second },
    };
    let mut scenario =
        Scenario { schedule, seconds, warm_up_seconds: seconds * 0.2, ..scenario.clone() };
    scenario.faults.clear();
    scenario.readers.catch_up = 0;
    scenario
}

fn judge(scenario: &Scenario, measured: &Measured, offered: f64, objective: Objective) -> Trial {
    let totals = &measured.totals;
    let seconds = (totals.last_at as f64 / 1e9).max(scenario.seconds) - scenario.warm_up_seconds;
    let acknowledged = totals.acknowledged as f64 / seconds.max(1e-9);
    let reached = totals.response.at(objective.quantile);
    let fell_behind = totals.unsent > 0 || totals.failed > 0 || acknowledged < offered * 0.97;
    Trial {
        offered,
        acknowledged,
        p50: totals.response.at(0.5),
        p99: totals.response.at(0.99),
        reached,
        meets: reached <= objective.nanos && !fell_behind,
        fell_behind,
        steal_percent: measured.conditions.steal_percent,
    }
}

const HEADINGS: [&str; 7] =
    ["offered/s", "acknowledged/s", "p50", "p99", "objective's", "meets it", "steal"];

fn row(trial: &Trial, settings: &Settings) -> [String; 7] {
    let meets = match (trial.meets, trial.fell_behind) {
        (true, _) => "yes",
        (false, true) => "fell behind",
        (false, false) => "no",
    };
    [
        thousands(trial.offered),
        thousands(trial.acknowledged),
        show(trial.p50),
        show(trial.p99),
        format!("{} of {}", show(trial.reached), show(settings.objective.nanos)),
        meets.into(),
        format!("{:.1} %", trial.steal_percent),
    ]
}

fn table(trials: &[Trial], settings: &Settings) -> Table {
    let mut table = Table::new(HEADINGS);
    trials.iter().for_each(|trial| table.row(row(trial, settings)));
    table
}

fn conclusion(settings: &Settings, found: Option<f64>) -> String {
    let objective = settings.objective.show();
    match found {
        Some(rate) if rate >= settings.to => {
            format!(
                "{objective} is met at {} per second, the highest rate that was tried: raise --to.",
                thousands(rate)
            )
        }
        Some(rate) => format!("{objective} is met up to {} per second.", thousands(rate)),
        None => format!("{objective} is not even met at {} per second.", thousands(settings.from)),
    }
}

fn render(
    scenario: &Scenario,
    settings: &Settings,
    found: Option<f64>,
    trials: &[Trial],
    outcome: Option<&Outcome>,
) -> String {
    let points =
        |pick: fn(&Trial) -> f64| trials.iter().map(|trial| (trial.offered, pick(trial))).collect();
    let mut body = format!(
        "<h1>{}</h1>\n<p class=\"banner\"><b>{}</b></p>\n<div class=\"charts\">{}{}</div>\n",
        page::escape(&scenario.title),
        page::escape(&conclusion(settings, found)),
        page::throughput(points(|trial| trial.acknowledged)).render(),
        page::latency_by_load(points(|trial| trial.p50 as f64), points(|trial| trial.p99 as f64))
            .render()
    );
    body += "<h2>Trials</h2>\n";
    body += &page::table(
        &HEADINGS,
        &trials.iter().map(|trial| row(trial, settings).into()).collect::<Vec<_>>(),
    );
    if let Some(outcome) = outcome {
        body += "<h2>The run at that rate</h2>\n";
        body += &page::body(outcome);
    }
    page::document(&scenario.title, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objective_is_read_as_it_is_said() {
        let objective: Objective = "p99 < 2ms".parse().unwrap();
        assert_eq!(objective, Objective { quantile: 0.99, nanos: 2_000_000 });
        assert_eq!("p99.9<250 µs".parse::<Objective>().unwrap().show(), "p99.9 < 250 µs");
        for wrong in ["p99", "99 < 2ms", "p99 < 2", "p100 < 1s", "p50 < 3 hours"] {
            assert!(wrong.parse::<Objective>().unwrap_err().contains("p99 < 2ms"), "{wrong}");
        }
    }

    #[test]
    fn the_highest_rate_is_found_to_within_what_was_asked_for() {
        for limit in [1_500.0, 77_000.0, 640_000.0] {
            let mut tried = 0;
            let found = bisect(1_000.0, 1e6, 0.05, &mut |rate| {
                tried += 1;
                Ok(rate <= limit)
            });
            let found = found.unwrap().unwrap();
            assert!(found <= limit && found > limit / 1.06, "{found} of {limit}");
            assert!(tried < 18, "{tried} trials");
        }
        assert_eq!(bisect(10.0, 100.0, 0.05, &mut |_| Ok(false)).unwrap(), None);
        assert_eq!(bisect(10.0, 100.0, 0.05, &mut |_| Ok(true)).unwrap(), Some(100.0));
    }
}
