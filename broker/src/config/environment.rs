//! Settings from environment variables: `CORELOG_LISTEN` for `listen`, `CORELOG_LOG_SEGMENT_BYTES`
//! for `log.segment_bytes`. They go over those of the file. Given the variables; asks no process.
//!
//! A variable that looks like a setting and is none is refused, with the nearest known one. Others
//! that begin so are left alone: the command line has one, and container platforms make some
//! (`CORELOG_PORT`, `CORELOG_SERVICE_HOST`) from the name of a service.

use toml::{Table, Value};

use super::suggest::{distance, is_near};
use super::{Config, ConfigError};

/// How the names of all of them begin.
pub const PREFIX: &str = "CORELOG_";

struct Setting<'a> {
    variable: String,
    section: Option<&'a str>,
    key: &'a str,
    default: &'a Value,
}

/// Puts the variables that are settings into the table of a file.
pub fn overlay(
    table: &mut Table,
    known: &Table,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    let settings = settings(known);
    for (variable, text) in variables {
        if !variable.starts_with(PREFIX) {
            continue;
        }
        let Some(setting) = settings.iter().find(|setting| setting.variable == variable) else {
            refuse_near(&variable, known, &settings)?;
            continue;
        };
        let value = read(setting.key, setting.default, &text).and_then(|value| {
            // Alone, so that the error is about this one.
            let mut alone = Table::new();
            insert(&mut alone, setting, value.clone());
            match Value::Table(alone).try_into::<Config>() {
                Ok(_) => Ok(value),
                Err(error) => Err(error.message().to_owned()),
            }
        });
        let value = value.map_err(|why| {
            ConfigError(format!("The variable `{variable}` is \"{text}\": {why}."))
        })?;
        insert(table, setting, value);
    }
    Ok(())
}

fn settings(known: &Table) -> Vec<Setting<'_>> {
    let mut settings = Vec::new();
    for (name, value) in known {
        let Value::Table(section) = value else {
            let variable = format!("{PREFIX}{}", name.to_uppercase());
            settings.push(Setting { variable, section: None, key: name, default: value });
            continue;
        };
        for (key, default) in section {
            let variable = format!("{PREFIX}{}_{}", name.to_uppercase(), key.to_uppercase());
            settings.push(Setting { variable, section: Some(name), key, default });
        }
    }
    settings
}

fn insert(table: &mut Table, setting: &Setting<'_>, value: Value) {
    let Some(section) = setting.section else {
        table.insert(setting.key.into(), value);
        return;
    };
    let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    // What else stands there is refused later, as a wrong value.
    if let Value::Table(inner) = inner {
        inner.insert(setting.key.into(), value);
    }
}

/// The list of numbers. It is empty by default, which tells nothing of what it holds.
const NUMBERS: &str = "cores";

fn texts<'a>(parts: impl Iterator<Item = &'a str>) -> Value {
    Value::Array(parts.map(|part| Value::String(part.into())).collect())
}

/// The text as a value of the same type as the default.
fn read(key: &str, default: &Value, text: &str) -> Result<Value, String> {
    let integer = |text: &str| {
        let number = text.trim().parse().map_err(|_| "write a whole number".to_owned())?;
        Ok(Value::Integer(number))
    };
    match default {
        Value::Integer(_) => integer(text),
        Value::Array(elements) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            match elements.first() {
                None if key != NUMBERS => Ok(texts(parts)),
                Some(Value::String(_)) => Ok(texts(parts)),
                _ => parts
                    .map(integer)
                    .collect::<Result<_, _>>()
                    .map(Value::Array)
                    .map_err(|_| "write whole numbers with commas between them".to_owned()),
            }
        }
        _ => Ok(Value::String(text.into())),
    }
}

/// Refuses a variable that was probably meant as a setting.
fn refuse_near(variable: &str, known: &Table, settings: &[Setting<'_>]) -> Result<(), ConfigError> {
    let name = variable.strip_prefix(PREFIX).unwrap_or(variable);
    // Begins with the name of a section or a setting: `CORELOG_LOG_SIZE`, `CORELOG_DATA_DIR`.
    let begins_so = known.keys().any(|key| {
        let rest = name.strip_prefix(&key.to_uppercase());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    });
    let nearest = settings
        .iter()
        .map(|setting| (distance(variable, &setting.variable), &setting.variable))
        .min();
    match nearest {
        Some((letters, nearest)) if begins_so || is_near(letters, name) => {
            Err(ConfigError(format!("Unknown variable `{variable}`: did you mean `{nearest}`?")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let owned = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Config::load(text, owned)
    }

    #[test]
    fn every_setting_has_a_variable_of_its_own() {
        let known = super::super::known_keys();
        let settings = settings(&known);
        let names: std::collections::BTreeSet<_> =
            settings.iter().map(|setting| &setting.variable).collect();
        assert_eq!(names.len(), settings.len());
        assert!(names.contains(&"CORELOG_LOG_SEGMENT_BYTES".to_owned()));
        assert!(settings.len() > 15, "all of them were seen");
    }

    #[test]
    fn variables_go_over_the_file_and_leave_the_rest() {
        let file = "listen = \"127.0.0.1:1\"\n[log]\nsegment_bytes = 65536\nlanes_per_shard = 3\n";
        let config = load(
            file,
            &[
                ("CORELOG_LISTEN", "127.0.0.1:9"),
                ("CORELOG_LOG_SEGMENT_BYTES", "131072"),
                ("CORELOG_MEMORY_SHARD_BYTES", "536870912"),
                ("CORELOG_DATA", "/a, /b"),
                ("CORELOG_CORES", "0,1"),
                ("CORELOG_CLUSTER_ID", "0123456789abcdef0123456789abcdef"),
                ("CORELOG_CLUSTER_BROKER", "2"),
                ("CORELOG_CLUSTER_BROKERS", "1@a:7420, 2@b:7420"),
            ],
        )
        .expect("good");
        assert_eq!(config.listen.port(), 9);
        assert_eq!((config.log.segment_bytes, config.log.lanes_per_shard), (131_072, 3));
        assert_eq!(config.memory.shard_bytes, 512 << 20);
        assert_eq!(config.data, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(config.cores, [0, 1]);
        assert_eq!((config.cluster.id.len(), config.cluster.broker), (32, 2));
        assert_eq!(config.cluster.brokers, ["1@a:7420", "2@b:7420"]);
    }

    #[test]
    fn a_variable_that_looks_like_a_setting_and_is_none_is_refused() {
        for (variable, meant) in [
            ("CORELOG_LISEN", "CORELOG_LISTEN"),
            ("CORELOG_SEGMENT_BYTES", "CORELOG_LOG_SEGMENT_BYTES"),
            ("CORELOG_LOG_SEGMENT_BYTE", "CORELOG_LOG_SEGMENT_BYTES"),
            ("CORELOG_CLUSTER", "CORELOG_CLUSTER_ID"),
            ("CORELOG_LISTEN_ADDR", "CORELOG_LISTEN"),
            ("CORELOG_DATA_DIR", "CORELOG_DATA"),
            ("CORELOG_NETWORK_FRAME_MAX", "CORELOG_NETWORK_FRAME_BYTES_MAX"),
        ] {
            let error = load("", &[(variable, "1")]).expect_err(variable);
            let expected = format!("Unknown variable `{variable}`: did you mean `{meant}`?");
            assert_eq!(error.0, expected);
        }
    }

    #[test]
    fn variables_of_others_are_left_alone() {
        let others = [
            ("CORELOG_BROKER", "127.0.0.1:7420"),
            ("CORELOG_PORT", "tcp://10.0.0.1:7420"),
            ("CORELOG_PORT_7420_TCP", "tcp://10.0.0.1:7420"),
            ("CORELOG_SERVICE_HOST", "10.0.0.1"),
            ("PATH", "/bin"),
        ];
        assert_eq!(load("", &others), Ok(Config::default()));
    }

    #[test]
    fn a_wrong_value_names_its_variable() {
        for (variable, text, part) in [
            ("CORELOG_SHARDS", "two", "`CORELOG_SHARDS` is \"two\": write a whole number."),
            ("CORELOG_SHARDS", "-1", "`CORELOG_SHARDS` is \"-1\": "),
            ("CORELOG_CORES", "0,x", "`CORELOG_CORES` is \"0,x\": write whole numbers"),
            ("CORELOG_LISTEN", "nowhere", "`CORELOG_LISTEN` is \"nowhere\": "),
            ("CORELOG_LOG_SEGMENT_BYTES", "1", "`log.segment_bytes` is 1: choose a value from"),
        ] {
            let error = load("", &[(variable, text)]).expect_err(variable);
            assert!(error.0.contains(part), "{error}");
        }
    }
}
