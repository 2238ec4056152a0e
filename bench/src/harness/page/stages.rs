//! Where the service time of each core's messages went: a bar per core, as long as the mean.

use std::fmt::Write;

use super::chart::key_of;
use super::escape;
use crate::harness::outcome::Stages;
use crate::latency::show;

const WIDTH: f64 = 380.0;
const ROW: f64 = 40.0;

pub fn render(stages: &[Stages]) -> String {
    let longest = stages.iter().map(|of| of.service_mean_ns).fold(1.0, f64::max);
    let height = ROW * stages.len() as f64;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"stages of each core\">"
    );
    for (row, of) in stages.iter().enumerate() {
        let top = row as f64 * ROW;
        let _ = write!(
            svg,
            "<text x=\"0\" y=\"{:.1}\">{}: {} on average of {} messages</text>",
            top + 12.0,
            escape(&of.core),
            show(of.service_mean_ns as u64),
            crate::report::thousands(of.messages as f64)
        );
        let mut at = 0.0;
        for (color, stage) in of.stages.iter().enumerate() {
            let width = stage.mean_ns / longest * WIDTH;
            if width >= 0.2 {
                let _ = write!(
                    svg,
                    "<rect x=\"{at:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"16\" fill=\"var(--c{color})\"><title>{}: {}</title></rect>",
                    top + 17.0,
                    stage.name,
                    show(stage.mean_ns as u64)
                );
            }
            at += width;
        }
    }
    svg += "</svg>";
    let used = |color: usize| {
        stages.iter().any(|of| of.stages.get(color).is_some_and(|stage| stage.mean_ns > 0.0))
    };
    let names = stages.first().map_or(&[][..], |of| &of.stages);
    let key = names.iter().enumerate().filter(|(color, _)| used(*color));
    format!(
        "<figure><figcaption>Where the service time went, by core<small>As the broker says with each acknowledgment; outside is client, \
         network and kernel.</small></figcaption>{svg}{}</figure>",
        key_of(key.map(|(color, stage)| (color, &*stage.name)))
    )
}
