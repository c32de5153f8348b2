//! Feature vectors as rows of a matrix.

use crate::{Error, Result};

/// `rows` feature vectors of `columns` numbers each, row by row.
///
/// ```
/// use gmflow_eval::Matrix;
///
/// let matrix = Matrix::new(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3)?;
/// assert_eq!((matrix.rows(), matrix.row(1)), (2, &[4.0, 5.0, 6.0][..]));
/// # Ok::<(), gmflow_eval::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// Numbers in each row.
    columns: usize,
    values: Vec<f32>,
}

impl Matrix {
    /// A matrix of `columns` columns from its values, row by row.
    ///
    /// # Errors
    /// No columns, values that do not fill whole rows, or a value that is not finite.
    pub fn new(values: Vec<f32>, columns: usize) -> Result<Self> {
        if columns == 0 || !values.len().is_multiple_of(columns) {
            return Err(Error::config("features", format!("rows of {columns} numbers"), values.len()));
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            let (row, value) = (index / columns, values[index]);
            return Err(Error::config("features", "finite numbers", format!("{value} in row {row}")));
        }
        Ok(Self { columns, values })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.values.len().checked_div(self.columns).unwrap_or(0)
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Row `index`; empty beyond the last.
    pub fn row(&self, index: usize) -> &[f32] {
        self.values.get(index * self.columns..(index + 1) * self.columns).unwrap_or(&[])
    }

    /// All values, row by row. `[rows columns]`
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Adds the rows of `other` below.
    ///
    /// # Errors
    /// Another number of columns.
    pub fn append(&mut self, other: &Matrix) -> Result<()> {
        if self.columns == 0 {
            self.columns = other.columns;
        }
        if other.columns != self.columns {
            return Err(Error::config("features", format!("{} columns", self.columns), other.columns));
        }
        self.values.extend_from_slice(&other.values);
        Ok(())
    }
}
