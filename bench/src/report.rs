//! Tables for people, JSON for programs.

use std::fmt::Write;

/// Rows of text under headings; all columns but the first are aligned to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.iter().map(ToString::to_string).collect()] }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.rows[0].len(), "a row has as many cells as there are headings");
        self.rows.push(cells.into());
    }

    pub fn show(&self) -> String {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> =
            (0..self.rows[0].len()).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = " ".repeat(width - cell.chars().count());
                let _ = match column {
                    0 => write!(text, "{cell}{gap}"),
                    _ => write!(text, "  {gap}{cell}"),
                };
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
            if index == 0 {
                let line = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
                let _ = writeln!(text, "{}", "-".repeat(line));
            }
        }
        text
    }
}

/// A value to print as JSON.
#[derive(Clone, Debug)]
pub enum Json {
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    pub fn show(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) {
        match self {
            Self::Number(number) if number.is_finite() => {
                let _ = write!(text, "{number}");
            }
            Self::Number(_) => text.push_str("null"),
            Self::Text(value) => write_string(text, value),
            Self::List(values) => {
                text.push('[');
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    value.write(text);
                }
                text.push(']');
            }
            Self::Object(fields) => {
                text.push('{');
                for (index, (name, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    write_string(text, name);
                    text.push(':');
                    value.write(text);
                }
                text.push('}');
            }
        }
    }
}

impl From<f64> for Json {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for Json {
    fn from(number: u64) -> Self {
        Self::Number(number as f64)
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

fn write_string(text: &mut String, value: &str) {
    text.push('"');
    for letter in value.chars() {
        match letter {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            letter if (letter as u32) < 0x20 => {
                let _ = write!(text, "\\u{:04x}", letter as u32);
            }
            letter => text.push(letter),
        }
    }
    text.push('"');
}

/// `1,284,000`: with a comma every three digits.
pub fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["load", "p50"]);
        table.row(["one".into(), "153 µs".into()]);
        table.row(["sixteen".into(), "9 µs".into()]);
        assert_eq!(
            table.show(),
            "load        p50\n---------------\none      153 µs\nsixteen    9 µs\n"
        );
    }

    #[test]
    fn json_escapes_what_it_must_and_has_no_nan() {
        let json = Json::Object(vec![
            ("name", "a \"b\"\n".into()),
            ("list", Json::List(vec![1.5.into(), f64::NAN.into(), 3_u64.into()])),
        ]);
        assert_eq!(json.show(), r#"{"name":"a \"b\"\u000a","list":[1.5,null,3]}"#);
    }

    #[test]
    fn thousands_have_commas() {
        assert_eq!(thousands(1_284_000.0), "1,284,000");
        assert_eq!(thousands(999.4), "999");
        assert_eq!(thousands(100_000.0), "100,000");
    }
}
