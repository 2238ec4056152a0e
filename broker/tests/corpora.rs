//! Replays what fuzzing has found worth keeping: a regression is caught without the fuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use corelog_fuzz::{TARGETS, Target, target};

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// Names each input before it is run, so that a panic can be told from the output.
fn replay(target: &Target) -> usize {
    for (number, seed) in (target.seeds)().iter().enumerate() {
        println!("{}: seed {number}", target.name);
        (target.run)(seed);
    }
    let folder = corpora().join(target.name);
    // A target has no folder before it has been fuzzed: then its seeds are all.
    let entries = fs::read_dir(&folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    for file in &files {
        println!("{}", file.display());
        (target.run)(&fs::read(file).expect("an input"));
    }
    (target.seeds)().len() + files.len()
}

macro_rules! replays {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            let count = replay(&target($name).expect("a target"));
            assert!(count >= 2, "{count} inputs: not worth the name of a corpus");
        })*

        #[test]
        fn each_corpus_has_its_target_and_its_test() {
            let tested = BTreeSet::from([$($name),*]);
            let targets: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(tested, targets);
            let mut bytes = 0;
            for folder in fs::read_dir(corpora()).into_iter().flatten().map(|entry| entry.expect("an entry").path()) {
                let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                assert!(targets.contains(name), "{} has no target", folder.display());
                for file in fs::read_dir(&folder).expect("a corpus") {
                    bytes += file.and_then(|file| file.metadata()).expect("a file").len();
                }
            }
            assert!(bytes < 1 << 20, "the corpora have {bytes} bytes: minimise them");
        }
    };
}

replays! {
    frames_of_the_corpus: "frame",
    messages_of_the_corpus: "message",
    batches_of_the_corpus: "batch",
    entries_of_the_corpus: "entries",
    images_of_the_corpus: "images",
    metadata_of_the_corpus: "metadata",
    records_and_messages_of_the_corpus: "consensus",
    segments_of_the_corpus: "segment",
    conversations_of_the_corpus_with_a_shard: "shard",
    conversations_of_the_corpus_with_a_client: "client",
    packed_batches_of_the_corpus: "unpack",
}
