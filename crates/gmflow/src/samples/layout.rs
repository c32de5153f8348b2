//! Which image of a grid stands where.

/// Where every image of a grid stands: `places[i]` is row and column of image i.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Rows of the grid.
    pub rows: usize,
    /// Columns of the grid.
    pub columns: usize,
    /// Row and column of every image.
    pub places: Vec<[usize; 2]>,
}

impl Layout {
    /// Images that take `classes` classes in turn. Without classes, or with fewer images than classes, the images follow each other.
    pub fn in_turn(count: usize, classes: Option<usize>) -> Self {
        let classes = classes.filter(|&classes| classes <= count).unwrap_or(1).max(1);
        Self::in_rows(&(0..count).map(|index| index % classes).collect::<Vec<_>>())
    }

    /// Images of these classes, which come in the order of their first images. Where none has a second image, the images follow each other.
    pub fn of(classes: &[usize]) -> Self {
        let mut sorted = classes.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() == classes.len() { Self::in_turn(classes.len(), None) } else { Self::in_rows(classes) }
    }

    /// A class fills as many whole rows as make the grid nearest to a square: one where there are many.
    fn in_rows(classes: &[usize]) -> Self {
        let mut seen: Vec<(usize, usize)> = Vec::new();
        // The number of the class, and that of the image within it.
        let mut number = |class: &usize| match seen.iter_mut().enumerate().find(|(_, (known, _))| known == class) {
            Some((index, (_, count))) => {
                *count += 1;
                (index, *count - 1)
            }
            None => {
                seen.push((*class, 1));
                (seen.len() - 1, 0)
            }
        };
        let numbers: Vec<(usize, usize)> = classes.iter().map(&mut number).collect();
        let each = seen.iter().map(|(_, count)| *count).max().unwrap_or(1);
        let groups = seen.len().max(1);
        let columns_in = |rows: usize| each.div_ceil(rows);
        // How far from a square.
        let slant = |rows: usize| (columns_in(rows) as f64 / (rows * groups) as f64).ln().abs();
        let rows = (1..=each).min_by(|&a, &b| slant(a).total_cmp(&slant(b))).unwrap_or(1);
        let columns = columns_in(rows);
        // Rows that the rounding left empty are cut off.
        let rows = each.div_ceil(columns);
        let place = |(class, number): (usize, usize)| [class * rows + number / columns, number % columns];
        Self { rows: rows * groups, columns, places: numbers.into_iter().map(place).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_nearly_square_with_a_row_for_a_class() {
        let size = |count, classes| {
            let layout = Layout::in_turn(count, classes);
            (layout.rows, layout.columns)
        };
        assert_eq!(size(40, Some(10)), (10, 4));
        assert_eq!(size(100, Some(10)), (10, 10));
        assert_eq!(size(32, Some(2)), (6, 6), "three rows for each of two classes");
        assert_eq!([size(36, None), size(40, None), size(1, None)], [(6, 6), (6, 7), (1, 1)]);
        assert_eq!(size(40, Some(1000)), (6, 7), "fewer images than classes");
    }

    #[test]
    fn classes_keep_to_their_rows_and_no_place_is_taken_twice() {
        for (count, classes) in [(32, 2), (40, 10), (41, 10), (7, 3), (100, 3), (5, 5)] {
            let layout = Layout::in_turn(count, Some(classes));
            let of_class = layout.rows / classes;
            for (index, [row, column]) in layout.places.iter().enumerate() {
                assert_eq!(row / of_class, index % classes, "image {index} of {count} in {classes} classes");
                assert!(*column < layout.columns);
            }
            let mut places = layout.places.clone();
            places.sort();
            places.dedup();
            assert_eq!(places.len(), count);
        }
    }

    #[test]
    fn samples_of_a_class_stand_together() {
        let places = Layout::of(&[7, 3, 7, 7]).places;
        let row = |index: usize| places[index][0];
        assert!(row(0) <= row(2) && row(2) <= row(3) && row(3) < row(1), "{places:?}");
        assert_eq!(Layout::of(&[4, 9, 1, 2]), Layout::in_turn(4, None), "one image of each class");
    }
}
