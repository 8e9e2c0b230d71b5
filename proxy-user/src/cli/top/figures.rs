//! Figures as a narrow column shows them.

/// A rate or a count in at most five characters.
pub fn amount(value: f64) -> String {
    // What rounds up to the next unit is written in it.
    if value < 0.05 {
        return "0".to_owned();
    }
    if value < 9.95 {
        return format!("{value:.1}");
    }
    if value < 999.5 {
        return format!("{value:.0}");
    }
    let mut value = value;
    for unit in ["k", "M", "G"] {
        value /= 1_000.0;
        if value < 9.95 {
            return format!("{value:.1}{unit}");
        }
        if value < 999.5 {
            return format!("{value:.0}{unit}");
        }
    }
    format!("{:.0}T", value / 1_000.0)
}

/// One bar for each value, as high as it is beside the highest; the last ones, as many as `width` has room for.
pub fn sparkline(values: &[f64], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let last = &values[values.len().saturating_sub(width)..];
    let highest = last.iter().copied().fold(0.0, f64::max);
    let bars = last.iter().map(|value| {
        if *value <= 0.0 {
            return ' ';
        }
        // Not nothing, so at least the lowest.
        let height = (value / highest * BARS.len() as f64).ceil() as usize;
        BARS[height.clamp(1, BARS.len()) - 1]
    });
    let bars: String = bars.collect();
    format!("{bars:>width$}")
}

/// At most so many characters, with an ellipsis where something is left out.
pub fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_short_and_keep_two_figures() {
        for (value, shown) in [
            (0.0, "0"),
            (0.04, "0"),
            (0.5, "0.5"),
            (9.94, "9.9"),
            (9.96, "10"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12k"),
            (999_600.0, "1.0M"),
            (1_250_000.0, "1.2M"),
            (3.2e9, "3.2G"),
        ] {
            assert_eq!(amount(value), shown, "{value}");
        }
    }

    #[test]
    fn bars_are_as_high_as_the_values_and_the_last_stand_right() {
        assert_eq!(sparkline(&[0.0, 1.0, 4.0, 8.0], 4), " ▁▄█");
        assert_eq!(sparkline(&[8.0, 1.0, 2.0], 2), "▄█");
        assert_eq!(sparkline(&[3.0], 4), "   █");
        assert_eq!(sparkline(&[], 3), "   ");
    }

    proptest! {
        #[test]
        fn no_amount_is_wider_than_its_column(value in 0.0f64..1e14) {
            prop_assert!(amount(value).len() <= 5, "{}", amount(value));
        }

        #[test]
        fn a_sparkline_is_as_wide_as_it_is_told(
            values in proptest::collection::vec(0.0f64..1e9, 0..100), width in 0usize..80,
        ) {
            prop_assert_eq!(sparkline(&values, width).chars().count(), width);
        }
    }
}
