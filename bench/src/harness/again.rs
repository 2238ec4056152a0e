//! A stored result, run again with the settings that it was run with: does it come out as it did? One sentence for each
//! figure.
//!
//! Both runs were cut into intervals of the same length, and the schedule asked both for the same at each moment. So the
//! intervals are compared in pairs, as `compare` does with its turns: what the schedule does to a figure cancels out. Two
//! runs at different times differ by more than two sides measured in turns: by where their files lie on the disk, and by
//! what else the host does. That much is no difference here ([`figures`]).

use std::io;
use std::path::Path;

use super::brokers::Origin;
use super::outcome::{Interval, Outcome};
use super::ratio::Ratio;
use super::scenario::{self, Scenario};
use super::target::Target;
use super::{Length, run_once, tell};
use crate::latency::show;
use crate::report::thousands;

/// True if every message was verified and every figure came out as it did.
pub fn run(stored: &Path, target: &Target, length: Length, out: &Path) -> io::Result<bool> {
    let before = Outcome::read(stored)?;
    let scenario = scenario_of(stored, &before)?;
    is_of_such_brokers(&before, target).map_err(io::Error::other)?;
    let now = run_once(&scenario, target, length, out)?;
    print!("{}", tell::tell(&now));
    println!("\nThen: {}\nNow: {}", before.first_line, now.first_line);
    for difference in differences(&before, &now) {
        println!("Not alike: {difference}.");
    }
    if let Some(sentence) = floors(&before, &now) {
        println!("{sentence}");
    }
    let findings = judge(&before, &now);
    println!();
    for finding in &findings {
        println!("{}", finding.sentence);
    }
    println!("\n{}\n{}", conclusion(&findings, &before, &now), out.join("report.html").display());
    Ok(now.is_clean() && findings.iter().all(|finding| !finding.differs))
}

/// The scenario of a stored result, with its trace.
fn scenario_of(stored: &Path, before: &Outcome) -> io::Result<Scenario> {
    let path = stored.join("scenario.toml");
    let scenario = scenario::read(&path.to_string_lossy())?;
    // A trace is in a file of its own, and in no result.
    let told = Scenario { trace: scenario.trace.clone(), ..before.scenario.clone() };
    if told != scenario {
        return Err(io::Error::other(format!(
            "{}: it is not the scenario of the result.json beside it, so there is nothing to come out alike",
            path.display()
        )));
    }
    Ok(scenario)
}

/// Brokers that ran already, or speak otherwise, cannot be started here: they have to be named again.
fn is_of_such_brokers(before: &Outcome, target: &Target) -> Result<(), String> {
    let driver = target.driver.name();
    if before.about.name != driver {
        return Err(format!(
            "the stored run was of {}, and this would be one of {driver}: choose it with --driver",
            before.about.name
        ));
    }
    if before.origin == Origin::Given && target.broker.is_empty() {
        return Err(
            "the stored run was made against brokers that ran already: name them with --broker HOST:PORT"
                .into(),
        );
    }
    if before.origin == Origin::Binary && target.binary.is_none() && target.broker.is_empty() {
        return Err(format!(
            "the stored run was of a program of its own ({}): name it with --binary PATH",
            before.brokers
        ));
    }
    Ok(())
}

/// What became of one figure.
#[derive(Debug)]
struct Finding {
    figure: &'static str,
    differs: bool,
    /// For people.
    sentence: String,
}

struct Figure {
    name: &'static str,
    /// Of two quiet runs of the same broker; a ratio within is none.
    noise: f64,
    of_interval: fn(&Interval) -> Option<f64>,
    of_run: fn(&Outcome) -> Option<f64>,
    show: fn(f64) -> String,
}

fn figures(is_open: bool) -> Vec<Figure> {
    let nanos: fn(f64) -> String = |value| show(value as u64);
    let mut list = vec![Figure {
        name: "Acknowledged per second",
        // In an open loop the schedule says how many.
        noise: if is_open { 0.03 } else { 0.15 },
        of_interval: |it| Some(it.acknowledged_per_second),
        of_run: |outcome| Some(outcome.figures.per_second),
        show: |value| thousands(value),
    }];
    if !is_open {
        list.push(Figure {
            name: "Service time p50",
            noise: 0.2,
            of_interval: |it| Some(it.service?.p50 as f64),
            of_run: |outcome| Some(outcome.figures.service.p50 as f64),
            show: nanos,
        });
        return list;
    }
    list.extend([
        Figure {
            name: "Response time p50",
            noise: 0.2,
            of_interval: |it| Some(it.response?.p50 as f64),
            of_run: |outcome| Some(outcome.figures.response.as_ref()?.p50 as f64),
            show: nanos,
        },
        Figure {
            name: "Response time p99",
            noise: 0.5,
            of_interval: |it| Some(it.response?.p99 as f64),
            of_run: |outcome| Some(outcome.figures.response.as_ref()?.p99 as f64),
            show: nanos,
        },
        Figure {
            name: "Producer to reader p50",
            noise: 0.2,
            of_interval: |it| Some(it.end_to_end?.p50 as f64),
            of_run: |outcome| Some(outcome.figures.end_to_end.as_ref()?.p50 as f64),
            show: nanos,
        },
    ]);
    list
}

fn judge(before: &Outcome, now: &Outcome) -> Vec<Finding> {
    let mut list: Vec<Finding> =
        figures(before.is_open_loop).iter().map(|figure| judge_one(figure, before, now)).collect();
    let (then, is) = (before.verdict.is_clean, now.verdict.is_clean);
    let word = |is_clean: bool| {
        if is_clean { "every message was verified" } else { "NOT all was verified" }
    };
    list.push(Finding {
        figure: "Verification",
        differs: then != is,
        sentence: match then == is {
            true => format!("Verification came out as it did: {}.", word(is)),
            false => format!("Verification DIFFERS: {} then, {} now.", word(then), word(is)),
        },
    });
    list
}

fn judge_one(figure: &Figure, before: &Outcome, now: &Outcome) -> Finding {
    let name = figure.name;
    let told = |outcome: &Outcome| (figure.of_run)(outcome).map_or("nothing".into(), figure.show);
    let values = format!("{} then, {} now", told(before), told(now));
    let has_both = (figure.of_run)(before).is_some() == (figure.of_run)(now).is_some();
    let Some(ratio) = ratio(figure, before, now) else {
        let sentence = match has_both {
            true => {
                format!("{name}: {values}; fewer than three intervals are not enough to compare.")
            }
            false => format!("{name} DIFFERS: {values}."),
        };
        return Finding { figure: name, differs: !has_both, sentence };
    };
    let differs = ratio.is_beyond(figure.noise);
    let noise = figure.noise * 100.0;
    let ratio = ratio.show();
    let sentence = match (differs, disturbed(before, now)) {
        (false, None) => {
            format!(
                "{name} came out as it did, within the noise of {noise:.0} %: {values}, ratio {ratio}."
            )
        }
        (false, Some(who)) => format!(
            "{name} came out as it did, within the noise of {noise:.0} %: {values}, ratio {ratio}, though {who} DISTURBED."
        ),
        (true, None) => {
            format!(
                "{name} DIFFERS by more than the noise of {noise:.0} %: {values}, ratio {ratio}."
            )
        }
        (true, Some(who)) => format!(
            "{name} DIFFERS by more than the noise of {noise:.0} %: {values}, ratio {ratio}; but {who} DISTURBED, so this says more about \
             the machine than about the broker."
        ),
    };
    Finding { figure: name, differs, sentence }
}

/// Of now to then, over the intervals after the warm-up that both have.
fn ratio(figure: &Figure, before: &Outcome, now: &Outcome) -> Option<Ratio> {
    let (warm_up, end) = (before.scenario.warm_up_seconds, before.scenario.seconds);
    let pairs: Vec<(f64, f64)> = before
        .intervals
        .iter()
        .zip(&now.intervals)
        .filter(|(then, _)| then.at_seconds >= warm_up && then.at_seconds < end)
        .filter_map(|(then, now)| Some(((figure.of_interval)(then)?, (figure.of_interval)(now)?)))
        .collect();
    Ratio::of_pairs(&pairs, before.began_unix_seconds)
}

/// Which of the two was disturbed, with its verb.
fn disturbed(before: &Outcome, now: &Outcome) -> Option<&'static str> {
    match (before.is_disturbed, now.is_disturbed) {
        (false, false) => None,
        (true, false) => Some("the stored run was"),
        (false, true) => Some("this run was"),
        (true, true) => Some("both runs were"),
    }
}

fn conclusion(findings: &[Finding], before: &Outcome, now: &Outcome) -> String {
    let differ: Vec<&str> =
        findings.iter().filter(|finding| finding.differs).map(|finding| finding.figure).collect();
    match (differ.is_empty(), disturbed(before, now)) {
        (true, _) if !now.is_clean() => {
            "It came out as it did, which is to say: NOT all was verified.".into()
        }
        (true, _) => "It came out as it did.".into(),
        (false, None) => format!("It did not come out as it did: {}.", differ.join(", ")),
        (false, Some(who)) => format!(
            "It did not come out as it did: {}. But {who} DISTURBED: try again on a quiet machine.",
            differ.join(", ")
        ),
    }
}

/// What is said first: the machine may have become another.
fn floors(before: &Outcome, now: &Outcome) -> Option<String> {
    let (then, now) = (&before.floor.as_ref()?.same_load, &now.floor.as_ref()?.same_load);
    Some(format!(
        "The bare loop under the same load took {} at p50 then, and {} now.",
        show(then.latency.p50),
        show(now.latency.p50)
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of a quiet machine, stored.
    fn stored() -> Outcome {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/stored");
        let mut outcome = Outcome::read(Path::new(folder)).unwrap();
        outcome.is_disturbed = false;
        outcome
    }

    fn with_response(
        mut outcome: Outcome,
        change: impl Fn(usize, &mut crate::harness::outcome::Short),
    ) -> Outcome {
        for (at, interval) in outcome.intervals.iter_mut().enumerate() {
            interval.response.iter_mut().for_each(|short| change(at, short));
        }
        outcome
    }

    fn differ(before: &Outcome, now: &Outcome) -> Vec<&'static str> {
        let findings = judge(before, now);
        findings.iter().filter(|it| it.differs).map(|it| it.figure).collect()
    }

    #[test]
    fn a_run_comes_out_as_itself_and_each_figure_has_a_sentence() {
        let findings = judge(&stored(), &stored());
        assert_eq!(findings.len(), 5);
        for finding in &findings {
            assert!(finding.sentence.contains("came out as it did"), "{}", finding.sentence);
            assert!(!finding.sentence.contains("DISTURBED"), "{}", finding.sentence);
        }
        assert_eq!(conclusion(&findings, &stored(), &stored()), "It came out as it did.");
    }

    #[test]
    fn a_figure_that_moved_is_named_and_no_other() {
        let now = with_response(stored(), |_, short| short.p99 *= 3);
        assert_eq!(differ(&stored(), &now), ["Response time p99"]);
        let findings = judge(&stored(), &now);
        assert_eq!(
            conclusion(&findings, &stored(), &now),
            "It did not come out as it did: Response time p99."
        );
        // What became better is told as well.
        assert_eq!(differ(&now, &stored()), ["Response time p99"]);
    }

    #[test]
    fn noise_is_no_difference() {
        let now = with_response(stored(), |at, short| {
            short.p50 = short.p50 * (95 + at as u64 % 11) / 100;
            short.p99 = short.p99 * (70 + at as u64 % 61) / 100;
        });
        assert_eq!(differ(&stored(), &now), [""; 0]);
    }

    #[test]
    fn a_disturbed_side_is_said() {
        let now = with_response(stored(), |_, short| short.p50 *= 2);
        for (then, is, who) in [
            (true, false, "the stored run was DISTURBED"),
            (false, true, "this run was DISTURBED"),
            (true, true, "both runs were DISTURBED"),
        ] {
            let mut pair = [stored(), now.clone()];
            (pair[0].is_disturbed, pair[1].is_disturbed) = (then, is);
            let findings = judge(&pair[0], &pair[1]);
            let p50 = findings.iter().find(|it| it.figure == "Response time p50").unwrap();
            assert!(p50.differs && p50.sentence.contains(who), "{}", p50.sentence);
            assert!(conclusion(&findings, &pair[0], &pair[1]).contains(who));
        }
    }

    #[test]
    fn what_was_lost_differs_from_what_was_not() {
        let mut now = stored();
        now.verdict.is_clean = false;
        assert_eq!(differ(&stored(), &now), ["Verification"]);
    }

    #[test]
    fn brokers_that_cannot_be_started_here_have_to_be_named() {
        let mut before = stored();
        before.origin = Origin::Given;
        let error = is_of_such_brokers(&before, &Target::default()).unwrap_err();
        assert!(error.contains("--broker HOST:PORT"), "{error}");
        let target = Target { broker: vec!["127.0.0.1:1".into()], ..Target::default() };
        assert_eq!(is_of_such_brokers(&before, &target), Ok(()));
        before.origin = Origin::Binary;
        let error = is_of_such_brokers(&before, &Target::default()).unwrap_err();
        assert!(error.contains("--binary PATH"), "{error}");
        before.about.name = "nats jetstream".into();
        let error = is_of_such_brokers(&before, &target).unwrap_err();
        assert!(error.contains("nats jetstream") && error.contains("--driver"), "{error}");
    }
}
