//! The fuzzer: `CORELOG_FUZZ_TARGET=shard fuzz <options of libFuzzer>`, built by `.ci/fuzz`.
//! `CORELOG_FUZZ_SEEDS=<folder>` writes the target's seeds there first.

#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use corelog_fuzz::{TARGETS, Target, target};

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn choose() {
    let name = std::env::var("CORELOG_FUZZ_TARGET").unwrap_or_default();
    let Some(chosen) = target(&name) else {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("CORELOG_FUZZ_TARGET is {name:?}: must be one of {}", names.join(", "));
        std::process::exit(2);
    };
    if let Ok(folder) = std::env::var("CORELOG_FUZZ_SEEDS") {
        let folder = Path::new(&folder);
        std::fs::create_dir_all(folder).expect("a folder for the seeds");
        for (number, seed) in (chosen.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number:02}")), seed).expect("a seed");
        }
    }
    CHOSEN.set(chosen).expect("chosen once");
}

libfuzzer_sys::fuzz_target!(init: choose(), |input: &[u8]| {
    (CHOSEN.get().expect("chosen at the start").run)(input);
});
