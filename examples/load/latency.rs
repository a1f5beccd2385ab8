//! Latencies: in five numbers, and in a drawing.
//!
//! In: how long each message took, in milliseconds, the shortest first; at least
//! one. Out: text, and an SVG file.
//!
//! Book: docs/17-how-fast-how-many.md.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

/// How finely the drawing divides the latencies.
const BARS: usize = 60;

/// Shortest, longest, and what a share of the messages does not exceed. A mean
/// would hide the few that take long, and they are what a client notices.
pub fn summary(sorted: &[f64]) -> String {
    let [min, median, most, nearly_all, max] =
        [0.0, 0.5, 0.9, 0.99, 1.0].map(|share| quantile(sorted, share));
    format!("min {min:.2}, median {median:.2}, 90 % {most:.2}, 99 % {nearly_all:.2}, max {max:.2}")
}

/// The latency that this share of the messages does not exceed.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Draws how many messages took how long. The scale is logarithmic: most are
/// close together, and the few far away are what one looks for.
pub fn draw(file: &Path, title: &str, sorted: &[f64]) -> Result<(), Box<dyn Error>> {
    let (from, to) = (quantile(sorted, 0.0) * 0.9, quantile(sorted, 1.0) * 1.1);
    let edge = |bar: usize| from * (to / from).powf(bar as f64 / BARS as f64);
    let below = |edge: f64| sorted.partition_point(|latency| *latency < edge);
    let bars: Vec<usize> = (0..BARS).map(|bar| below(edge(bar + 1)) - below(edge(bar))).collect();
    let highest = bars.iter().max().copied().unwrap_or_default();
    // Room for the marks above the bars.
    let top = highest + highest / 4 + 1;

    let area = SVGBackend::new(file, (800, 400)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 16))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((from..to).log_scale(), 0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("latency in ms")
        .x_label_formatter(&|latency| format!("{latency}"))
        .y_desc("messages")
        .draw()?;
    chart.draw_series(bars.iter().enumerate().map(|(bar, count)| {
        Rectangle::new([(edge(bar), 0), (edge(bar + 1), *count)], BLUE.mix(0.5).filled())
    }))?;
    for (line, (name, share)) in [("median", 0.5), ("90 %", 0.9), ("99 %", 0.99)].iter().enumerate()
    {
        let latency = quantile(sorted, *share);
        // Each name on a line of its own: the marks may be close together.
        let height = top - line * top / 16;
        let label = format!("{name}: {latency:.2}");
        chart.draw_series([PathElement::new([(latency, 0), (latency, height)], RED)])?;
        chart.draw_series([Text::new(label, (latency * 1.01, height), ("sans-serif", 13))])?;
    }
    area.present()?;
    Ok(())
}
