//! Numbers with their units, for people.

use std::time::Duration;

use bytesize::ByteSize;

/// Separates groups of digits, and numbers from their units: U+202F, which does not break a line.
pub(super) const THIN_SPACE: char = '\u{202f}';

/// Formats a number with its digits in groups of three.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(THIN_SPACE);
        }
        text.push(digit);
    }
    text
}

pub(super) fn in_bytes(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string().replace(' ', &THIN_SPACE.to_string())
}

/// Formats a duration with three digits, or in the two largest units from a minute on.
pub(super) fn in_words(time: Duration) -> String {
    let (seconds, micros) = (time.as_secs(), time.as_secs_f64() * 1e6);
    let decimals = |number: f64| if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    let unit = |number: f64, unit: &str| format!("{number:.*}{THIN_SPACE}{unit}", decimals(number));
    match seconds {
        0 if time.is_zero() => format!("0{THIN_SPACE}s"),
        0 if micros < 1e3 => format!("{micros:.0}{THIN_SPACE}µs"),
        0 => unit(micros / 1e3, "ms"),
        1..60 => unit(micros / 1e6, "s"),
        60..3600 => format!("{}{THIN_SPACE}min {}{THIN_SPACE}s", seconds / 60, seconds % 60),
        _ => format!("{}{THIN_SPACE}h {}{THIN_SPACE}min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_groups_of_three() {
        let expected = ["0", "999", "1\u{202f}000", "12\u{202f}345\u{202f}678"];
        assert_eq!([0, 999, 1000, 12_345_678].map(grouped), expected);
    }

    #[test]
    fn sizes_have_a_binary_unit() {
        let expected = ["0\u{202f}B", "1023\u{202f}B", "1.5\u{202f}KiB"];
        assert_eq!([in_bytes(0), in_bytes(1023), in_bytes(1536)], expected);
        assert_eq!(in_bytes(5 << 30), "5.0\u{202f}GiB");
    }

    #[test]
    fn times_have_three_digits_or_two_units() {
        let nanos = [0, 837_000, 6_837_000, 28_000_000, 299_400_000, 1_234_000_000, 33_000_000_000];
        let expected = ["0 s", "837 µs", "6.84 ms", "28.0 ms", "299 ms", "1.23 s", "33.0 s"];
        let shown = nanos.map(|nanos| in_words(Duration::from_nanos(nanos)));
        assert_eq!(shown, expected.map(|text| text.replace(' ', "\u{202f}")));
        assert_eq!(in_words(Duration::from_secs(61)), "1\u{202f}min 1\u{202f}s");
        assert_eq!(in_words(Duration::from_secs(7_320)), "2\u{202f}h 2\u{202f}min");
    }
}
