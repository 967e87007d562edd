//! Environment variables, and the error of an invalid one.

use std::{collections::HashMap, fmt, io, path::Path, str::FromStr, time::Duration};

use thiserror::Error;

/// Variables whose empty value has a meaning.
const MAY_BE_EMPTY: [&str; 1] = ["CACHE_KEY_PREFIX"];

/// An invalid setting: the variable, the problem and its remedy.
#[derive(Debug, Error)]
#[error("{variable}: {problem}")]
pub struct ConfigError {
    variable: String,
    problem: String,
}

impl ConfigError {
    pub(crate) fn new(variable: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { variable: variable.into(), problem: problem.into() }
    }
}

/// Quotes an invalid value on one line.
pub(crate) fn quoted(value: &str) -> String {
    format!("“{}”", value.escape_debug())
}

/// The variables that settings are read from. An empty variable counts as not set.
#[derive(Default)]
pub struct Environment(HashMap<String, String>);

impl Environment {
    /// Reads the environment of the process, and the `.env` file at `dotenv` for variables that are
    /// not set. On a dyno (`DYNO` is set) the file is ignored.
    pub fn load(dotenv: &Path) -> Result<Self, ConfigError> {
        let mut variables = HashMap::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str() else { continue };
            variables.insert(name.to_owned(), value.to_string_lossy().into_owned());
        }
        if !variables.contains_key("DYNO") {
            for (name, value) in read_dotenv(dotenv)? {
                let is_unset = match variables.get(&name) {
                    None => true,
                    Some(set) => set.is_empty() && !MAY_BE_EMPTY.contains(&name.as_str()),
                };
                if is_unset {
                    variables.insert(name, value);
                }
            }
        }
        Ok(Self(variables))
    }

    /// Returns the value of a variable that is set and not empty.
    pub(crate) fn get(&self, variable: &str) -> Option<&str> {
        self.get_or_empty(variable).filter(|value| !value.is_empty())
    }

    /// Returns the value of a variable that is set, even if it is empty.
    pub(crate) fn get_or_empty(&self, variable: &str) -> Option<&str> {
        self.0.get(variable).map(String::as_str)
    }

    /// Parses a duration with its unit.
    pub(crate) fn duration_between(
        &self,
        variable: &str,
        min: Duration,
        max: Duration,
    ) -> Result<Option<Duration>, ConfigError> {
        let Some(value) = self.get(variable) else { return Ok(None) };
        match humantime::parse_duration(value.trim()) {
            Ok(duration) if (min..=max).contains(&duration) => Ok(Some(duration)),
            _ => Err(ConfigError::new(
                variable,
                format!(
                    "{} is not a time from {} to {}, such as 250ms, 2s or 5min",
                    quoted(value),
                    humantime::format_duration(min),
                    humantime::format_duration(max),
                ),
            )),
        }
    }

    /// Parses a variable. `expected` describes a valid value.
    pub(crate) fn parse<T: FromStr>(
        &self,
        variable: &str,
        expected: &str,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(variable) else { return Ok(None) };
        match value.trim().parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => {
                Err(ConfigError::new(variable, format!("{} is not {expected}", quoted(value))))
            }
        }
    }

    /// Parses a number within bounds.
    pub(crate) fn number_between(
        &self,
        variable: &str,
        min: u32,
        max: u32,
    ) -> Result<Option<u32>, ConfigError> {
        let expected = format!("a number from {min} to {max}");
        match self.parse(variable, &expected)? {
            Some(n) if !(min..=max).contains(&n) => Err(ConfigError::new(
                variable,
                format!("{} is not {expected}", quoted(&n.to_string())),
            )),
            number => Ok(number),
        }
    }

    /// Parses `yes` or `no`. Default: `no`.
    pub(crate) fn flag(&self, variable: &str) -> Result<bool, ConfigError> {
        match self.get(variable).map(str::to_ascii_lowercase).as_deref() {
            None | Some("no" | "false" | "0") => Ok(false),
            Some("yes" | "true" | "1") => Ok(true),
            Some(other) => {
                Err(ConfigError::new(variable, format!("{} is not yes or no", quoted(other))))
            }
        }
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Environment {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment(…)")
    }
}

fn read_dotenv(path: &Path) -> Result<Vec<(String, String)>, ConfigError> {
    let error = |error| {
        let problem = match error {
            dotenvy::Error::LineParse(_, _) => "a line is not of the form NAME=value; quote \
                values with blanks or a $ in 'single quotes'"
                .to_owned(),
            other => format!("cannot be read: {other}"),
        };
        ConfigError::new(path.display().to_string(), problem)
    };
    match dotenvy::from_path_iter(path) {
        Ok(lines) => lines.collect::<Result<_, _>>().map_err(error),
        Err(dotenvy::Error::Io(e)) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(other) => Err(error(other)),
    }
}
