//! 2-D histograms as pictures: one with axes, or many side by side under common labels.

use anyhow::{Result, anyhow};
use gmflow::samples::Picture;
use gmflow_data::density::histogram;
use plotters::backend::BitMapBackend;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::sync::OnceLock;

/// The font of everything drawn, once [`font_is_usable`] has been called.
pub const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const FADED: RGBColor = RGBColor(110, 110, 110);

/// Probabilities on a square grid of `bins` x `bins` cells over [-range, range]^2, the first row at the bottom.
#[derive(Clone, Debug)]
pub struct Heat {
    /// Cells along one side.
    pub bins: usize,
    /// Half the side of the square.
    pub range: f32,
    /// The probability of each cell; what lies outside the square is in none.
    pub shares: Vec<f64>,
}

impl Heat {
    /// The share of `points` in each cell.
    pub fn of_points(points: &[[f32; 2]], bins: usize, range: f32) -> Self {
        let counted = histogram(points, bins, [-range, range]);
        let total = counted.total().max(1) as f64;
        Self { bins, range, shares: counted.counts.iter().map(|&count| count as f64 / total).collect() }
    }
}

/// One histogram under a caption.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What to draw.
    pub heat: Heat,
    /// A short line below.
    pub caption: String,
}

/// Rows of panels with a label before each row and above each column, and one more panel, the reference, beside them.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// The line at the top.
    pub title: String,
    /// Labels above the columns.
    pub columns: Vec<String>,
    /// A label of several lines and the panels of each row.
    pub rows: Vec<(Vec<String>, Vec<Panel>)>,
    /// The reference panel and the label above it.
    pub reference: (String, Panel),
    /// The share per cell that gets the brightest colour, times the number of cells.
    pub brightest: f64,
}

const PANEL: usize = 192;
const CAPTION: usize = 24;
const GAP: usize = 10;
const LEFT: usize = 132;
const TOP: usize = 72;

impl Sheet {
    /// Draws the sheet.
    pub fn draw(&self) -> Result<Picture> {
        let pitch = [PANEL + GAP, PANEL + CAPTION + GAP];
        let width = LEFT + self.columns.len() * pitch[0] + 2 * GAP + pitch[0];
        let height = TOP + self.rows.len() * pitch[1];
        let mut picture = blank(width, height);
        let at = |column: usize, row: usize| (LEFT + column * pitch[0], TOP + row * pitch[1]);
        let reference_row = (self.rows.len() - 1) as f64 / 2.0;
        let reference_at =
            (LEFT + self.columns.len() * pitch[0] + 2 * GAP, TOP + (reference_row * pitch[1] as f64) as usize);
        for (row, (_, panels)) in self.rows.iter().enumerate() {
            for (column, panel) in panels.iter().enumerate() {
                paint(&mut picture, &panel.heat, at(column, row), self.brightest);
            }
        }
        paint(&mut picture, &self.reference.1.heat, reference_at, self.brightest);
        self.write_texts(&mut picture, at, reference_at)?;
        Ok(picture)
    }

    fn write_texts(
        &self,
        picture: &mut Picture,
        at: impl Fn(usize, usize) -> (usize, usize),
        reference_at: (usize, usize),
    ) -> Result<()> {
        let area = canvas(picture)?;
        let middle = |(x, y): (usize, usize), dy: isize| ((x + PANEL / 2) as i32, (y as isize + dy) as i32);
        let below = PANEL as isize + 13;
        write(&area, &self.title, ((LEFT) as i32, 22), 20, INK, HPos::Left)?;
        for (column, label) in self.columns.iter().enumerate() {
            write(&area, label, middle(at(column, 0), -14), 16, INK, HPos::Center)?;
        }
        for (row, (label, panels)) in self.rows.iter().enumerate() {
            let centre = at(0, row).1 as i32 + PANEL as i32 / 2 - 10 * (label.len() as i32 - 1);
            for (index, text) in label.iter().enumerate() {
                let (size, colour) = if index == 0 { (17, INK) } else { (14, FADED) };
                write(&area, text, (LEFT as i32 - 12, centre + 20 * index as i32), size, colour, HPos::Right)?;
            }
            for (column, panel) in panels.iter().enumerate() {
                write(&area, &panel.caption, middle(at(column, row), below), 14, FADED, HPos::Center)?;
            }
        }
        write(&area, &self.reference.0, middle(reference_at, -14), 16, INK, HPos::Center)?;
        write(&area, &self.reference.1.caption, middle(reference_at, below), 14, FADED, HPos::Center)?;
        area.present().map_err(drawing)
    }
}

/// One histogram with axes.
pub fn with_axes(heat: &Heat, title: &str) -> Result<Picture> {
    const SIDE: usize = 512;
    const MARGIN: [usize; 2] = [48, 40];
    let mut picture = blank(SIDE + MARGIN[0] + 16, SIDE + 2 * MARGIN[1]);
    let brightest = brightest(heat);
    paint_sized(&mut picture, heat, (MARGIN[0], MARGIN[1]), SIDE, brightest);
    let area = canvas(&mut picture)?;
    write(&area, title, (MARGIN[0] as i32, 20), 17, INK, HPos::Left)?;
    let (left, bottom) = (MARGIN[0] as i32, (MARGIN[1] + SIDE) as i32);
    for tick in -2_i32..=2 {
        let along = (f64::from(tick + 2) / 4.0 * SIDE as f64) as i32;
        let label = format!("{:.3}", f64::from(heat.range) * f64::from(tick) / 2.0);
        let label = label.trim_end_matches('0').trim_end_matches('.');
        for ends in [
            [(left + along, bottom), (left + along, bottom + 5)],
            [(left - 5, bottom - along), (left, bottom - along)],
        ] {
            area.draw(&PathElement::new(ends, INK)).map_err(drawing)?;
        }
        write(&area, label, (left + along, bottom + 16), 14, INK, HPos::Center)?;
        write(&area, label, (left - 9, bottom - along), 14, INK, HPos::Right)?;
    }
    area.present().map_err(drawing)?;
    drop(area);
    Ok(picture)
}

/// The 99th percentile of the filled cells, times the number of cells: a scale that single cells do not spoil.
fn brightest(heat: &Heat) -> f64 {
    let mut filled: Vec<f64> = heat.shares.iter().copied().filter(|share| *share > 0.0).collect();
    filled.sort_by(f64::total_cmp);
    let top = filled.get(filled.len() * 99 / 100).copied().unwrap_or(1.0);
    top * (heat.bins * heat.bins) as f64
}

fn blank(width: usize, height: usize) -> Picture {
    Picture { channels: 3, width, height, pixels: vec![255; 3 * width * height] }
}

fn paint(picture: &mut Picture, heat: &Heat, corner: (usize, usize), brightest: f64) {
    paint_sized(picture, heat, corner, PANEL, brightest);
}

fn paint_sized(picture: &mut Picture, heat: &Heat, (left, top): (usize, usize), side: usize, brightest: f64) {
    let bins = heat.bins;
    for y in 0..side {
        for x in 0..side {
            let (column, row) = (x * bins / side, bins - 1 - y * bins / side);
            let level = heat.shares[row * bins + column] * (bins * bins) as f64 / brightest;
            let colour = colorous::MAGMA.eval_continuous(level.clamp(0.0, 1.0));
            let start = 3 * ((top + y) * picture.width + left + x);
            picture.pixels[start..start + 3].copy_from_slice(&colour.as_array());
        }
    }
}

type Canvas<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Makes the built-in font known.
pub fn font_is_usable() -> Result<()> {
    static FONT_IS_USABLE: OnceLock<bool> = OnceLock::new();
    let usable = FONT_IS_USABLE
        .get_or_init(|| plotters::style::register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_ok());
    anyhow::ensure!(*usable, "the built-in font cannot be read");
    Ok(())
}

fn canvas(picture: &mut Picture) -> Result<Canvas<'_>> {
    font_is_usable()?;
    let size = (u32::try_from(picture.width)?, u32::try_from(picture.height)?);
    Ok(BitMapBackend::with_buffer(&mut picture.pixels, size).into_drawing_area())
}

fn write(area: &Canvas<'_>, text: &str, at: (i32, i32), size: i32, colour: RGBColor, horizontal: HPos) -> Result<()> {
    let style = (FONT, size).into_font().color(&colour).pos(Pos::new(horizontal, VPos::Center));
    area.draw_text(text, &style, at).map_err(drawing)
}

/// A failure of the drawing library.
pub fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing failed: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_of_cells_is_drawn_at_the_bottom() {
        let heat = Heat::of_points(&[[-3.0, -3.0]], 2, 4.0);
        let mut picture = blank(2, 2);
        paint_sized(&mut picture, &heat, (0, 0), 2, 4.0);
        let brightness: Vec<u8> = picture.pixels.chunks(3).map(|pixel| pixel[0]).collect();
        assert!(brightness[2] > 200 && [0, 1, 3].iter().all(|&cell| brightness[cell] < 10), "{brightness:?}");
    }

    #[test]
    fn single_crowded_cells_do_not_set_the_scale() {
        let mut shares = vec![1e-4; 1000];
        shares[0] = 0.9;
        let heat = Heat { bins: 100, range: 4.0, shares: [shares, vec![0.0; 9000]].concat() };
        assert!((brightest(&heat) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_sheet_holds_its_rows_columns_and_reference() {
        let panel = || Panel { heat: Heat::of_points(&[[0.0, 0.0]], 8, 4.0), caption: "caption".into() };
        let rows = vec![(vec!["row".to_owned()], vec![panel(), panel()]); 2];
        let sheet = Sheet {
            title: "title".into(),
            columns: vec!["a".into(), "b".into()],
            rows,
            reference: ("truth".into(), panel()),
            brightest: 1.0,
        };
        let picture = sheet.draw().unwrap();
        assert!(picture.width > 3 * PANEL && picture.height > 2 * PANEL);
        assert_eq!(picture.pixels.len(), picture.width * picture.height * 3);
    }
}
