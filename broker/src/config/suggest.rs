//! Finds the key that somebody probably meant.

use toml::{Table, Value};

/// The sentence about the first key of `given` that is not in `known`, if there is one.
pub fn unknown_key(given: &Table, known: &Table) -> Option<String> {
    let unknown = first_unknown(given, known, "")?;
    let mut candidates = Vec::new();
    paths(known, "", &mut candidates);
    // A key typed into the wrong table counts as near: its last part is right.
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let nearest = candidates
        .into_iter()
        .map(|path| {
            let by_path = distance(&unknown, &path);
            let by_last = distance(&last(&unknown), &last(&path)) + 1;
            (by_path.min(by_last), path)
        })
        .min()?;
    if is_near(nearest.0, &last(&unknown)) {
        Some(format!("Unknown setting `{unknown}`: did you mean `{}`?", nearest.1))
    } else {
        Some(format!("Unknown setting `{unknown}`: the known ones are listed in corelogd.toml."))
    }
}

/// A third of the letters may be wrong; beyond that a suggestion would be a guess.
pub fn is_near(letters: usize, name: &str) -> bool {
    letters <= 1 + name.chars().count() / 3
}

fn first_unknown(given: &Table, known: &Table, prefix: &str) -> Option<String> {
    for (key, value) in given {
        match (value, known.get(key)) {
            (_, None) => return Some(format!("{prefix}{key}")),
            (Value::Table(inner), Some(Value::Table(known))) => {
                let found = first_unknown(inner, known, &format!("{prefix}{key}."));
                if found.is_some() {
                    return found;
                }
            }
            _ => {}
        }
    }
    None
}

fn paths(known: &Table, prefix: &str, into: &mut Vec<String>) {
    for (key, value) in known {
        let path = format!("{prefix}{key}");
        if let Value::Table(inner) = value {
            paths(inner, &format!("{path}."), into);
        }
        into.push(path);
    }
}

/// Levenshtein distance: letters to insert, remove or replace.
pub fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replace = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distance_counts_letters() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
