//! Line charts as SVG, readable on light and on dark ground.

use std::ops::Range;

use plotters::prelude::*;

use super::ReportError;

/// Size of a chart in pixels; pages scale it.
const SIZE: (u32, u32) = (480, 360);
/// Stands for the text colour of whatever page the chart is put on.
const INK: RGBColor = RGBColor(17, 18, 19);
/// [`INK`] as the drawing library writes it, in quotes, which text never has.
const INK_ATTRIBUTE: &str = "\"#111213\"";
/// Colours that can be told apart by most people with a colour vision deficiency, after Okabe and Ito 2008.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(190, 140, 0),
    RGBColor(70, 160, 220),
    RGBColor(140, 107, 177),
    RGBColor(128, 128, 128),
];
/// Labels beside an axis are cut to so many characters.
const LABEL: usize = 22;
/// Names in a legend are cut to so many, with which it is narrower than the chart.
const NAME: usize = 40;

/// A chart of lines.
pub struct LineChart {
    /// What it shows; not drawn.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn.
    pub lines: Vec<Line>,
}

/// An axis.
pub struct Axis {
    /// What it measures.
    pub label: &'static str,
    /// From where to where.
    pub range: Range<f64>,
    /// How its numbers are written.
    pub form: Form,
}

/// How the numbers on an axis are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Plain,
    /// Shares as percentages.
    Percent,
    /// Whole numbers.
    Whole,
    /// Exponents as powers of ten.
    PowerOfTen,
}

/// A line of a chart.
pub struct Line {
    /// What it stands for.
    pub name: String,
    /// `(x, y)`, in drawing order.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub style: Style,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// In a colour of its own.
    Plain,
    /// The same, with each point marked.
    Marked,
    /// Thick, in the text's colour: what the others come to.
    Summary,
    /// Thin, in the text's colour, without a legend: something to compare with.
    Reference,
}

impl Line {
    /// A plain line.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points,
            style: Style::Plain,
        }
    }

    /// The line with its points marked.
    #[must_use]
    pub fn marked(self) -> Self {
        Self {
            style: Style::Marked,
            ..self
        }
    }

    /// The line as what the others come to.
    #[must_use]
    pub fn summary(self) -> Self {
        Self {
            style: Style::Summary,
            ..self
        }
    }

    /// Something to compare with.
    pub fn reference(points: Vec<(f64, f64)>) -> Self {
        Self {
            style: Style::Reference,
            ..Self::new("", points)
        }
    }
}

impl Form {
    fn text(self, value: f64) -> String {
        match self {
            Self::Plain => format!("{}", (value * 1e6).round() / 1e6),
            Self::Percent => format!("{:.0} %", 100.0 * value),
            Self::Whole | Self::PowerOfTen if value.fract().abs() > 1e-9 => String::new(),
            Self::Whole => format!("{value:.0}"),
            Self::PowerOfTen => format!("{}", 10_f64.powf(value)),
        }
    }
}

impl LineChart {
    /// The chart as SVG, its text in the colour of the text around it.
    ///
    /// # Errors
    /// [`ReportError::Plot`].
    pub fn draw(&self) -> Result<String, ReportError> {
        let mut svg = String::new();
        self.draw_into(&mut svg).map_err(|error| ReportError::Plot {
            title: self.title.clone(),
            reason: error.to_string(),
        })?;
        Ok(themed(&svg))
    }

    fn draw_into(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .margin_right(18)
            .x_label_area_size(40)
            .y_label_area_size(58)
            .build_cartesian_2d(self.x.range.clone(), self.y.range.clone())?;
        let small = ("sans-serif", 15).into_font().color(&INK);
        chart
            .configure_mesh()
            .x_desc(self.x.label)
            .y_desc(self.y.label)
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|value| self.x.form.text(*value))
            .y_label_formatter(&|value| self.y.form.text(*value))
            .label_style(small.clone())
            .axis_desc_style(("sans-serif", 16).into_font().color(&INK))
            .axis_style(INK.mix(0.6))
            .bold_line_style(INK.mix(0.14))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for line in self.lines.iter().filter(|line| line.style == Style::Reference) {
            chart.draw_series(DashedLineSeries::new(
                line.points.iter().copied(),
                5,
                4,
                INK.mix(0.5).into(),
            ))?;
        }
        let (mut coloured, mut summaries) = (COLOURS.iter().cycle(), [INK.mix(1.0), INK.mix(0.5)].into_iter().cycle());
        for line in self.named() {
            let (colour, width) = if line.style == Style::Summary {
                (summaries.next().unwrap_or(INK.mix(1.0)), 3)
            } else {
                (coloured.next().unwrap_or(&INK).mix(1.0), 2)
            };
            chart
                .draw_series(LineSeries::new(self.visible(&line.points), colour.stroke_width(width)))?
                .label(cut(&line.name, NAME))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(3)));
            if line.style == Style::Marked {
                let marks = line.points.iter();
                chart.draw_series(marks.map(|point| Circle::new(*point, 3, colour.filled())))?;
            }
        }
        if self.named().count() > 1 {
            chart
                .configure_series_labels()
                .position(self.emptiest_corner())
                .margin(8)
                .legend_area_size(22)
                .label_font(small)
                .draw()?;
        }
        area.present()?;
        Ok(())
    }

    /// The lines that the legend names.
    fn named(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.style != Style::Reference)
    }

    /// The points without those on the pixel of the one before: curves of many images have a thousand times as many.
    fn visible(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let pixel =
            |range: &Range<f64>, value: f64, pixels: u32| (place(range, value) * f64::from(pixels)).round() as i32;
        let mut points = points.to_vec();
        points.dedup_by_key(|(x, y)| (pixel(&self.x.range, *x, SIZE.0), pixel(&self.y.range, *y, SIZE.1)));
        points
    }

    /// The corner of the chart with the fewest points in it.
    fn emptiest_corner(&self) -> SeriesLabelPosition {
        let points: Vec<(f64, f64)> = self
            .named()
            .flat_map(|line| line.points.windows(2))
            .flat_map(|pair| [0.0, 0.25, 0.5, 0.75].map(|share| mix(pair[0], pair[1], share)))
            .map(|(x, y)| (place(&self.x.range, x), place(&self.y.range, y)))
            .collect();
        let corners = [
            (SeriesLabelPosition::LowerRight, true, false),
            (SeriesLabelPosition::UpperRight, true, true),
            (SeriesLabelPosition::LowerLeft, false, false),
            (SeriesLabelPosition::UpperLeft, false, true),
        ];
        let crowded = |(_, right, upper): &(SeriesLabelPosition, bool, bool)| {
            let inside = points
                .iter()
                .filter(|(x, y)| (*x > 0.5) == *right && (*y > 0.5) == *upper);
            inside.count()
        };
        corners
            .into_iter()
            .min_by_key(crowded)
            .map_or(SeriesLabelPosition::LowerRight, |(position, ..)| position)
    }
}

/// Where in `range` a value lies, from 0 to 1.
fn place(range: &Range<f64>, value: f64) -> f64 {
    (value - range.start) / (range.end - range.start)
}

fn mix(a: (f64, f64), b: (f64, f64), share: f64) -> (f64, f64) {
    (a.0 + share * (b.0 - a.0), a.1 + share * (b.1 - a.1))
}

/// A label that fits beside an axis, or into a legend with a figure behind it.
pub(super) fn shortened(label: &str) -> String {
    cut(label, LABEL)
}

/// `text` on one line and without its middle where it has not the room: names that are alike differ at an end.
fn cut(text: &str, room: usize) -> String {
    let plain: Vec<char> = text
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    if fitting(plain.iter(), room) == plain.len() {
        return plain.into_iter().collect();
    }
    let front = fitting(plain.iter(), room / 2);
    let back = fitting(plain.iter().rev(), (room - 1) / 2);
    let kept = plain[..front].iter().chain(&['…']);
    kept.chain(&plain[plain.len() - back..]).collect()
}

/// How many of the characters have room. Those from Hangul on, which are ideographs and emoji, are twice as wide.
fn fitting<'a>(characters: impl Iterator<Item = &'a char>, room: usize) -> usize {
    let ends = characters.scan(0, |end, character| {
        *end += if *character < '\u{1100}' { 1 } else { 2 };
        Some(*end)
    });
    ends.take_while(|end| *end <= room).count()
}

/// A matrix of counts as SVG: rows shaded by their shares, in the colour of the text around it.
///
/// # Errors
/// [`ReportError::Plot`].
pub(super) fn matrix(title: &str, labels: &[String], counts: &[Vec<usize>]) -> Result<String, ReportError> {
    let mut svg = String::new();
    draw_matrix(&mut svg, labels, counts).map_err(|error| ReportError::Plot {
        title: title.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(themed(&svg))
}

fn draw_matrix(svg: &mut String, labels: &[String], counts: &[Vec<usize>]) -> Result<(), Box<dyn std::error::Error>> {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    let count = labels.len().max(1) as i32;
    // Numbers are written where there is room for them.
    let cell = (1200 / count).clamp(3, 56);
    let (left, top) = (if cell >= 14 { 190 } else { 10 }, 30);
    let below = if cell >= 14 { 170 } else { 10 };
    let size = ((left + count * cell + 20) as u32, (top + count * cell + below) as u32);
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    let text = |height: i32, horizontal: HPos| {
        let font = ("sans-serif", height).into_font();
        TextStyle::from(font)
            .color(&INK)
            .pos(Pos::new(horizontal, VPos::Center))
    };
    let small = (cell / 2).clamp(10, 15);
    area.draw_text("rows: truth, columns: answer", &text(14, HPos::Left), (left, 14))?;
    for (row, of_row) in counts.iter().enumerate() {
        let total: usize = of_row.iter().sum();
        let y = top + row as i32 * cell;
        for (column, images) in of_row.iter().enumerate() {
            let x = left + column as i32 * cell;
            let share = if total == 0 { 0.0 } else { *images as f64 / total as f64 };
            let corners = [(x, y), (x + cell, y + cell)];
            area.draw(&Rectangle::new(corners, COLOURS[0].mix(0.6 * share).filled()))?;
            if cell >= 20 && *images > 0 {
                area.draw_text(
                    &images.to_string(),
                    &text(small, HPos::Center),
                    (x + cell / 2, y + cell / 2),
                )?;
            }
        }
        if cell >= 14 {
            let label = shortened(&labels[row]);
            area.draw_text(&label, &text(small, HPos::Right), (left - 8, y + cell / 2))?;
            let upright = text(small, HPos::Left).transform(FontTransform::Rotate90);
            let x = left + row as i32 * cell + cell / 2;
            area.draw_text(&label, &upright, (x, top + count * cell + 8))?;
        }
    }
    let (right, bottom) = (left + count * cell, top + count * cell);
    for line in 0..=count {
        let (x, y) = (left + line * cell, top + line * cell);
        for ends in [[(left, y), (right, y)], [(x, top), (x, bottom)]] {
            area.draw(&PathElement::new(ends, INK.mix(0.4)))?;
        }
    }
    area.present()?;
    Ok(())
}

fn themed(svg: &str) -> String {
    svg.replace(INK_ATTRIBUTE, "\"currentColor\"")
}

/// A chart as a file of its own, on white ground.
pub(super) fn standalone(svg: &str) -> String {
    match svg.split_once('>') {
        Some((tag, rest)) => {
            format!("{tag} color=\"black\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>{rest}")
        }
        None => svg.to_owned(),
    }
}
