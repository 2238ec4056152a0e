//! The folder of a result: `result.json`, `scenario.toml` (and its trace), HDR logs, `report.html`.

use std::fs;
use std::io;
use std::path::Path;

use super::books::Series;
use super::hlog;
use super::outcome::Outcome;
use super::page;
use super::schedule::Plan;

const TRACE: &str = "trace.txt";

pub fn write(folder: &Path, outcome: &Outcome, series: Option<&Series>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut outcome = outcome.clone();
    if let Plan::Trace { file } = &mut outcome.scenario.schedule {
        TRACE.clone_into(file);
        let times =
            outcome.scenario.trace.iter().map(|time| format!("{:.9}\n", *time as f64 / 1e9));
        fs::write(folder.join(TRACE), times.collect::<String>())?;
    }
    let scenario = toml::to_string(&outcome.scenario).map_err(io::Error::other)?;
    fs::write(folder.join("scenario.toml"), scenario)?;
    let json = serde_json::to_string_pretty(&outcome).map_err(io::Error::other)?;
    fs::write(folder.join("result.json"), json + "\n")?;
    fs::write(folder.join("report.html"), page::render(&outcome))?;
    let Some(series) = series else { return Ok(()) };
    let began = outcome.began_unix_seconds;
    hlog::write(folder, "service", series, began, |interval| &interval.service)?;
    if outcome.is_open_loop {
        hlog::write(folder, "response", series, began, |interval| &interval.response)?;
        hlog::write(folder, "end-to-end", series, began, |interval| &interval.end_to_end)?;
    }
    Ok(())
}
