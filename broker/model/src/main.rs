//! `corelog-model small | large [name]`: explores bounds to the end and tells what it came to.
//! `corelog-model planted`: for each planted error the shortest counterexample.
//! `corelog-model show <error>`: that counterexample, step by step.

use std::process::ExitCode;
use std::time::Instant;

use corelog_model::explorations::{Exploration, LARGE, SMALL};
use corelog_model::planted::Planted;
use corelog_model::search::{Counterexample, explore, shortest};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["small"] => explore_each(&SMALL, ""),
        ["large"] => explore_each(&LARGE, ""),
        ["large", name] => explore_each(&LARGE, name),
        ["planted"] => hunt_each(),
        ["show", name] => show(name),
        _ => {
            eprintln!("corelog-model small | large [name] | planted | show <error>");
            false
        }
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn explore_each(explorations: &[Exploration], wanted: &str) -> bool {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("| bounds | states | steps | depth | seconds |\n| --- | --- | --- | --- | --- |");
    for (name, config) in explorations.iter().filter(|(name, _)| name.contains(wanted)) {
        let started = Instant::now();
        match explore(*config, threads) {
            Ok(explored) => {
                let seconds = started.elapsed().as_secs();
                println!(
                    "| {name} | {} | {} | {} | {seconds} |",
                    explored.states, explored.steps, explored.depth
                );
            }
            Err(found) => {
                println!("{name}: {config:?}");
                tell(&found);
                return false;
            }
        }
    }
    true
}

fn hunt_each() -> bool {
    let mut all_found = true;
    println!("| error | steps | property |\n| --- | --- | --- |");
    for planted in Planted::ALL {
        match shortest(planted.bounds()) {
            Some((property, path)) => {
                println!("| `{planted:?}` | {} | {property} |", path.into_actions().len())
            }
            None => {
                println!("| `{planted:?}` | not found | |");
                all_found = false;
            }
        }
    }
    all_found
}

fn show(name: &str) -> bool {
    let Some(planted) = Planted::ALL.into_iter().find(|planted| format!("{planted:?}") == name)
    else {
        eprintln!("no error is called {name}");
        return false;
    };
    let found = shortest(planted.bounds());
    if let Some(found) = &found {
        tell(found);
    }
    found.is_some()
}

fn tell((property, path): &Counterexample) {
    println!("broken or never seen: {property}");
    for (state, action) in path.clone().into_vec() {
        for (who, replica) in state.replicas.iter().enumerate() {
            println!(
                "      {who}: {:?} promised {} accepted {} {:?}",
                replica.log, replica.promised, replica.accepted, replica.role
            );
        }
        if let Some(action) = action {
            println!("{action:?}");
        }
    }
}
