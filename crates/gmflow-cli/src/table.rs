//! Tables: in columns for people, in Markdown for documents.

use console::measure_text_width;
use gmflow_eval::row::{likelihood_table, table};
use gmflow_eval::{Row, Table};

/// How tables are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In Markdown.
    Markdown,
    /// In columns, turned around where they are wider than so many characters.
    Columns(usize),
}

impl Form {
    /// Markdown where it is asked for, otherwise columns that fit the terminal.
    pub fn new(markdown: bool) -> Self {
        /// The width where there is no terminal, whose lines are not broken.
        const ANY: usize = usize::MAX;
        match (markdown, console::Term::stdout().size_checked()) {
            (true, _) => Self::Markdown,
            (false, Some((_, columns))) => Self::Columns(columns.into()),
            (false, None) => Self::Columns(ANY),
        }
    }

    /// A table in this form, every line ended.
    pub fn write(self, table: &Table) -> String {
        match self {
            Self::Markdown => table.markdown(),
            Self::Columns(width) => {
                let rows = rows(table);
                let columns = columns(&rows, true);
                let fits = columns.lines().all(|line| measure_text_width(line) <= width);
                if fits { columns } else { self::columns(&turned(&rows), false) }
            }
        }
    }
}

/// Both tables of some rows, the second after an empty line where there is one.
pub fn tables(rows: &[Row], form: Form) -> String {
    let likelihoods = likelihood_table(rows).map_or(String::new(), |table| format!("\n{}", form.write(&table)));
    form.write(&table(rows)) + &likelihoods
}

/// The heading and the lines.
fn rows(table: &Table) -> Vec<&[String]> {
    std::iter::once(&table.names).chain(&table.lines).map(Vec::as_slice).collect()
}

/// Rows as columns.
fn turned<'a>(rows: &[&'a [String]]) -> Vec<Vec<&'a String>> {
    let count = rows.first().map_or(0, |row| row.len());
    (0..count).map(|index| rows.iter().filter_map(|row| row.get(index)).collect()).collect()
}

/// The rows in columns: to the left, or columns of numbers to the right where `by_kind` says so.
fn columns<R: AsRef<[S]>, S: AsRef<str>>(rows: &[R], by_kind: bool) -> String {
    let count = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let cell = |row: &R, index: usize| row.as_ref().get(index).map_or(String::new(), |cell| cell.as_ref().to_owned());
    let widths: Vec<usize> = (0..count)
        .map(|index| rows.iter().map(|row| measure_text_width(&cell(row, index))).max().unwrap_or(0))
        .collect();
    let is_number = |text: &String| text.is_empty() || text.trim_end_matches('%').trim().parse::<f64>().is_ok();
    let numbers: Vec<bool> = (0..count)
        .map(|index| {
            by_kind && index > 0 && rows.iter().skip(1).map(|row| cell(row, index)).all(|text| is_number(&text))
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (index, (&width, &right)) in widths.iter().zip(&numbers).enumerate() {
            let cell = cell(row, index);
            let gap = " ".repeat(width - measure_text_width(&cell));
            line += &if right { format!("{gap}{cell}  ") } else { format!("{cell}{gap}  ") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let cells = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        Table {
            names: cells(["samples of", "steps", "Fréchet"]),
            lines: vec![cells(["models/mnist", "8", "1.25"]), cells(["b", "16", "10.5"])],
        }
    }

    #[test]
    fn columns_are_aligned() {
        let expected = "samples of    steps  Fréchet\nmodels/mnist      8     1.25\nb                16     10.5\n";
        assert_eq!(Form::Columns(80).write(&table()), expected);
    }

    #[test]
    fn a_table_that_is_too_wide_is_turned_around() {
        let expected = "samples of  models/mnist  b\nsteps       8             16\nFréchet     1.25          10.5\n";
        assert_eq!(Form::Columns(27).write(&table()), expected);
    }

    #[test]
    fn markdown_is_for_documents() {
        let expected =
            "| samples of | steps | Fréchet |\n|---|---|---|\n| models/mnist | 8 | 1.25 |\n| b | 16 | 10.5 |\n";
        assert_eq!(Form::Markdown.write(&table()), expected);
    }

    #[test]
    fn what_would_end_a_cell_is_escaped() {
        let table = Table { names: vec!["a|b".into(), "c".into()], lines: vec![vec!["x\ny".into(), "1|2".into()]] };
        assert_eq!(Form::Markdown.write(&table), "| a\\|b | c |\n|---|---|\n| x y | 1\\|2 |\n");
    }
}
