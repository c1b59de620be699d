//! Columns for people: no borders, two spaces between, colours only where the terminal may have them.

use std::fmt::Write;

/// How a cell stands out on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Not.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Needs a look.
    Poor,
    /// Broken.
    Bad,
}

impl Tone {
    /// SGR parameter (ECMA-48 §8.3.117).
    const fn code(self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Good => Some(32),
            Self::Poor => Some(33),
            Self::Bad => Some(31),
        }
    }
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl<T: ToString> From<T> for Cell {
    fn from(value: T) -> Self {
        // Texts come from other processes; a control character must not reach the terminal or break the columns.
        let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        Self { text: value.to_string().chars().map(clean).collect(), tone: Tone::Plain }
    }
}

impl Cell {
    /// Text in a tone.
    pub fn toned(text: impl ToString, tone: Tone) -> Self {
        Self { tone, ..Self::from(text) }
    }

    /// Text, or `-` where there is none.
    pub fn maybe(value: Option<impl ToString>) -> Self {
        value.map_or_else(|| Self::from("-"), Self::from)
    }
}

/// A table. Heads that begin with `>` are columns of numbers, set to the right.
#[derive(Debug, Clone)]
pub struct Table {
    heads: Vec<(String, bool)>,
    rows: Vec<Vec<Cell>>,
    widths: Vec<usize>,
    headed: bool,
}

impl Table {
    /// An empty table.
    pub fn new<H: AsRef<str>>(heads: impl IntoIterator<Item = H>) -> Self {
        let side = |head: H| match head.as_ref().strip_prefix('>') {
            Some(head) => (head.to_owned(), true),
            None => (head.as_ref().to_owned(), false),
        };
        let heads: Vec<_> = heads.into_iter().map(side).collect();
        let widths = heads.iter().map(|(head, _)| head.chars().count()).collect();
        Self { heads, rows: Vec::new(), widths, headed: false }
    }

    /// Adds a row, a cell per head.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<Cell> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.heads.len());
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.text.chars().count());
        }
        self.rows.push(cells);
    }

    /// Heads and rows as lines.
    pub fn lines(mut self, colour: bool) -> Vec<String> {
        self.take_lines(colour)
    }

    /// The rows added since the last call, as lines, at first with the heads; columns keep their width from then on.
    pub fn take_lines(&mut self, colour: bool) -> Vec<String> {
        let mut lines = Vec::new();
        if !std::mem::replace(&mut self.headed, true) {
            let heads: Vec<Cell> = self.heads.iter().map(|(head, _)| Cell::from(head)).collect();
            lines.push(self.line(&heads, colour));
        }
        lines.extend(std::mem::take(&mut self.rows).iter().map(|row| self.line(row, colour)));
        lines
    }

    fn line(&self, cells: &[Cell], colour: bool) -> String {
        let mut line = String::new();
        let last = cells.len().saturating_sub(1);
        for (i, (cell, (width, (_, right)))) in cells.iter().zip(self.widths.iter().zip(&self.heads)).enumerate() {
            let space = " ".repeat(width.saturating_sub(cell.text.chars().count()));
            let (before, after) = if *right { (space.as_str(), "") } else { ("", space.as_str()) };
            line.push_str(before);
            match cell.tone.code().filter(|_| colour) {
                // Writing to a String cannot fail.
                Some(code) => drop(write!(line, "\x1b[{code}m{}\x1b[0m", cell.text)),
                None => line.push_str(&cell.text),
            }
            if i < last {
                line.push_str(after);
                line.push_str("  ");
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// `key  value` lines, values in one column.
pub fn pairs(pairs: &[(&str, String)]) -> Vec<String> {
    let width = pairs.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    let line = |(key, value): &(&str, String)| format!("{key:<width$}  {value}").trim_end().to_owned();
    pairs.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_their_widest_cell_and_nothing_trails() {
        let mut table = Table::new(["NAME", ">N", "NOTE"]);
        table.row([Cell::from("a"), Cell::from(12_345), Cell::maybe(None::<u8>)]);
        table.row([Cell::from("longer"), Cell::from(1), Cell::from("")]);
        assert_eq!(table.lines(false), ["NAME        N  NOTE", "a       12345  -", "longer      1"]);
    }

    #[test]
    fn colours_take_no_width_and_foreign_escapes_stay_out() {
        let mut table = Table::new(["A", "B"]);
        table.row([Cell::toned("up", Tone::Good), Cell::from("\x1b[2J\n")]);
        assert_eq!(table.clone().lines(true)[1], "\x1b[32mup\x1b[0m  \u{fffd}[2J\u{fffd}");
        assert_eq!(table.lines(false)[0], "A   B");
    }
}
