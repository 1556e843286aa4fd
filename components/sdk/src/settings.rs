//! The values of the pipeline's manifest, under those the job was started with.
//!
//! A value that is not what it should be ends the call: to go on with a default would do something other than the tenant
//! asked for, and nobody would notice. The panic's message is in the log, and the manifest's `on-trap` says what follows.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A setting as text, if it is set. Natively nothing is.
pub fn get(name: &str) -> Option<String> {
    #[cfg(target_family = "wasm")]
    return crate::bindings::weir::pipeline::settings::get(name);
    #[cfg(not(target_family = "wasm"))]
    {
        let _ = name;
        None
    }
}

/// A setting, or `default` if it is not set.
///
/// # Panics
/// If it is set to something that is no `T`.
#[track_caller]
pub fn get_or<T: FromStr>(name: &str, default: T) -> T {
    taken(default, get(name).map(|text| parse(name, &text)))
}

/// A number within a range, or `default` if it is not set.
///
/// # Panics
/// If it is set to something else.
#[track_caller]
pub fn within<T: FromStr + PartialOrd + Display>(name: &str, default: T, range: RangeInclusive<T>) -> T {
    taken(default, get(name).map(|text| parse_within(name, &text, range)))
}

/// One of a few words, or `default` if it is not set.
///
/// # Panics
/// If it is set to another word.
#[track_caller]
pub fn choice<T: Copy>(name: &str, default: T, words: &[(&str, T)]) -> T {
    taken(default, get(name).map(|text| choose(name, &text, words)))
}

#[track_caller]
fn taken<T>(default: T, value: Option<Result<T, String>>) -> T {
    match value {
        None => default,
        Some(Ok(value)) => value,
        Some(Err(reason)) => panic!("{reason}"),
    }
}

fn parse<T: FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| {
        format!(
            "the setting {name} = '{text}' is no {}",
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

fn choose<T: Copy>(name: &str, text: &str, words: &[(&str, T)]) -> Result<T, String> {
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
    fn a_setting_that_is_not_set_has_its_default() {
        assert_eq!(get_or("dpi", 150), 150);
        assert_eq!(within("dpi", 150, 36..=600), 150);
        assert_eq!(choice("ocr", 1, &[("auto", 1), ("never", 2)]), 1);
    }

    #[test]
    fn a_wrong_value_is_named_with_what_would_be_taken() {
        assert_eq!(parse::<u32>("dpi", " 200 "), Ok(200));
        assert_eq!(
            parse::<u32>("dpi", "x"),
            Err("the setting dpi = 'x' is no u32".into())
        );
        assert_eq!(parse_within("dpi", "600", 36..=600), Ok(600));
        assert_eq!(
            parse_within("dpi", "601", 36..=600),
            Err("the setting dpi = '601' is not within 36 to 600".into())
        );
        assert!(parse_within("x", "NaN", 0.0..=1.0).is_err());
        assert_eq!(
            choose("ocr", "maybe", &[("auto", 1), ("never", 2)]),
            Err("the setting ocr = 'maybe' is none of auto, never".into())
        );
    }
}
