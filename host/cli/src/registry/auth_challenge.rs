//! Parses the header `WWW-Authenticate` (RFC 9110, 11.6.1) of 401 responses.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// The authentication that a registry requires.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AuthChallenge {
    /// A token from the URL `realm` for `service`.
    Bearer { realm: String, service: Option<String> },
    /// User and password.
    Basic,
}

impl AuthChallenge {
    /// Returns the preferred challenge of a response: a token if possible, else a password. `None` if there is no supported one.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let header_values = headers.get_all(WWW_AUTHENTICATE).iter();
        let all: Vec<Self> = header_values
            .filter_map(|value| value.to_str().ok())
            .filter_map(Self::parse)
            .collect();
        let bearer = |challenge: &Self| matches!(challenge, Self::Bearer { .. });
        let index = all.iter().position(bearer).unwrap_or(0);
        all.into_iter().nth(index)
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
        for (name, value) in parse_parameters(rest) {
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

/// Parses parameters in the format `name=value, name="quoted value"`.
fn parse_parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => split_quoted_value(quoted),
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

/// Returns the text up to the closing quote, and the text after it.
fn split_quoted_value(text: &str) -> (String, &str) {
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

    fn parse_challenge(values: &[&'static str]) -> Option<AuthChallenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        AuthChallenge::from_headers(&headers)
    }

    #[test]
    fn bearer_is_preferred_and_unknown_schemes_are_ignored() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(AuthChallenge::Bearer {
                realm: realm.into(),
                service: service.map(str::to_owned),
            })
        };
        assert_eq!(
            parse_challenge(&[
                "Basic realm=\"a\"",
                "Bearer realm=\"https://a.example/token?x=1,2\",service=\"a \\\"b\\\"\",scope=\"repository:a:pull,push\"",
            ]),
            bearer("https://a.example/token?x=1,2", Some("a \"b\""))
        );
        assert_eq!(
            parse_challenge(&["bearer Realm=https://a.example/t"]),
            bearer("https://a.example/t", None)
        );
        assert_eq!(parse_challenge(&["Basic"]), Some(AuthChallenge::Basic));
        for none in [
            &["Negotiate"] as &[_],
            &["Bearer service=\"a\""],
            &["Bearer realm"],
            &[""],
            &[],
        ] {
            assert_eq!(parse_challenge(none), None, "{none:?}");
        }
    }
}
