//! The scenarios that come with the bench, by the names of their files.

use super::Scenario;
use super::read::parse;

macro_rules! shipped {
    ($($name:literal,)*) => {
        const FILES: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../../scenarios/", $name, ".toml"))),)*
        ];
    };
}

shipped! {
    "single-durable",
    "fifty-keyed-producers",
    "ten-thousand-topics",
    "large-messages",
    "spike",
    "retention-for-hours",
    "catch-up-beside-live",
    "end-to-end",
    "replicated-with-a-kill",
    "saturation",
    "replayed-trace",
    "closed-loop",
}

const TRACES: &[(&str, &str)] =
    &[("traces/checkout.txt", include_str!("../../../scenarios/traces/checkout.txt"))];

/// Of all shipped scenarios.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// As it stands in its file.
pub fn text(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

pub fn by_name(name: &str) -> Option<Scenario> {
    let text = text(name)?;
    let trace = |file: &str| {
        let known = TRACES.iter().find(|(name, _)| *name == file);
        known.map(|(_, text)| (*text).to_owned()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
    };
    Some(parse(text, &mut { trace }).expect("a test reads every shipped scenario"))
}

#[cfg(test)]
pub fn all() -> Vec<Scenario> {
    names().map(|name| by_name(name).expect("it is shipped")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_in_the_folder_is_shipped_and_good() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let mut found = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some(name) = name.strip_suffix(".toml") else { continue };
            let scenario = by_name(name).unwrap_or_else(|| panic!("{name} is not shipped"));
            assert!(!scenario.about.is_empty(), "{name} does not say what it is there for");
            found += 1;
        }
        assert_eq!(found, names().count());
    }
}
