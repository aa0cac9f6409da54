//! The course of the storms as a picture: goodput above, what arrives at the database below.

use std::ops::Range;

use super::users::Course;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const PANEL: f64 = 190.0;
const GOOD_TOP: f64 = 60.0;
const LOAD_TOP: f64 = 320.0;
const HEIGHT: f64 = 570.0;
const COLOURS: [&str; 4] = ["#7a7a7a", "#c0392b", "#2471a3", "#1e8449"];
const DASHES: [&str; 4] = ["2 3", "none", "7 4", "none"];

/// One line for each course.
pub(super) fn draw(seen: &[(&str, Course)], trouble: Range<u64>) -> String {
    let seconds = seen
        .iter()
        .map(|(_, course)| course.made.len())
        .max()
        .unwrap_or(1);
    let x = |second: f64| LEFT + second / seconds as f64 * (WIDTH - LEFT - RIGHT);
    let most_good = most(seen.iter().map(|(_, course)| smooth(&course.good)));
    let most_load = most(seen.iter().map(|(_, course)| smooth(&course.arrivals)));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"Goodput and load of the database under four retry policies\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    let (from, until) = (x(trouble.start as f64), x(trouble.end as f64));
    for (top, title, most) in [
        (GOOD_TOP, "Requests answered in time, per second", most_good),
        (
            LOAD_TOP,
            "Attempts that reach the database, per second",
            most_load,
        ),
    ] {
        panel(&mut svg, top, title, most, from, until);
    }
    for at in (0..=seconds).step_by(30) {
        let x = x(at as f64);
        text(
            &mut svg,
            x,
            LOAD_TOP + PANEL + 18.0,
            "middle",
            &format!("{at} s"),
        );
    }
    text(
        &mut svg,
        (from + until) / 2.0,
        GOOD_TOP - 6.0,
        "middle",
        "trouble",
    );
    for (number, (name, course)) in seen.iter().enumerate() {
        let (colour, dash) = (COLOURS[number % 4], DASHES[number % 4]);
        for (top, counts, most) in [
            (GOOD_TOP, &course.good, most_good),
            (LOAD_TOP, &course.arrivals, most_load),
        ] {
            let mut points = String::new();
            for (second, value) in smooth(counts).into_iter().enumerate() {
                let y = top + PANEL * (1.0 - value / most);
                points.push_str(&format!("{:.1},{y:.1} ", x(second as f64 + 0.5)));
            }
            line(
                &mut svg,
                &format!(
                    "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\" points=\"{}\"/>",
                    points.trim_end()
                ),
            );
        }
        let (at, y) = (LEFT + 195.0 * number as f64, HEIGHT - 14.0);
        line(
            &mut svg,
            &format!(
                "<line x1=\"{at}\" y1=\"{0}\" x2=\"{1}\" y2=\"{0}\" stroke=\"{colour}\" stroke-width=\"3\" stroke-dasharray=\"{dash}\"/>",
                y - 4.0,
                at + 24.0
            ),
        );
        text(&mut svg, at + 30.0, y, "start", name);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, top: f64, title: &str, most: f64, from: f64, until: f64) {
    let (right, bottom) = (WIDTH - RIGHT, top + PANEL);
    line(
        svg,
        &format!(
            "<rect x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{PANEL}\" fill=\"#f6ddcc\"/>",
            until - from
        ),
    );
    for part in 0..=4 {
        let y = bottom - PANEL * f64::from(part) / 4.0;
        line(
            svg,
            &format!(
                "<line x1=\"{LEFT}\" y1=\"{y}\" x2=\"{right}\" y2=\"{y}\" stroke=\"#dddddd\"/>"
            ),
        );
        let value = format!("{:.0}", most * f64::from(part) / 4.0);
        text(svg, LEFT - 8.0, y + 4.0, "end", &value);
    }
    line(
        svg,
        &format!(
            "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{title}</text>",
            top - 24.0
        ),
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    line(
        svg,
        &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"),
    );
}

fn line(svg: &mut String, line: &str) {
    svg.push_str(line);
    svg.push('\n');
}

/// Means of three seconds: single ones are noise.
fn smooth(counts: &[u64]) -> Vec<f64> {
    (0..counts.len())
        .map(|at| {
            let near = &counts[at.saturating_sub(1)..(at + 2).min(counts.len())];
            near.iter().sum::<u64>() as f64 / near.len() as f64
        })
        .collect()
}

fn most(all: impl Iterator<Item = Vec<f64>>) -> f64 {
    let most = all.flatten().fold(1.0, f64::max);
    // A round number above it, so that the scale can be read.
    let step = 10_f64.powf(most.log10().floor()) / 2.0;
    (most / step).ceil() * step
}
