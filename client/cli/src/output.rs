//! The answers on stdout: text and tables, or JSON. Errors of writing are the caller's, so that a
//! closed pipe ends a command quietly instead of with a panic.

use std::io::{self, BufWriter, IsTerminal, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::failure::Failure;

pub struct Output {
    pub json: bool,
    stdout: BufWriter<io::Stdout>,
}

/// How a column of a table is aligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Column {
    Text,
    Number,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json, stdout: BufWriter::with_capacity(64 << 10, io::stdout()) }
    }

    pub fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.stdout, "{text}")?)
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.stdout.write_all(bytes)?)
    }

    /// One value on one line.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.stdout, value).map_err(io::Error::from)?;
        Ok(self.stdout.write_all(b"\n")?)
    }

    pub fn table(
        &mut self,
        columns: &[(&str, Column)],
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> Result<(), Failure> {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(columns.iter().map(|(name, _)| *name));
        for row in rows {
            table.add_row(row);
        }
        for (column, (_, kind)) in table.column_iter_mut().zip(columns) {
            column.set_padding((0, 2));
            if *kind == Column::Number {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.stdout.flush()?)
    }
}
