//! The settings of the pipeline's manifest; options of the job override them.
//!
//! An invalid value panics, which ends the call. With a default instead, the component would silently do something that the tenant did
//! not ask for. The message is in the component log, and `on-component-failure` in the manifest says what happens next.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Returns a setting as text, if it is set. In a native build no setting is set.
pub fn get(name: &str) -> Option<String> {
    #[cfg(target_family = "wasm")]
    return crate::bindings::weir::pipeline::settings::get(name);
    #[cfg(not(target_family = "wasm"))]
    {
        let _ = name;
        None
    }
}

/// Returns a setting, or `default` if it is not set.
///
/// # Panics
/// Panics if the value is not a `T`.
#[track_caller]
pub fn get_or<T: FromStr>(name: &str, default: T) -> T {
    value_or_panic(default, get(name).map(|text| parse_value(name, &text)))
}

/// Returns a number within a range, or `default` if the setting is not set.
///
/// # Panics
/// Panics if the value is not a number in the range.
#[track_caller]
pub fn within<T: FromStr + PartialOrd + Display>(name: &str, default: T, range: RangeInclusive<T>) -> T {
    value_or_panic(default, get(name).map(|text| parse_within(name, &text, range)))
}

/// Returns the value for one of the `words`, or `default` if the setting is not set.
///
/// # Panics
/// Panics if the setting is another word.
#[track_caller]
pub fn choice<T: Copy>(name: &str, default: T, words: &[(&str, T)]) -> T {
    value_or_panic(default, get(name).map(|text| parse_choice(name, &text, words)))
}

#[track_caller]
fn value_or_panic<T>(default: T, value: Option<Result<T, String>>) -> T {
    match value {
        None => default,
        Some(Ok(value)) => value,
        Some(Err(reason)) => panic!("{reason}"),
    }
}

fn parse_value<T: FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| {
        format!(
            "the setting {name} = '{text}' is not a {}",
            std::any::type_name::<T>()
        )
    })
}

fn parse_within<T>(name: &str, text: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    match text.trim().parse() {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => Err(format!(
            "the setting {name} = '{text}' is not within {} to {}",
            range.start(),
            range.end()
        )),
    }
}

fn parse_choice<T: Copy>(name: &str, text: &str, words: &[(&str, T)]) -> Result<T, String> {
    match words.iter().find(|(word, _)| *word == text.trim()) {
        Some((_, value)) => Ok(*value),
        None => {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            Err(format!(
                "the setting {name} = '{text}' is none of {}",
                known.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_setting_has_its_default() {
        assert_eq!(get_or("dpi", 150), 150);
        assert_eq!(within("dpi", 150, 36..=600), 150);
        assert_eq!(choice("ocr", 1, &[("auto", 1), ("never", 2)]), 1);
    }

    #[test]
    fn invalid_value_error_names_the_allowed_values() {
        assert_eq!(parse_value::<u32>("dpi", " 200 "), Ok(200));
        assert_eq!(
            parse_value::<u32>("dpi", "x"),
            Err("the setting dpi = 'x' is not a u32".into())
        );
        assert_eq!(parse_within("dpi", "600", 36..=600), Ok(600));
        assert_eq!(
            parse_within("dpi", "601", 36..=600),
            Err("the setting dpi = '601' is not within 36 to 600".into())
        );
        assert!(parse_within("x", "NaN", 0.0..=1.0).is_err());
        assert_eq!(
            parse_choice("ocr", "maybe", &[("auto", 1), ("never", 2)]),
            Err("the setting ocr = 'maybe' is none of auto, never".into())
        );
    }
}
