//! What a registry wants to see: the header `WWW-Authenticate` (RFC 9110, 11.6.1) of an answer 401.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token, to be had from the realm for the service.
    Bearer { realm: String, service: Option<String> },
    /// User and password.
    Basic,
}

impl Challenge {
    /// The best of those that an answer gives; `None` if none is known here.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let given = headers.get_all(WWW_AUTHENTICATE).iter();
        let all: Vec<Self> = given
            .filter_map(|value| value.to_str().ok())
            .filter_map(Self::parse)
            .collect();
        let bearer = |challenge: &Self| matches!(challenge, Self::Bearer { .. });
        let place = all.iter().position(bearer).unwrap_or(0);
        all.into_iter().nth(place)
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, None);
        for (name, value) in parameters(rest) {
            match name.as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                _ => {}
            }
        }
        Some(Self::Bearer {
            realm: realm?,
            service,
        })
    }
}

/// `name=value, name="value, of more"`.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted_value(quoted),
            None => {
                let end = after.find(',').unwrap_or(after.len());
                let (value, after) = after.split_at(end);
                (value.trim().to_owned(), after)
            }
        };
        found.push((name.trim().to_ascii_lowercase(), value));
        rest = after.trim_start_matches([' ', ',']);
    }
    found
}

/// Up to the closing quote, and what follows it.
fn quoted_value(text: &str) -> (String, &str) {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, text.get(at + 1..).unwrap_or_default()),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn of(values: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        Challenge::of(&headers)
    }

    #[test]
    fn a_token_is_better_than_a_password_and_what_is_unknown_is_none() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.map(str::to_owned),
            })
        };
        assert_eq!(
            of(&[
                "Basic realm=\"a\"",
                "Bearer realm=\"https://a.example/token?x=1,2\",service=\"a \\\"b\\\"\",scope=\"repository:a:pull,push\"",
            ]),
            bearer("https://a.example/token?x=1,2", Some("a \"b\""))
        );
        assert_eq!(
            of(&["bearer Realm=https://a.example/t"]),
            bearer("https://a.example/t", None)
        );
        assert_eq!(of(&["Basic"]), Some(Challenge::Basic));
        for none in [
            &["Negotiate"] as &[_],
            &["Bearer service=\"a\""],
            &["Bearer realm"],
            &[""],
            &[],
        ] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }
}
