//! Loss curves as SVG.

use anyhow::{Result, anyhow, ensure};
use plotters::coord::combinators::BindKeyPoints;
use plotters::prelude::*;

/// One line of the plot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    pub name: String,
    /// (step, loss), ascending steps.
    pub points: Vec<(f64, f64)>,
}

/// What a screen can tell apart; more points are averaged.
const POINTS: usize = 300;
/// Curves of few points have a mark at each.
const MARKED: usize = 40;
const SIZE: (u32, u32) = (900, 520);

/// Draws the curves into one SVG document, logarithmic in the loss; losses that are not finite or not positive are left out.
///
/// # Errors
/// When no point is left.
pub fn svg(title: &str, curves: &[Curve]) -> Result<String> {
    let curves: Vec<Curve> = curves
        .iter()
        .map(thinned)
        .filter(|c| !c.points.is_empty())
        .collect();
    let all = || curves.iter().flat_map(|c| c.points.iter().copied());
    ensure!(all().next().is_some(), "no curve has a point to draw");
    let last_step = all().map(|p| p.0).fold(1.0, f64::max);
    let low = all().map(|p| p.1).fold(f64::INFINITY, f64::min) / 1.1;
    let high = all().map(|p| p.1).fold(0.0, f64::max) * 1.1;
    // Of its own accord the library marks powers of ten alone, and there may be none.
    let marks = marks(low, high);

    let mut out = String::new();
    let failed = |e: &dyn std::fmt::Display| anyhow!("drawing the loss curves: {e}");
    {
        let root = SVGBackend::with_string(&mut out, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|e| failed(&e))?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 20))
            .margin(14)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(
                0.0..last_step,
                (low..high).log_scale().with_key_points(marks),
            )
            .map_err(|e| failed(&e))?;
        chart
            .configure_mesh()
            .x_desc("step")
            .y_desc("loss, nats per token")
            .x_label_formatter(&|v| format!("{v:.0}"))
            .y_label_formatter(&|v| number(*v))
            .axis_desc_style(("sans-serif", 15))
            .label_style(("sans-serif", 14))
            .light_line_style(WHITE)
            .draw()
            .map_err(|e| failed(&e))?;
        for (i, curve) in curves.iter().enumerate() {
            let colour = Palette99::pick(i).to_rgba();
            chart
                .draw_series(LineSeries::new(
                    curve.points.iter().copied(),
                    colour.stroke_width(2),
                ))
                .map_err(|e| failed(&e))?
                .label(&curve.name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
            if curve.points.len() <= MARKED {
                let points = curve.points.iter();
                chart
                    .draw_series(points.map(|&at| Circle::new(at, 3, colour.filled())))
                    .map_err(|e| failed(&e))?;
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font(("sans-serif", 14))
            .background_style(WHITE.mix(0.9))
            .border_style(BLACK.mix(0.3))
            .draw()
            .map_err(|e| failed(&e))?;
        root.present().map_err(|e| failed(&e))?;
    }
    Ok(out)
}

/// Round numbers between `low` and `high`, both above 0: 1, 2 and 5 times powers of ten, or where those are few the multiples of a smaller one.
fn marks(low: f64, high: f64) -> Vec<f64> {
    let inside = |v: &f64| (low..=high).contains(v);
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    // Written as decimals, so that 3 · 0.1 is 0.3.
    let times = |factor: i32, power: i32| format!("{factor}e{power}").parse().unwrap_or(0.0);
    let of = |factors: &[i32]| -> Vec<f64> {
        let all = decades
            .clone()
            .flat_map(|power| factors.iter().map(move |&f| times(f, power)));
        all.filter(inside).collect()
    };
    let (coarse, fine) = (of(&[1]), of(&[1, 2, 5]));
    if coarse.len() > 6 {
        return coarse;
    }
    if fine.len() >= 4 {
        return fine;
    }
    let power = ((high - low) / 4.0).log10().floor() as i32;
    let step = [1, 2, 5, 10]
        .into_iter()
        .find(|&factor| (high - low) / times(factor, power) <= 8.0)
        .unwrap_or(10);
    let (first, last) = (
        (low / times(step, power)).ceil() as i32,
        (high / times(step, power)).floor() as i32,
    );
    (first..=last).map(|n| times(n * step, power)).collect()
}

/// With as many digits as it takes.
fn number(v: f64) -> String {
    let text = format!("{v:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Means over equal stretches of points.
fn thinned(curve: &Curve) -> Curve {
    let sound: Vec<(f64, f64)> = curve
        .points
        .iter()
        .copied()
        .filter(|(s, l)| s.is_finite() && l.is_finite() && *l > 0.0)
        .collect();
    let stretch = sound.len().div_ceil(POINTS).max(1);
    let mean = |part: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| {
        part.iter().map(of).sum::<f64>() / part.len() as f64
    };
    let points = sound
        .chunks(stretch)
        .map(|part| (mean(part, |p| p.0), mean(part, |p| p.1)))
        .collect();
    Curve {
        name: curve.name.clone(),
        points,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_drawn_and_bad_points_are_left_out() {
        let points = (0..2000)
            .map(|s| {
                (
                    f64::from(s),
                    if s == 7 {
                        f64::NAN
                    } else {
                        5.0 / (1.0 + f64::from(s) / 100.0)
                    },
                )
            })
            .collect();
        let text = svg(
            "loss",
            &[Curve {
                name: "student <1>".into(),
                points,
            }],
        )
        .unwrap();
        assert!(
            text.starts_with("<svg") && text.contains("student &lt;1&gt;") && !text.contains("NaN")
        );
        assert!(text.len() < 60_000, "{} bytes", text.len());
        // Both axes have numbers.
        let labels: Vec<&str> = text.lines().map(str::trim).collect();
        for label in ["1000", "0.5", "2", "5"] {
            assert!(labels.contains(&label), "no {label}");
        }
        assert!(
            svg(
                "loss",
                &[Curve {
                    name: "none".into(),
                    points: vec![(0.0, f64::INFINITY)]
                }]
            )
            .is_err()
        );
    }

    #[test]
    fn every_range_has_round_marks() {
        assert_eq!(marks(2.1, 3.3), [2.2, 2.4, 2.6, 2.8, 3.0, 3.2]);
        assert_eq!(marks(0.3, 6.0), [0.5, 1.0, 2.0, 5.0]);
        assert_eq!(number(0.05), "0.05");
        assert_eq!(number(20.0), "20");
        for (low, high) in [(1e-4, 12.0), (0.9, 1.1), (5.0, 5.001), (0.31, 0.47)] {
            let marks = marks(low, high);
            assert!((3..=17).contains(&marks.len()), "{low} {high}: {marks:?}");
            assert!(marks.iter().all(|m| (low..=high).contains(m)), "{marks:?}");
        }
    }
}
