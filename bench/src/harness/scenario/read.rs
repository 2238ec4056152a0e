//! From a file, or by the name of a shipped one. What is wrong is told with the file and the key.

use std::io;
use std::path::Path;

use super::{Scenario, shipped};
use crate::harness::schedule::{Plan, Trace};

/// `name`: of a shipped scenario, or the path of a file.
pub fn read(name: &str) -> io::Result<Scenario> {
    if let Some(scenario) = shipped::by_name(name) {
        return Ok(scenario);
    }
    let path = Path::new(name);
    let text = std::fs::read_to_string(path).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("{name} is no shipped scenario (see `corelog-bench scenarios`) and no file that can be read: {error}"),
        )
    })?;
    let folder = path.parent().unwrap_or(Path::new("."));
    parse(&text, &mut |file| std::fs::read_to_string(folder.join(file)))
        .map_err(|error| io::Error::other(format!("{name}: {error}")))
}

/// `open`: gives the text of a file that the scenario names.
pub fn parse(
    text: &str,
    open: &mut dyn FnMut(&str) -> io::Result<String>,
) -> Result<Scenario, String> {
    let mut scenario: Scenario = toml::from_str(text).map_err(|error| error.to_string())?;
    if let Plan::Trace { file } = &scenario.schedule {
        let failed = |error: String| format!("`schedule.file` {file}: {error}");
        let text = open(file).map_err(|error| failed(error.to_string()))?;
        scenario.trace = Trace::parse(&text).map_err(failed)?;
    }
    scenario.check()?;
    Ok(scenario)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let text = format!("title = 't'\nseconds = 1\n{text}");
        parse(&text, &mut |_| Err(io::ErrorKind::NotFound.into())).unwrap_err()
    }

    #[test]
    fn a_key_that_does_not_exist_is_named_with_those_that_do() {
        let text = error("[schedule]\nkind = 'constant'\nper_second = 1\n[messages]\nbites = 9\n");
        assert!(text.contains("unknown field `bites`") && text.contains("`bytes`"), "{text}");
        let text = error("[schedule]\nkind = 'constant'\nper_secnd = 1\n");
        assert!(text.contains("per_secnd") || text.contains("per_second"), "{text}");
        let text = error("[schedule]\nkind = 'sometimes'\n");
        assert!(text.contains("sometimes") && text.contains("poisson"), "{text}");
    }

    #[test]
    fn a_trace_that_cannot_be_read_is_named() {
        let text = error("[schedule]\nkind = 'trace'\nfile = 'gone.txt'\n");
        assert!(text.starts_with("`schedule.file` gone.txt: "), "{text}");
    }

    #[test]
    fn a_file_is_named_in_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, "title = 't'\nsecnds = 3\n").unwrap();
        let name = path.to_str().unwrap();
        let text = read(name).unwrap_err().to_string();
        assert!(text.starts_with(name) && text.contains("secnds"), "{text}");
        assert!(read("no-such-scenario").unwrap_err().to_string().contains("no shipped scenario"));
    }
}
