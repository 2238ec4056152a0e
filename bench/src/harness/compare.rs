//! Two brokers, or two settings, side by side: both run all the time, one is measured while the other rests, in turns and
//! in either order, so that whatever the machine does meanwhile happens to both.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::brokers::Source;
use super::host::Host;
use super::page;
use super::ratio::Ratio;
use super::run::{Measured, Nobody};
use super::scenario::{self, Scenario};
use super::target::{Kind, Session, Target};
use super::{stem, unix_seconds};
use crate::conditions::Watch;
use crate::latency::show;
use crate::report::{Table, thousands};

#[derive(Clone, Debug)]
pub struct Settings {
    /// `own`, the path of a corelogd, or of a scenario that ends in `.toml`.
    pub sides: [String; 2],
    /// For sides that are brokers.
    pub scenario: String,
    pub rounds: usize,
    /// Length of each measurement.
    pub seconds: f64,
    /// Environment variables of B's broker.
    pub variables: Vec<(String, String)>,
}

/// What is compared: a name, and whether more is better.
#[derive(Clone, Copy)]
struct Figure {
    name: &'static str,
    more_is_better: bool,
    of: fn(&Scenario, &Measured) -> f64,
    show: fn(f64) -> String,
}

#[derive(Debug, Serialize)]
struct Line {
    figure: &'static str,
    a: String,
    b: String,
    /// In ns, or per second.
    a_value: f64,
    b_value: f64,
    ratio: Ratio,
    verdict: String,
}

#[derive(Serialize)]
struct Report<'a> {
    a: &'a str,
    b: &'a str,
    rounds: usize,
    seconds: f64,
    began_unix_seconds: u64,
    host: &'a Host,
    steal_percent: f64,
    /// How many of the measurements the machine disturbed, in words.
    quiet: &'a str,
    lines: &'a [Line],
    conclusion: &'a str,
}

/// True if both sides lost nothing; what differs is told, and no failure.
pub fn run(settings: &Settings, target: &Target, out: &Path) -> io::Result<bool> {
    if target.driver != Kind::Corelog {
        return Err(io::Error::other(format!(
            "`compare` starts both sides, which it can do with Corelog only: for {} use `run` on each server, and compare the \
             ratios to the floor",
            target.driver.name()
        )));
    }
    let sides = [side(settings, 0)?, side(settings, 1)?];
    let [a, b] = &sides;
    if a.scenario.schedule.is_open() != b.scenario.schedule.is_open() {
        return Err(io::Error::other(
            "one side is an open loop and the other a closed one: they have no figure in common",
        ));
    }
    println!("A: {}\nB: {}", a.name, b.name);
    let began = unix_seconds();
    let mut sessions = [
        Session::start_from(target, &a.source, &a.scenario)?,
        Session::start_from(target, &b.source, &b.scenario)?,
    ];
    let watch = Watch::start();
    let figures = figures(a.scenario.schedule.is_open());
    let mut pairs: Vec<Vec<(f64, f64)>> = vec![Vec::new(); figures.len()];
    let mut is_clean = true;
    let mut disturbed = 0;
    // The first pair warms both up, and counts nowhere.
    for round in 0..=settings.rounds {
        let mut measured = [None, None];
        // ABBA: neither is always the one that comes second.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for at in order {
            let one = sessions[at].measure(&sides[at].scenario, &Nobody)?;
            is_clean &= one.verdict.is_clean();
            disturbed += usize::from(is_disturbed(&sides[at].scenario, &one));
            measured[at] = Some(one);
        }
        let [Some(first), Some(second)] = &measured else { continue };
        if round > 0 {
            for (figure, pairs) in figures.iter().zip(&mut pairs) {
                pairs.push(((figure.of)(&a.scenario, first), (figure.of)(&b.scenario, second)));
            }
        }
    }
    let lines: Vec<Line> =
        figures.iter().zip(&pairs).filter_map(|(figure, pairs)| line(figure, pairs)).collect();
    let conditions = watch.stop();
    let conclusion = conclusion(&lines);
    let mut table = Table::new(["", "A", "B", "B to A, and 99 % interval", ""]);
    for line in &lines {
        let cells = [
            line.figure.into(),
            line.a.clone(),
            line.b.clone(),
            line.ratio.show(),
            line.verdict.clone(),
        ];
        table.row(cells);
    }
    println!("\n{}", table.show());
    println!("{} pairs of {} s in turns; {conditions}", settings.rounds, settings.seconds);
    let quiet = quiet(disturbed, 2 * (settings.rounds + 1));
    println!("{quiet}\n{conclusion}");
    let host = Host::look(sessions[0].folder());
    let report = Report {
        a: &a.name,
        b: &b.name,
        rounds: settings.rounds,
        seconds: settings.seconds,
        began_unix_seconds: began,
        host: &host,
        steal_percent: conditions.steal_percent,
        quiet: &quiet,
        lines: &lines,
        conclusion: &conclusion,
    };
    std::fs::create_dir_all(out)?;
    let json = serde_json::to_string_pretty(&report).map_err(io::Error::other)?;
    std::fs::write(out.join("compare.json"), json + "\n")?;
    std::fs::write(out.join("report.html"), render(&report))?;
    if !is_clean {
        println!("FAILED: messages were lost, doubled, out of order or changed.");
    }
    Ok(is_clean)
}

/// By the bounds of the scenario, as for a run alone.
fn is_disturbed(scenario: &Scenario, measured: &Measured) -> bool {
    let bounds = &scenario.bounds;
    measured.conditions.steal_percent > bounds.steal_percent
        || measured.others_percent.is_some_and(|percent| percent > bounds.others_percent)
        || measured.jitter.p99 > bounds.jitter_us * 1_000
}

fn quiet(disturbed: usize, all: usize) -> String {
    match disturbed * 5 > all {
        true => format!(
            "DISTURBED by the machine in {disturbed} of {all} measurements: a small difference is not found so."
        ),
        false => format!("Quiet machine in all but {disturbed} of {all} measurements."),
    }
}

struct Side {
    name: String,
    source: Source,
    scenario: Scenario,
}

fn side(settings: &Settings, at: usize) -> io::Result<Side> {
    let given = &settings.sides[at];
    let variables = if at == 1 { settings.variables.clone() } else { Vec::new() };
    let (source, name) = match given.as_str() {
        "own" => (Source::Own { variables }, settings.scenario.as_str()),
        path if path.ends_with(".toml") => (Source::Own { variables }, path),
        path => (Source::Binary(PathBuf::from(path)), settings.scenario.as_str()),
    };
    let mut scenario = scenario::read(name)?;
    scenario.seconds = settings.seconds;
    scenario.warm_up_seconds = settings.seconds * 0.2;
    scenario.faults.clear();
    scenario.readers.catch_up = 0;
    scenario.check().map_err(|error| io::Error::other(format!("{name}: {error}")))?;
    let title = &scenario.title;
    let name = match given.as_str() {
        "own" => format!("the broker that is linked into the bench, {title}"),
        path => format!("{}, {title}", stem(path)),
    };
    Ok(Side { name, source, scenario })
}

fn figures(is_open: bool) -> Vec<Figure> {
    let nanos: fn(f64) -> String = |value| show(value as u64);
    let per_second: fn(f64) -> String = |value| format!("{}/s", thousands(value));
    if !is_open {
        return vec![
            Figure { name: "throughput", more_is_better: true, of: rate, show: per_second },
            Figure {
                name: "service time, mean",
                more_is_better: false,
                of: |_, measured| measured.totals.service.mean(),
                show: nanos,
            },
        ];
    }
    vec![
        Figure {
            name: "response time p50",
            more_is_better: false,
            of: |_, measured| measured.totals.response.at(0.5) as f64,
            show: nanos,
        },
        Figure {
            name: "response time p99",
            more_is_better: false,
            of: |_, measured| measured.totals.response.at(0.99) as f64,
            show: nanos,
        },
        Figure { name: "throughput", more_is_better: true, of: rate, show: per_second },
    ]
}

fn rate(scenario: &Scenario, measured: &Measured) -> f64 {
    let seconds =
        (measured.totals.last_at as f64 / 1e9).max(scenario.seconds) - scenario.warm_up_seconds;
    measured.totals.acknowledged as f64 / seconds.max(1e-9)
}

fn line(figure: &Figure, pairs: &[(f64, f64)]) -> Option<Line> {
    let ratio = Ratio::of_pairs(pairs, pairs.len() as u64)?;
    let middle =
        |pick: fn(&(f64, f64)) -> f64| crate::latency::median(pairs.iter().map(pick).collect());
    let percent = (ratio.middle - 1.0).abs() * 100.0;
    let verdict = match (ratio.is_different(), (ratio.middle > 1.0) == figure.more_is_better) {
        (false, _) => "no difference".to_owned(),
        (true, true) => format!("B is better by {percent:.1} %"),
        (true, false) => format!("B is worse by {percent:.1} %"),
    };
    let (a_value, b_value) = (middle(|pair| pair.0), middle(|pair| pair.1));
    let (a, b) = ((figure.show)(a_value), (figure.show)(b_value));
    Some(Line { figure: figure.name, a, b, a_value, b_value, ratio, verdict })
}

/// The first figure decides; the others are told.
fn conclusion(lines: &[Line]) -> String {
    match lines.first() {
        None => "Too little was measured to say anything.".into(),
        Some(first) if first.ratio.is_different() => {
            format!("A difference: {} of {}.", first.verdict, first.figure)
        }
        Some(first) => format!("No difference in {} beyond the noise.", first.figure),
    }
}

fn render(report: &Report<'_>) -> String {
    let mut body = format!(
        "<p class=\"banner\">{}</p>\n<h1>A and B</h1>\n<p class=\"banner\"><b>{}</b></p>\n",
        page::escape(report.quiet),
        page::escape(report.conclusion)
    );
    let _ = write!(
        body,
        "<p>A: {}<br>B: {}</p><p>{} pairs of {} s in turns, steal {:.1} %. {}, commit {}.</p>",
        page::escape(report.a),
        page::escape(report.b),
        report.rounds,
        report.seconds,
        report.steal_percent,
        page::escape(&report.host.describe()),
        report.host.commit
    );
    let row = |line: &Line| {
        let Ratio { low, middle, high, .. } = line.ratio;
        let (middle, interval) = (format!("{middle:.3}"), format!("{low:.3} to {high:.3}"));
        vec![
            line.figure.into(),
            line.a.clone(),
            line.b.clone(),
            middle,
            interval,
            line.verdict.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = report.lines.iter().map(row).collect();
    body += &page::table(&["", "A", "B", "B to A", "99 % interval", "verdict"], &rows);
    page::document("A and B", &body)
}
