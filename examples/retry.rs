//! When a letter is tried that never gets there: `cargo run --example retry`.
//!
//! One line for each attempt: how long after the one before, and how old the letter
//! is then. Attempts at equal distances share a line. The pauses are those of
//! `ehlo::relay::plan::pause`, which the server itself uses. `--retry` and
//! `--give-up` are the flags of the server; with `--svg` the same becomes a drawing:
//!
//! ```text
//! cargo run --example retry -- --svg > docs/retry.svg
//! ```
//!
//! Book: docs/14-the-queue.md.

#[path = "flags/mod.rs"]
mod flags;

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use argh::FromArgs;
use ehlo::relay::plan::pause;
use plotters::prelude::*;

/// A drawing, and a table, of more attempts would help nobody.
const ATTEMPTS_LIMIT: usize = 10_000;

/// Show when a letter is tried that never gets there.
#[derive(FromArgs)]
struct Flags {
    /// time until the second attempt, in seconds (default 300)
    #[argh(option, arg_name = "SECS", default = "300")]
    retry: u64,
    /// age at which the letter goes back, in seconds (default 432000)
    #[argh(option, arg_name = "SECS", default = "432_000")]
    give_up: u64,
    /// print a drawing instead of the table
    #[argh(switch)]
    svg: bool,
}

fn main() -> ExitCode {
    let flags: Flags = match flags::read("retry", "") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    if flags.retry == 0 {
        eprintln!("retry: --retry wants at least 1");
        return ExitCode::from(2);
    }
    let ages = ages(Duration::from_secs(flags.retry), Duration::from_secs(flags.give_up));
    let text = if flags.svg { svg(&ages) } else { Ok(table(&ages)) };
    match text {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("retry: {error}");
            ExitCode::from(1)
        }
    }
}

/// How old the letter is at each attempt, if no attempt takes any time. The last one
/// is not later than the age at which the server gives up.
pub fn ages(retry: Duration, give_up: Duration) -> Vec<Duration> {
    let mut ages = vec![Duration::ZERO];
    let mut age = Duration::ZERO;
    for attempts in 1.. {
        if age >= give_up || ages.len() >= ATTEMPTS_LIMIT {
            break;
        }
        age = (age + pause(retry, attempts)).min(give_up);
        ages.push(age);
    }
    ages
}

/// The table of chapter 14, in Markdown.
pub fn table(ages: &[Duration]) -> String {
    let mut table = "| attempt | after | age |\n| --- | --- | --- |\n".to_owned();
    let mut before = Duration::ZERO;
    let mut rows: Vec<(usize, Duration, Duration, usize)> = Vec::new();
    for (age, attempt) in ages.iter().zip(1..) {
        let after = age.saturating_sub(before);
        before = *age;
        match rows.last_mut() {
            Some((_, same, last, to)) if *same == after => (*last, *to) = (*age, attempt),
            _ => rows.push((attempt, after, *age, attempt)),
        }
    }
    for (from, after, age, to) in rows {
        let (after, age) = (in_words(after), in_words(age));
        let _ = match from == to {
            true => writeln!(table, "| {from} | {after} | {age} |"),
            false => writeln!(table, "| {from} to {to} | {after} each | up to {age} |"),
        };
    }
    table
}

/// `1 h 15 min`; no more than two units.
fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(seconds / 3600, "h"), (seconds % 3600 / 60, "min"), (seconds % 60, "s")];
    let mut words: Vec<String> = units
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    words.truncate(2);
    if words.is_empty() { "0 s".to_owned() } else { words.join(" ") }
}

/// How many attempts there were at each age.
pub fn svg(ages: &[Duration]) -> Result<String, Box<dyn Error>> {
    let in_hours = |age: &Duration| age.as_secs_f64() / 3600.0;
    let points: Vec<(f64, usize)> = ages.iter().map(in_hours).zip(1..).collect();
    let width = ages.last().map(in_hours).unwrap_or_default().max(f64::MIN_POSITIVE);

    let mut out = String::new();
    let area = SVGBackend::with_string(&mut out, (800, 400)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("attempts at a letter that never gets there", ("sans-serif", 16))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..width, 0..points.len() + 1)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("age of the letter in hours")
        .x_label_formatter(&|hours| format!("{hours}"))
        .y_desc("attempts so far")
        .draw()?;
    // A step at each attempt, and nothing in between.
    let steps: Vec<(f64, usize)> = points
        .iter()
        .flat_map(|(age, attempt)| [(*age, attempt.saturating_sub(1)), (*age, *attempt)])
        .collect();
    chart.draw_series([PathElement::new(steps, BLUE.mix(0.5))])?;
    chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, BLUE.filled())))?;
    area.present()?;
    drop(chart);
    drop(area);
    Ok(out)
}
