//! Figures: what was measured, how often, and which bar it is held to.

use std::fmt::Write as _;

use serde::Serialize;

/// One figure of one run.
#[derive(Clone)]
pub(crate) struct Figure {
    /// The workload, as in the table of `docs/PERFORMANCE.md`.
    pub(crate) workload: &'static str,
    /// What it is.
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What is good enough, if there is such a thing: at most this.
    pub(crate) bar: Option<f64>,
}

impl Figure {
    pub(crate) fn new(workload: &'static str, what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { workload, what: what.into(), value, unit, bar: None }
    }

    /// The figure is meant to be at most this.
    pub(crate) fn at_most(self, bar: f64) -> Self {
        Self { bar: Some(bar), ..self }
    }
}

/// A figure over all runs.
#[derive(Serialize)]
pub(crate) struct Median {
    workload: &'static str,
    figure: String,
    median: f64,
    least: f64,
    most: f64,
    unit: &'static str,
    bar: Option<f64>,
    runs: usize,
}

/// Brings together what belongs together, in the order in which it came.
pub(crate) fn medians(figures: &[Figure]) -> Vec<Median> {
    let mut all: Vec<(&Figure, Vec<f64>)> = Vec::new();
    for figure in figures {
        match all.iter_mut().find(|(known, _)| known.workload == figure.workload && known.what == figure.what) {
            Some((_, values)) => values.push(figure.value),
            None => all.push((figure, vec![figure.value])),
        }
    }
    let median = |(figure, mut values): (&Figure, Vec<f64>)| {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Median {
            workload: figure.workload,
            figure: figure.what.clone(),
            median: at((values.len() - 1) / 2).midpoint(at(values.len() / 2)),
            least: at(0),
            most: at(values.len() - 1),
            unit: figure.unit,
            bar: figure.bar,
            runs: values.len(),
        }
    };
    all.into_iter().map(median).collect()
}

/// The table, as it stands in `docs/PERFORMANCE.md`.
pub(crate) fn table(medians: &[Median]) -> String {
    let mut table = String::from("| | figure | median | least – most | bar |\n|---|---|---|---|---|\n");
    for row in medians {
        let bar = row
            .bar
            .map_or_else(String::new, |bar| format!("≤ {} {}", number(bar), if row.median <= bar { "✓" } else { "✗" }));
        let (median, least, most) = (number(row.median), number(row.least), number(row.most));
        // Writing to a `String` cannot fail.
        let _ =
            writeln!(table, "| {} | {} | {median} {} | {least} – {most} | {bar} |", row.workload, row.figure, row.unit);
    }
    table
}

/// Three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        value if value >= 1_000.0 => {
            let digits = format!("{value:.0}");
            let head = digits.len() % 3;
            let mut parts: Vec<&str> = Vec::new();
            parts.extend(digits.get(..head).filter(|head| !head.is_empty()));
            parts.extend((head..digits.len()).step_by(3).filter_map(|at| digits.get(at..at + 3)));
            parts.join(",")
        }
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

/// The value below which so many hundredths of `values` lie; sorts them.
pub(crate) fn percentile(values: &mut [u32], hundredths: usize) -> f64 {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    values.get((values.len() * hundredths / 100).min(last)).copied().map_or(f64::NAN, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_of_three_runs_is_its_median_with_the_least_and_the_most() {
        let of = |value| Figure::new("W3", "text", value, "µs").at_most(12.0);
        let [median] = &medians(&[of(14.0), of(10.0), of(11.0)])[..] else { panic!("one figure") };
        assert_eq!((median.median, median.least, median.most, median.runs), (11.0, 10.0, 14.0, 3));
        assert_eq!(table(&[]).lines().count(), 2);
    }

    #[test]
    fn numbers_have_three_digits_and_commas() {
        let shown = [0.0456, 1.5, 12.34, 123.4, 1_234.5, 1_234_567.0].map(number);
        assert_eq!(shown, ["0.046", "1.50", "12.3", "123", "1,234", "1,234,567"]);
    }

    #[test]
    fn percentiles_count_from_the_least() {
        let mut values: Vec<u32> = (1..=200).rev().collect();
        assert_eq!(percentile(&mut values, 50), 101.0);
        assert_eq!(percentile(&mut values, 99), 199.0);
        assert_eq!(percentile(&mut [7], 99), 7.0);
    }
}
