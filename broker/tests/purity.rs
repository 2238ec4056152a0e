//! Nothing outside `driver/` knows a clock, a socket, a file, a thread, or a map whose order is
//! random: one of them would make a run of the simulator differ from its seed.
//!
//! Scans the source. What a file needs for a good reason is allowed by name, with the reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What a line of pure code must not name, and why.
const BANNED: &[(&str, &str)] = &[
    ("Instant", "a clock"),
    ("SystemTime", "a clock"),
    ("std::time", "a clock"),
    ("TcpStream", "a socket"),
    ("TcpListener", "a socket"),
    ("UdpSocket", "a socket"),
    ("ToSocketAddrs", "a name server"),
    ("std::os", "the operating system"),
    ("libc::", "the operating system"),
    ("socket2", "a socket"),
    ("glommio", "the runtime"),
    ("std::fs", "a file"),
    ("fs::", "a file"),
    ("File::", "a file"),
    ("std::io", "a file or socket"),
    ("std::env", "the environment"),
    ("std::process", "a process"),
    ("std::thread", "a thread"),
    ("thread::", "a thread"),
    ("Mutex", "a thread"),
    ("RwLock", "a thread"),
    ("Condvar", "a thread"),
    ("mpsc", "a thread"),
    ("HashMap", "a map in random order"),
    ("HashSet", "a set in random order"),
    ("RandomState", "a random order"),
    ("println!", "a terminal"),
    ("eprintln!", "a terminal"),
    ("print!", "a terminal"),
    ("unsafe", "unchecked memory"),
];

/// What some files need, by path prefix below `src/`.
const ALLOWED: &[(&str, &[&str], &str)] = &[(
    "sim/threads.rs",
    &["std::thread", "thread::", "Mutex"],
    "simulations run side by side; each is on one thread and none sees another",
)];

/// The two places that meet the world: the driver, and the binaries.
const WORLD: &[&str] = &["driver/", "bin/"];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the source is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The line without its comment and its string literals.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut letters = line.chars().peekable();
    let mut in_string = false;
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if in_string => _ = letters.next(),
            '"' => in_string = !in_string,
            '/' if !in_string && letters.peek() == Some(&'/') => break,
            _ if in_string => {}
            letter => code.push(letter),
        }
    }
    code
}

/// True if `code` has `word` not as a part of a longer name.
fn names(code: &str, word: &str) -> bool {
    let part = |letter: Option<char>| letter.is_some_and(|l| l.is_alphanumeric() || l == '_');
    code.match_indices(word).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        let after = code[start + word.len()..].chars().next();
        let open_end = word.ends_with(':') || word.ends_with('!');
        !part(before) && (open_end || !part(after))
    })
}

/// What is wrong with one file.
fn offences(path: &str, text: &str) -> Vec<String> {
    let allowed: Vec<&str> = ALLOWED
        .iter()
        .filter(|(prefix, ..)| path.starts_with(prefix))
        .flat_map(|(_, words, _)| words.iter().copied())
        .collect();
    // A random test prints its seed before it starts.
    let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // Tests at the end of a file may print and read what they like.
        if line.trim() == "#[cfg(test)]" && text.lines().nth(number + 1) == Some("mod tests {") {
            break;
        }
        let code = code_of(line);
        for (word, what) in BANNED {
            let excused = allowed.contains(word) || (is_test && *what == "a terminal");
            if names(&code, word) && !excused {
                found.push(format!("{path}:{}: {what} ({word}): {}", number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn nothing_outside_the_driver_meets_the_world() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut found = Vec::new();
    let mut looked_at = BTreeSet::new();
    for file in &files {
        let path = file.strip_prefix(&root).expect("below it").to_str().expect("plain names");
        if WORLD.iter().any(|world| path.starts_with(world)) {
            continue;
        }
        found.extend(offences(path, &fs::read_to_string(file).expect("readable")));
        looked_at.insert(path.to_owned());
    }
    assert!(found.is_empty(), "pure code meets the world:\n{}", found.join("\n"));
    for known in ["lib.rs", "shard/mod.rs", "disk.rs", "config/mod.rs"] {
        assert!(looked_at.contains(known), "{known} was not looked at");
    }
    for (prefix, ..) in ALLOWED {
        assert!(looked_at.iter().any(|path| path.starts_with(prefix)), "{prefix} is gone");
    }
}

#[test]
fn the_scan_finds_what_it_looks_for() {
    let bad = [
        "use std::time::Instant;",
        "let now = SystemTime::now();",
        "use std::collections::HashMap;",
        "    std::thread::spawn(|| {});",
        "let stream = std::net::TcpStream::connect(address)?;",
        "let file = File::open(path);",
        "use glommio::io::DmaFile;",
        "unsafe { read(pointer) }",
    ];
    for line in bad {
        assert!(!offences("shard/x.rs", line).is_empty(), "{line}");
    }
    let good = [
        "//! Nothing here asks an Instant.",
        "let text = \"a HashMap in a sentence\";",
        "pub struct ListedFile { name: Box<str> }",
        "let instants = 3; // SystemTime",
        "use std::net::SocketAddr; // An address is no socket.",
    ];
    for line in good {
        assert_eq!(offences("shard/x.rs", line), Vec::<String>::new());
    }
    assert!(offences("log/tests/chaos.rs", "println!();").is_empty(), "tests print seeds");
    assert_eq!(offences("log/chaos.rs", "println!();").len(), 1);
    assert!(offences("sim/threads.rs", bad[3]).is_empty(), "allowed there");
    assert_eq!(offences("sim/sweep/long.rs", bad[3]).len(), 2, "and nowhere beside it");
}
