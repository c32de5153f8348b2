//! Tables of figures.

/// A heading and lines of cells.
///
/// ```
/// use gmflow_eval::Table;
///
/// let table = Table { names: vec!["set".into(), "FID".into()], lines: vec![vec!["a|b".into(), "3.1".into()]] };
/// assert_eq!(table.markdown(), "| set | FID |\n|---|---|\n| a\\|b | 3.1 |\n");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The names of the columns.
    pub names: Vec<String>,
    /// As many cells in each as there are names.
    pub lines: Vec<Vec<String>>,
}

impl Table {
    /// The table in Markdown, every line ended.
    pub fn markdown(&self) -> String {
        // A file or a model may be called like what ends a cell.
        let cell = |text: &String| text.replace('|', "\\|").replace(['\n', '\r'], " ");
        let line = |cells: &[String]| format!("| {} |\n", cells.iter().map(cell).collect::<Vec<_>>().join(" | "));
        let head = format!("{}|{}\n", line(&self.names), "---|".repeat(self.names.len()));
        head + &self.lines.iter().map(|cells| line(cells)).collect::<String>()
    }
}
