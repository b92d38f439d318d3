//! Tables for people: a heading, and columns as wide as what is in them.

use anstyle::Style;
use unicode_width::UnicodeWidthStr;

use crate::failure::Failure;
use crate::output::{BOLD, Output};
use crate::text;

/// Between two columns.
const GAP: &str = "  ";

/// A column: its heading, and on which side its cells are flush.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    heading: &'static str,
    is_number: bool,
}

impl Column {
    pub(crate) const fn text(heading: &'static str) -> Self {
        Self { heading, is_number: false }
    }

    pub(crate) const fn number(heading: &'static str) -> Self {
        Self { heading, is_number: true }
    }
}

/// Rows that wait until all are known.
#[derive(Debug)]
pub(crate) struct Table {
    columns: &'static [Column],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &'static [Column]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row, whose cells may be any text.
    pub(crate) fn add(&mut self, cells: &[String]) {
        self.rows.push(cells.iter().map(|cell| text::line(cell).into_owned()).collect());
    }

    /// Prints the table; nothing where it has no rows.
    pub(crate) fn print(&self, output: &mut Output) -> Result<(), Failure> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let widths = self.widths();
        let headings = self.columns.iter().map(|column| column.heading.to_owned()).collect::<Vec<_>>();
        self.print_row(output, &headings, &widths, BOLD)?;
        self.rows.iter().try_for_each(|row| self.print_row(output, row, &widths, Style::new()))
    }

    fn widths(&self) -> Vec<usize> {
        let widest = |at: usize| self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.width()).max();
        let columns = self.columns.iter().enumerate();
        columns.map(|(at, column)| widest(at).unwrap_or(0).max(column.heading.width())).collect()
    }

    fn print_row(&self, output: &mut Output, cells: &[String], widths: &[usize], style: Style) -> Result<(), Failure> {
        let mut line = String::new();
        for ((column, width), cell) in self.columns.iter().zip(widths).zip(cells) {
            let gap = " ".repeat(width.saturating_sub(cell.width()));
            line += &if column.is_number { gap + cell } else { cell.clone() + &gap };
            line += GAP;
        }
        let line = line.trim_end();
        output.line(if style == Style::new() { line.to_owned() } else { output.styled(style, line) })
    }
}
