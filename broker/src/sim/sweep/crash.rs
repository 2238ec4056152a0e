//! Every crash of a life: after each of its steps, with every choice (or a sample of the choices) of
//! what the disk keeps of what was not flushed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use crate::random::Random;
use crate::sim::disk::{Files, Loose, Step};
use crate::sim::sweep::Checked;
use crate::sim::sweep::cow::CowImage;
use crate::sim::sweep::life::{Life, Trial};
use crate::sim::sweep::survey::Survey;

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Up to this many loose things, every subset is tried.
    pub exhaustive_max: usize,
    /// Beyond it: none, all, each alone left out, whole writes, and so many random subsets.
    pub samples: usize,
    /// Of the different images of a life, each so-many-th has its recovery crashed in turn at each
    /// of its steps; 0 for none.
    pub nest_every: usize,
    /// How often a recovery is crashed within a recovery.
    pub nest_depth: u32,
}

#[derive(Clone, Copy, Default, Debug)]
pub struct Count {
    pub lives: u64,
    /// Moments of crash.
    pub prefixes: u64,
    /// Crashes: moments and choices.
    pub crashes: u64,
    /// Different images among them, each of which was recovered three times.
    pub images: u64,
    /// Recoveries that were crashed at each of their own steps.
    pub recoveries_crashed: u64,
    pub loose_max: u64,
    /// Images whose recovery dropped commits.
    pub truncated: u64,
}

impl Count {
    pub fn add(&mut self, other: &Self) {
        self.lives += other.lives;
        self.prefixes += other.prefixes;
        self.crashes += other.crashes;
        self.images += other.images;
        self.recoveries_crashed += other.recoveries_crashed;
        self.loose_max = self.loose_max.max(other.loose_max);
        self.truncated += other.truncated;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} crashes after {} steps, {} images, {} of them truncated, {} recoveries crashed in turn, \
             up to {} loose things",
            self.crashes,
            self.prefixes,
            self.images,
            self.truncated,
            self.recoveries_crashed,
            self.loose_max,
        )
    }
}

/// What is kept, as a name for an image among those with the same durable bytes.
type Kept = Vec<(u8, u64, u64)>;

/// Crashes the trial everywhere. The error names the moment and the choice.
pub fn sweep(trial: &Trial, effort: &Effort, seed: u64, count: &mut Count) -> Checked<()> {
    let mut random = Random::new(seed);
    let mut files = Files::load(&trial.first);
    let mut known: BTreeMap<Kept, Rc<Survey>> = BTreeMap::new();
    count.lives += 1;
    for steps in 0..=trial.steps.len() {
        if let Some(step) = steps.checked_sub(1).map(|last| &trial.steps[last]) {
            files.apply(step);
            if changes_what_is_durable(step) {
                known.clear();
            }
        }
        count.prefixes += 1;
        let loose = files.loose();
        count.loose_max = count.loose_max.max(loose.len() as u64);
        for choice in choices(&loose, effort, &mut random) {
            count.crashes += 1;
            let place = || {
                let kept = loose.iter().zip(&choice).filter(|(_, keep)| **keep);
                let kept: Vec<&Loose> = kept.map(|(loose, _)| loose).collect();
                let last = steps.checked_sub(1).map(|last| told(&trial.steps[last]));
                let (name, of) = (&trial.name, trial.steps.len());
                format!("{name}: crash after step {steps} of {of} ({last:?}), kept {kept:?}")
            };
            let name = kept(&loose, &choice);
            let survey = match known.get(&name) {
                Some(survey) => survey.clone(),
                None => {
                    let mut choice = choice.iter();
                    let image = files.crash(|_| choice.next().copied().unwrap_or_default());
                    let image = CowImage::from(image);
                    let survey = crate::sim::sweep::guarded(&place, || {
                        trial.surveyor.survey(&image, random.next_u64())
                    })?;
                    count.images += 1;
                    count.truncated += u64::from(survey.report.commits_truncated > 0);
                    let survey = Rc::new(survey);
                    known.insert(name, survey.clone());
                    let nest = effort.nest_every;
                    if effort.nest_depth > 0 && nest > 0 && count.images.is_multiple_of(nest as u64)
                    {
                        crash_the_recovery(
                            trial,
                            &image,
                            &survey,
                            effort,
                            random.next_u64(),
                            count,
                        )
                        .map_err(|error| format!("{}\nthen {error}", place()))?;
                    }
                    survey
                }
            };
            trial.ledger.check(&survey, steps).map_err(|error| format!("{}: {error}", place()))?;
        }
    }
    Ok(())
}

/// Recovers the image on a disk that records, and crashes that.
fn crash_the_recovery(
    trial: &Trial,
    image: &CowImage,
    survey: &Survey,
    effort: &Effort,
    seed: u64,
    count: &mut Count,
) -> Checked<()> {
    let mut life = Life::after(trial, image, survey, seed).recovered()?;
    life.rig.settle()?;
    let inner = life.end("its recovery");
    count.recoveries_crashed += 1;
    // Deeper levels would multiply: fewer recoveries of a recovery are crashed again.
    let nest_every = effort.nest_every * 16 + 1;
    let effort = Effort { nest_depth: effort.nest_depth - 1, nest_every, ..*effort };
    sweep(&inner, &effort, seed, count)
}

/// After these, the same choice of what is loose means another image.
fn changes_what_is_durable(step: &Step) -> bool {
    !matches!(
        step,
        Step::WriteStart { .. }
            | Step::WriteEnd { .. }
            | Step::FlushStart { .. }
            | Step::SyncStart { .. }
            | Step::Open { .. }
    )
}

fn kept(loose: &[Loose], choice: &[bool]) -> Kept {
    let kept = loose.iter().zip(choice).enumerate().filter(|(_, (_, keep))| **keep);
    kept.map(|(index, (loose, _))| match loose {
        Loose::Sector { write, position, .. } => (0, *write, *position),
        Loose::Size { inode } => (1, u64::from(inode.0), 0),
        Loose::Name { .. } => (2, index as u64, 0),
    })
    .collect()
}

/// Without a write's bytes.
fn told(step: &Step) -> String {
    match step {
        Step::WriteStart { id, inode, position, content } => {
            format!("write {id} of {} bytes at {position} of {inode:?}", content.len())
        }
        other => format!("{other:?}"),
    }
}

/// What to keep, for each crash that is tried at one moment.
fn choices(loose: &[Loose], effort: &Effort, random: &mut Random) -> BTreeSet<Vec<bool>> {
    let count = loose.len();
    let mut choices = BTreeSet::new();
    if count <= effort.exhaustive_max {
        choices.extend((0..1u64 << count).map(|bits| subset(count, |at| bits >> at & 1 == 1)));
        return choices;
    }
    choices.insert(vec![false; count]);
    choices.insert(vec![true; count]);
    // Large writes of one kind: a few of their sectors stand for all.
    let stride = count.div_ceil(32);
    for one in (0..count).step_by(stride) {
        choices.insert(subset(count, |at| at != one));
        choices.insert(subset(count, |at| at == one));
    }
    // Whole writes, in any combination: commits overtake each other.
    let group = |loose: &Loose| match loose {
        Loose::Sector { write, .. } => (0, *write),
        Loose::Size { inode } => (1, u64::from(inode.0)),
        Loose::Name { .. } => (2, 0),
    };
    let groups: BTreeSet<_> = loose.iter().map(group).collect();
    let groups: Vec<_> = groups.into_iter().collect();
    let number = |at: usize| groups.binary_search(&group(&loose[at])).expect("listed just now");
    let combinations = 1u64 << groups.len().min(6);
    for combination in 0..combinations {
        let bits = if groups.len() <= 6 { combination } else { random.next_u64() };
        choices.insert(subset(count, |at| bits >> (number(at) % 64) & 1 == 1));
    }
    for sample in 0..effort.samples {
        // Few, half, and most.
        let keep = [1, 4, 7][sample % 3];
        choices.insert(subset(count, |_| random.chance(keep, 8)));
    }
    choices
}

fn subset(count: usize, keep: impl FnMut(usize) -> bool) -> Vec<bool> {
    (0..count).map(keep).collect()
}
