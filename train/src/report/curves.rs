//! Loss curves as SVG.

use anyhow::{Result, anyhow, ensure};
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
const SIZE: (u32, u32) = (900, 480);

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
    let low = all().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = all().map(|p| p.1).fold(0.0, f64::max);

    let mut out = String::new();
    let failed = |e: &dyn std::fmt::Display| anyhow!("drawing the loss curves: {e}");
    {
        let root = SVGBackend::with_string(&mut out, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|e| failed(&e))?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 20))
            .margin(14)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..last_step, (low * 0.9..high * 1.1).log_scale())
            .map_err(|e| failed(&e))?;
        chart
            .configure_mesh()
            .x_desc("step")
            .y_desc("loss, nats per token")
            .x_label_formatter(&|v| format!("{v:.0}"))
            .y_label_formatter(&|v| {
                if *v < 0.1 {
                    format!("{v:.3}")
                } else {
                    format!("{v:.2}")
                }
            })
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
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.9))
            .border_style(BLACK.mix(0.3))
            .draw()
            .map_err(|e| failed(&e))?;
        root.present().map_err(|e| failed(&e))?;
    }
    Ok(out)
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
}
