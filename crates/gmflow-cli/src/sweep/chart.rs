//! Line charts, as PNG and as SVG from one description.

use crate::images::Picture;
use crate::plot::{FONT, drawing, font_is_usable};
use anyhow::Result;
use gmflow::checkpoint::write_atomic;
use plotters::backend::DrawingBackend;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

const WIDTH: u32 = 1180;
/// The least height; a long legend needs more.
const HEIGHT: u32 = 560;
/// Pixels between two lines of the legend, and above the first.
const LINE: u32 = 22;
const ABOVE: u32 = 56;
/// Where the legend begins.
const LEGEND: i32 = 830;
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(228, 228, 228);

/// One line.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Its name.
    pub label: String,
    /// (x, y) from left to right.
    pub points: Vec<(f64, f64)>,
    /// The point that gets a ring.
    pub best: Option<usize>,
}

/// Lines over common axes.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The line at the top.
    pub title: String,
    /// The names of the axes.
    pub axes: [String; 2],
    /// Whether each axis is logarithmic.
    pub logarithmic: [bool; 2],
    /// The lines.
    pub curves: Vec<Curve>,
}

impl Chart {
    /// Writes `stem`.png and `stem`.svg.
    pub fn write(&self, folder: &Path, stem: &str) -> Result<()> {
        font_is_usable()?;
        let size = (WIDTH, HEIGHT.max(ABOVE + LINE * u32::try_from(self.curves.len())?));
        let (width, height) = (size.0 as usize, size.1 as usize);
        let mut pixels = vec![255; 3 * width * height];
        self.draw(&BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area())?;
        let picture = Picture { channels: 3, width, height, pixels };
        picture.write_png(&folder.join(format!("{stem}.png")), &[])?;
        let mut text = String::new();
        self.draw(&SVGBackend::with_string(&mut text, size).into_drawing_area())?;
        Ok(write_atomic(&folder.join(format!("{stem}.svg")), text.as_bytes())?)
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<()> {
        area.fill(&WHITE).map_err(drawing)?;
        let (left, right) = area.split_horizontally(LEGEND);
        self.draw_curves(&left)?;
        for (index, curve) in self.curves.iter().enumerate() {
            let (colour, mark) = style(index);
            let y = (ABOVE + LINE * index as u32) as i32;
            let line = PathElement::new([(8, y), (34, y)], colour.stroke_width(2));
            right.draw(&line).map_err(drawing)?;
            right.draw(&Circle::new((21, y), 4, mark)).map_err(drawing)?;
            let text = (FONT, 14).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
            right.draw_text(&curve.label, &text, (42, y)).map_err(drawing)?;
        }
        area.present().map_err(drawing)
    }

    /// Most labels along the x axis: one for each doubling where it is logarithmic.
    fn x_labels(&self, range: &std::ops::Range<f64>) -> usize {
        if self.logarithmic[0] { (range.end - range.start).floor().max(1.0) as usize + 1 } else { 10 }
    }

    fn draw_curves<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<()> {
        let scaled = |axis: usize, value: f64| if self.logarithmic[axis] { value.max(1e-12).log2() } else { value };
        let place = |&(x, y): &(f64, f64)| (scaled(0, x), scaled(1, y));
        let all: Vec<(f64, f64)> = self.curves.iter().flat_map(|curve| curve.points.iter().map(place)).collect();
        let range = |values: Vec<f64>| {
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let margin = 0.05 * (high - low).max(1e-3);
            (low - margin)..(high + margin)
        };
        let (x, y) = (range(all.iter().map(|p| p.0).collect()), range(all.iter().map(|p| p.1).collect()));
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 20).into_font().color(&INK))
            .margin(14)
            .set_label_area_size(LabelAreaPosition::Left, 62)
            .set_label_area_size(LabelAreaPosition::Bottom, 46)
            .build_cartesian_2d(x.clone(), y)
            .map_err(drawing)?;
        let label = |axis: usize| {
            let logarithmic = self.logarithmic[axis];
            move |value: &f64| match logarithmic {
                true => short(value.exp2()),
                false => short(*value),
            }
        };
        let (x_label, y_label) = (label(0), label(1));
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .axis_style(INK)
            .x_desc(&self.axes[0])
            .y_desc(&self.axes[1])
            .label_style((FONT, 14).into_font().color(&INK))
            .axis_desc_style((FONT, 16).into_font().color(&INK))
            .x_labels(self.x_labels(&x))
            .x_label_formatter(&x_label)
            .y_label_formatter(&y_label)
            .draw()
            .map_err(drawing)?;
        for (index, curve) in self.curves.iter().enumerate() {
            let (colour, mark) = style(index);
            let points: Vec<(f64, f64)> = curve.points.iter().map(place).collect();
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
            chart.draw_series(line).map_err(drawing)?;
            chart.draw_series(points.iter().map(|&at| Circle::new(at, 4, mark))).map_err(drawing)?;
            if let Some(&at) = curve.best.and_then(|best| points.get(best)) {
                chart.draw_series([Circle::new(at, 8, colour.stroke_width(2))]).map_err(drawing)?;
            }
        }
        Ok(())
    }
}

/// The colour of a curve and the filling of its marks: after ten colours they come again with hollow marks.
fn style(index: usize) -> (RGBColor, ShapeStyle) {
    let [r, g, b] = colorous::CATEGORY10[index % 10].as_array();
    let colour = RGBColor(r, g, b);
    (colour, if index < 10 { colour.filled() } else { colour.stroke_width(1) })
}

/// A number with as many digits as it needs on an axis.
fn short(value: f64) -> String {
    let text = match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_written_as_png_and_as_svg_with_its_labels() {
        let curve = |label: &str| Curve { label: label.into(), points: vec![(1.0, 9.0), (8.0, 2.0)], best: Some(1) };
        let chart = Chart {
            title: "title".into(),
            axes: ["steps".into(), "distance".into()],
            logarithmic: [true, false],
            curves: (0..12).map(|i| curve(&format!("curve {i}"))).collect(),
        };
        let folder = tempfile::tempdir().unwrap();
        chart.write(folder.path(), "a").unwrap();
        let svg = std::fs::read_to_string(folder.path().join("a.svg")).unwrap();
        assert!(svg.contains("curve 11") && svg.contains("distance"), "{svg}");
        assert!(std::fs::read(folder.path().join("a.png")).unwrap().starts_with(b"\x89PNG"));
    }

    #[test]
    fn numbers_on_axes_are_short() {
        assert_eq!(
            [short(100.0), short(2.5), short(0.25), short(0.0), short(16.0)],
            ["100", "2.5", "0.25", "0", "16"]
        );
    }
}
