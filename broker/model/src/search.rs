//! Runs the checker: a whole exploration, or the hunt for the shortest counterexample.

use stateright::{Checker, HasDiscoveries, Model, Path};

use crate::action::Action;
use crate::config::Config;
use crate::model::Lane;
use crate::state::State;

/// What an exploration came to.
#[derive(Clone, Debug)]
pub struct Explored {
    /// Different states, replicas not told apart.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// Length of the longest path that was needed to reach a state first.
    pub depth: usize,
}

/// A broken property, and how it comes to that.
pub type Counterexample = (&'static str, Path<State, Action>);

/// Visits every state within `config`. On a failure, tells a counterexample; when something did not happen that must,
/// its name with no steps.
pub fn explore(config: Config, threads: usize) -> Result<Explored, Box<Counterexample>> {
    let checker = Lane(config)
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    if let Some(found) = failure(&checker) {
        return Err(Box::new(found));
    }
    let missing = checker.model().properties().into_iter().find(|property| {
        !property.expectation.discovery_is_failure() && checker.discovery(property.name).is_none()
    });
    if let Some(property) = missing {
        let start = Path::from_actions(checker.model(), State::first(&config), [])
            .expect("the first state");
        return Err(Box::new((property.name, start)));
    }
    Ok(Explored {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
    })
}

/// The shortest way to break a property within `config`, if there is one.
pub fn shortest(config: Config) -> Option<Counterexample> {
    let mut best: Option<Counterexample> = None;
    loop {
        let mut builder = Lane(config).checker().finish_when(HasDiscoveries::AnyFailures);
        if let Some((_, path)) = &best {
            // States are counted, not steps: this leaves paths of fewer steps only.
            builder = builder.target_max_depth(path.clone().into_actions().len() + 1);
        }
        match failure(&builder.spawn_bfs().join()) {
            Some(found) => best = Some(found),
            None => return best,
        }
    }
}

fn failure(checker: &impl Checker<Lane>) -> Option<Counterexample> {
    let broken =
        |name: &&'static str| checker.model().property(name).expectation.discovery_is_failure();
    let mut found: Vec<Counterexample> =
        checker.discoveries().into_iter().filter(|(name, _)| broken(name)).collect();
    found.sort_by_key(|(name, path)| (path.clone().into_actions().len(), *name));
    found.into_iter().next()
}
