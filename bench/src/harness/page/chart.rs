//! Lines between two axes, as SVG. Drawn for a width of 380 pixels, which a phone has, and three of which a wide window has:
//! so the text is never much smaller or larger than the page's.

use std::fmt::Write;

use super::axis::Axis;
use super::escape;

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 42.0;

pub struct Line {
    pub name: String,
    /// Of the palette.
    pub color: usize,
    pub is_dashed: bool,
    pub points: Vec<(f64, f64)>,
}

pub struct Chart {
    pub title: String,
    /// Below it, for who does not know such charts.
    pub note: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

impl Chart {
    pub fn render(&self) -> String {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.title)
        );
        let x = |value: f64| LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM);
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (value, text) in &self.y.ticks {
            let at = y(*value);
            let _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>");
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 6.0,
                at + 4.0
            );
        }
        // Texts must not run into each other.
        let widest = self.x.ticks.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(1);
        let room = ((right - LEFT) / (widest as f64 * 6.5 + 8.0)).max(1.0);
        let every = (self.x.ticks.len() as f64 / room).ceil().max(1.0) as usize;
        for (value, text) in self.x.ticks.iter().step_by(every) {
            let at = x(*value);
            let _ = write!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>");
            let _ = write!(
                svg,
                "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                bottom + 15.0
            );
        }
        let middle = f64::midpoint(LEFT, right);
        let _ = write!(
            svg,
            "<text x=\"{middle}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 6.0,
            escape(self.x.label)
        );
        for line in &self.lines {
            let mut path = String::new();
            for (index, (across, up)) in line.points.iter().enumerate() {
                let command = if index == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{command}{:.1} {:.1}", x(*across), y(*up));
            }
            let dashed = if line.is_dashed { " dashed" } else { "" };
            if line.points.len() == 1 {
                let (across, up) = line.points[0];
                let _ = write!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"var(--c{})\"/>",
                    x(across),
                    y(up),
                    line.color
                );
            }
            let _ = write!(
                svg,
                "<path class=\"curve{dashed}\" stroke=\"var(--c{})\" d=\"{path}\"/>",
                line.color
            );
        }
        svg += "</svg>";
        let key = self.lines.iter().map(|line| (line.color, line.name.as_str()));
        format!(
            "<figure><figcaption>{}<small>{}</small></figcaption>{svg}{}</figure>",
            escape(&self.title),
            escape(&self.note),
            key_of(key)
        )
    }
}

/// Which colour is what.
pub fn key_of<'a>(entries: impl Iterator<Item = (usize, &'a str)>) -> String {
    let mut html = String::from("<div class=\"key\">");
    for (color, name) in entries {
        let _ = write!(
            html,
            "<span><i style=\"background:var(--c{color})\"></i>{}</span>",
            escape(name)
        );
    }
    html + "</div>"
}
