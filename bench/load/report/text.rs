//! Numbers and columns for people: three significant digits with a unit, thousands grouped, 80 columns.
//!
//! Programs read the JSON instead.

/// Widest line of what is printed at the end.
pub const COLUMNS_MAX: usize = 80;

/// `1,048,576`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits below 1,000, grouped whole numbers above: `0.25`, `69.4`, `1,389`.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 999.5 => {
            let sign = if value < 0.0 { "-" } else { "" };
            format!("{sign}{}", grouped(size.round() as u64))
        }
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        // Two digits that say something, however small: a share of one in a million is not nothing.
        size => format!("{value:.*}", 2.max(1 - size.log10().floor().max(-12.0) as i32) as usize),
    }
}

/// The largest unit in which `value` is at least 1; it moves to the next where rounding would show 1,000.
fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    let fits = |(size, _): &&(f64, &str)| value.abs() >= size * 0.9995;
    let (size, unit) = units.iter().rev().find(fits).unwrap_or(&units[0]);
    format!("{} {unit}", number(value / size))
}

/// A time given in microseconds: `850 µs`, `12.3 ms`, `62.0 s`, `10 min 0 s`.
pub fn time(us: f64) -> String {
    // Up to ten minutes seconds read better.
    if us >= 599.95e6 { minutes(us) } else { scaled(us, &[(1.0, "µs"), (1e3, "ms"), (1e6, "s")]) }
}

fn minutes(us: f64) -> String {
    let seconds = (us / 1e6).round() as u64;
    match seconds / 3600 {
        0 => format!("{} min {} s", seconds / 60, seconds % 60),
        hours => format!("{hours} h {} min", seconds / 60 % 60),
    }
}

/// `512 B`, `1.50 KiB`, `2.31 GiB`
pub fn bytes(bytes: f64) -> String {
    const KIB: f64 = 1024.0;
    let units = [
        (1.0, "B"),
        (KIB, "KiB"),
        (KIB * KIB, "MiB"),
        (KIB * KIB * KIB, "GiB"),
        (KIB * KIB * KIB * KIB, "TiB"),
    ];
    scaled(bytes, &units)
}

/// A count in at most six columns: `9,999`, `12.3k`, `1.25M`.
pub fn short(count: f64) -> String {
    if count < 9999.5 {
        return if count.fract() == 0.0 { grouped(count as u64) } else { number(count) };
    }
    scaled(count, &[(1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T")]).replace(' ', "")
}

/// `0 %`, `0.25 %`, `12.3 %`
pub fn percent(share: f64) -> String {
    format!("{} %", number(share * 100.0))
}

/// `1 connection`, `3 connections`
pub fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// `text` in lines of at most `columns`, cut at spaces; a longer word stays whole.
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("never empty");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// `text` to the left of `columns`.
pub fn left(text: &str, columns: usize) -> String {
    format!("{text:<columns$}")
}

/// `text` to the right of `columns`.
pub fn right(text: &str, columns: usize) -> String {
    format!("{text:>columns$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_significant_digits_and_whole_thousands() {
        let pairs = [
            (0.0, "0"),
            (0.00012, "0.00012"),
            (0.095, "0.095"),
            (0.254, "0.25"),
            (9.994, "9.99"),
            (9.996, "10.0"),
            (69.44, "69.4"),
            (99.96, "100"),
            (999.4, "999"),
            (999.6, "1,000"),
            (1_388.9, "1,389"),
            (-12.34, "-12.3"),
        ];
        for (value, text) in pairs {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_time_takes_the_unit_in_which_it_is_at_least_one() {
        let pairs = [
            (0.0, "0 µs"),
            (0.5, "0.50 µs"),
            (850.0, "850 µs"),
            (999.9, "1.00 ms"),
            (12_345.0, "12.3 ms"),
            (1_250_000.0, "1.25 s"),
            (62_000_000.0, "62.0 s"),
            (600_000_000.0, "10 min 0 s"),
            (3_723_000_000.0, "1 h 2 min"),
        ];
        for (us, text) in pairs {
            assert_eq!(time(us), text);
        }
    }

    #[test]
    fn bytes_go_by_1024() {
        let pairs = [(0.0, "0 B"), (512.0, "512 B"), (1536.0, "1.50 KiB"), (1_073_741_824.0, "1.00 GiB")];
        for (count, text) in pairs {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn a_short_count_has_at_most_six_columns() {
        let pairs = [
            (0.0, "0"),
            (9_999.0, "9,999"),
            (12_345.0, "12.3k"),
            (999_999.0, "1.00M"),
            (1_250_000.0, "1.25M"),
            (3.3e12, "3.30T"),
            (0.5, "0.50"),
        ];
        for (count, text) in pairs {
            assert_eq!(short(count), text);
            assert!(text.len() <= 6);
        }
    }

    #[test]
    fn long_text_is_cut_at_spaces() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("averylongword b", 4), ["averylongword", "b"]);
        assert_eq!(wrapped("", 4), [""]);
    }

    #[test]
    fn what_is_counted_agrees_with_its_number() {
        assert_eq!(counted(1, "connection"), "1 connection");
        assert_eq!(counted(10_000, "message"), "10,000 messages");
    }
}
