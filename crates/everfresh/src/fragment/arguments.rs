//! Parses the arguments of `{% cache %}` as they are written in a template. Pure.

use std::fmt::Display;

use super::scan::Token;

/// The arguments of one tag.
pub(super) struct TagArguments<'t, 'a> {
    tokens: &'t [Token<'a>],
    /// The tokens `of` and `=`, if the last argument is `of=VALUE`.
    of: Option<[Token<'a>; 2]>,
}

const USAGE: &str =
    "write `{% cache TIMEOUT, NAME, VARY…, of=VALUE %}`; VARY and `of` may be left out";

impl<'t, 'a> TagArguments<'t, 'a> {
    /// Parses the tokens between `cache` and the end of the tag. The error is a message for the
    /// template's author.
    pub(super) fn parse(tokens: &'t [Token<'a>]) -> Result<Self, String> {
        let arguments = split_at_commas(tokens);
        let positional =
            arguments.iter().position(|argument| is_named(argument)).unwrap_or(arguments.len());
        if arguments.iter().any(|argument| argument.is_empty()) || positional < 2 {
            return Err(USAGE.to_owned());
        }
        if let Some(literal) = wrong_timeout(arguments[0]) {
            return Err(not_a_timeout(literal));
        }
        let of = match &arguments[positional..] {
            [] => None,
            [[name, equals, _, ..]] if name.text == "of" => Some([*name, *equals]),
            _ => return Err(format!("only the last argument has a name, which is `of`; {USAGE}")),
        };
        Ok(Self { tokens, of })
    }

    /// Returns whether the last argument is `of=VALUE`.
    pub(super) fn has_fingerprint(&self) -> bool {
        self.of.is_some()
    }

    /// Returns the arguments as they are written in `source`, line breaks included, without the
    /// tokens `of` and `=`.
    pub(super) fn as_list(&self, source: &str) -> String {
        let (Some(first), Some(last)) = (self.tokens.first(), self.tokens.last()) else {
            return String::new();
        };
        match self.of {
            None => source[first.at..last.end()].to_owned(),
            Some([name, equals]) => [
                &source[first.at..name.at],
                &source[name.end()..equals.at],
                &source[equals.end()..last.end()],
            ]
            .concat(),
        }
    }
}

/// Returns the message about a value that is not a timeout.
pub(super) fn not_a_timeout(value: impl Display) -> String {
    format!(
        "`{value}` is not a timeout for `{{% cache %}}`; use seconds, none (forever), \"default\" or \
         \"del\""
    )
}

/// Returns a literal that cannot be a timeout, whatever the context of the template.
fn wrong_timeout(argument: &[Token<'_>]) -> Option<String> {
    match argument {
        [minus, number] if minus.text == "-" && number.is_number() => {
            Some(format!("-{}", number.text))
        }
        [token] if matches!(token.text, "true" | "false" | "True" | "False") => {
            Some(token.text.to_owned())
        }
        [token] => {
            let text = token.as_string().filter(|text| !matches!(*text, "default" | "del"))?;
            Some(text.to_owned())
        }
        _ => None,
    }
}

/// Returns whether an argument is `name=VALUE`, and not the comparison `name == VALUE`.
fn is_named(argument: &[Token<'_>]) -> bool {
    match argument {
        [name, equals, rest @ ..] => {
            name.is_identifier()
                && equals.text == "="
                && rest.first().is_none_or(|token| token.text != "=")
        }
        _ => false,
    }
}

/// Splits at the commas that are not inside brackets.
fn split_at_commas<'t, 'a>(tokens: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let mut depth = 0;
    tokens
        .split(|token| {
            match token.text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            depth == 0 && token.text == ","
        })
        .collect()
}
