//! Line charts, as PNG and as SVG from one description.

use crate::plot::{FONT, drawing, font_is_usable};
use anyhow::Result;
use gmflow::checkpoint::write_atomic;
use gmflow::samples::Picture;
use gmflow_eval::sweep::Curve;
use plotters::backend::DrawingBackend;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;
use std::path::Path;

const WIDTH: u32 = 1180;
/// The least height; a long legend needs more.
const HEIGHT: u32 = 560;
/// Pixels between two lines of the legend, and above the first.
const LINE: u32 = 22;
const ABOVE: u32 = 56;
/// Where the legend begins.
const LEGEND: i32 = 830;
/// Around the curves, and for the labels left of them.
const MARGIN: i32 = 14;
const LEFT: i32 = 62;
const PLOT_WIDTH: i32 = LEGEND - LEFT - 2 * MARGIN;
/// Pixels of a digit and between two labels.
const DIGIT: f64 = 9.0;
const SPACE: f64 = 8.0;
/// Labels of an x axis at round numbers.
const MOST_LABELS: usize = 10;
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(228, 228, 228);

/// Lines over common axes.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The line at the top.
    pub title: String,
    /// The names of the axes.
    pub axes: [String; 2],
    /// Whether each axis is logarithmic. Such an x axis is labelled with the curves' values.
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
        picture.save_png(&folder.join(format!("{stem}.png")), &[])?;
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

    /// Where the x axis has labels: at the curves' own values where it is logarithmic, as far as there is room, or else at round numbers.
    fn x_labels(&self, range: &Range<f64>) -> Vec<f64> {
        if !self.logarithmic[0] {
            return RangedCoordf64::from(range.clone()).key_points(MOST_LABELS);
        }
        let mut values: Vec<f64> =
            self.curves.iter().flat_map(|curve| &curve.points).map(|&(x, _)| scaled(x, true)).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let pixels = f64::from(PLOT_WIDTH) / (range.end - range.start);
        let half = |value: f64| 0.5 * (short(value.exp2()).len() as f64 * DIGIT + SPACE);
        let apart = |a: f64, b: f64| (b - a) * pixels >= half(a) + half(b);
        let Some(last) = values.pop() else { return values };
        let mut kept: Vec<f64> = Vec::new();
        for value in values {
            if kept.last().is_none_or(|&before| apart(before, value)) && apart(value, last) {
                kept.push(value);
            }
        }
        kept.push(last);
        kept
    }

    fn draw_curves<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<()> {
        let place = |&(x, y): &(f64, f64)| (scaled(x, self.logarithmic[0]), scaled(y, self.logarithmic[1]));
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
            .margin(MARGIN)
            .set_label_area_size(LabelAreaPosition::Left, LEFT)
            .set_label_area_size(LabelAreaPosition::Bottom, 46)
            .build_cartesian_2d(Labelled { labels: self.x_labels(&x), axis: x.into() }, y)
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

/// An axis with labels at given places.
struct Labelled {
    axis: RangedCoordf64,
    labels: Vec<f64>,
}

impl Ranged for Labelled {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.axis.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.labels.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.axis.range()
    }
}

/// A value's place along an axis.
fn scaled(value: f64, logarithmic: bool) -> f64 {
    if logarithmic { value.max(1e-12).log2() } else { value }
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

    /// The labels of a logarithmic x axis.
    fn labels(steps: &[f64]) -> Vec<String> {
        let points: Vec<(f64, f64)> = steps.iter().map(|&steps| (steps, 1.0)).collect();
        // Two curves that share all but the ends.
        let curves = [&points[1..], &points[..points.len() - 1]];
        let curves =
            curves.map(|points| Curve { label: String::new(), points: points.to_vec(), best: None }).to_vec();
        let chart = Chart { title: String::new(), axes: Default::default(), logarithmic: [true, false], curves };
        let ends = steps[0].log2()..steps[steps.len() - 1].log2();
        chart.x_labels(&ends).iter().map(|label| short(label.exp2())).collect()
    }

    #[test]
    fn a_logarithmic_axis_is_labelled_with_what_was_measured() {
        assert_eq!(labels(&[10.0, 25.0, 50.0, 100.0]), ["10", "25", "50", "100"]);
        assert_eq!(labels(&[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 32.0]), ["1", "2", "3", "4", "6", "8", "12", "32"]);
    }

    #[test]
    fn labels_that_would_touch_are_left_out_and_the_ends_stay() {
        let all: Vec<f64> = (1..=128).map(f64::from).collect();
        let kept = labels(&all);
        assert_eq!(kept[..8], ["1", "2", "3", "4", "5", "6", "7", "8"]);
        assert_eq!(kept.last().map(String::as_str), Some("128"));
        let places: Vec<f64> = kept.iter().map(|label| label.parse::<f64>().unwrap().log2()).collect();
        let least = places.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
        assert!(least * f64::from(PLOT_WIDTH) / 7.0 > 17.0 && kept.len() < 32, "{kept:?}");
        assert_eq!(labels(&[100.0, 1000.0, 1001.0]), ["100", "1001"]);
    }

    #[test]
    fn the_axis_that_is_written_has_these_labels() {
        let points = vec![(10.0, 9.0), (25.0, 4.0), (50.0, 3.0), (100.0, 2.0)];
        let chart = Chart {
            title: "title".into(),
            axes: ["network evaluations".into(), "distance".into()],
            logarithmic: [true, true],
            curves: vec![Curve { label: "curve".into(), points, best: None }],
        };
        let folder = tempfile::tempdir().unwrap();
        chart.write(folder.path(), "a").unwrap();
        let svg = std::fs::read_to_string(folder.path().join("a.svg")).unwrap();
        let texts: Vec<&str> = svg.lines().map(str::trim).collect();
        for label in ["10", "25", "50", "100"] {
            assert!(texts.contains(&label), "{label}: {svg}");
        }
        assert!(!texts.contains(&"16") && !texts.contains(&"64"), "{svg}");
    }

    #[test]
    fn numbers_on_axes_are_short() {
        assert_eq!(
            [short(100.0), short(2.5), short(0.25), short(0.0), short(16.0)],
            ["100", "2.5", "0.25", "0", "16"]
        );
    }
}
