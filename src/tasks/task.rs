//! The task: its fields, and valid names. Pure.

use diesel::{Insertable, Queryable, Selectable};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::schema::task;

/// The version of the serialised form of [`Task`] in the cache: change it with the fields. A test pins
/// the form.
pub(crate) const SCHEMA: &str = "2";

/// A stored task.
#[derive(
    Clone, Debug, Deserialize, Eq, Insertable, PartialEq, Queryable, Selectable, Serialize,
)]
#[diesel(table_name = task)]
pub(crate) struct Task {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) completed: bool,
}

/// The id of a task: a positive 64-bit integer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "i64")]
pub(crate) struct TaskId(i64);

impl TaskId {
    pub(crate) fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for TaskId {
    type Error = &'static str;

    fn try_from(id: i64) -> Result<Self, Self::Error> {
        if id > 0 { Ok(Self(id)) } else { Err("an id is a positive number") }
    }
}

/// A valid name: trimmed, 1 to [`TaskName::MAX_LENGTH`] characters, without control characters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TaskName(String);

impl TaskName {
    /// The longest name, in characters (Unicode scalar values).
    pub(crate) const MAX_LENGTH: usize = 500;

    /// Parses the text that a user typed.
    pub(crate) fn parse(typed: &str) -> Result<Self, NameError> {
        let name = typed.trim();
        let length = name.chars().count();
        if name.chars().all(is_invisible) {
            Err(NameError::Missing)
        } else if name.chars().any(breaks_lines) {
            Err(NameError::ControlCharacter)
        } else if length > Self::MAX_LENGTH {
            Err(NameError::TooLong(length))
        } else {
            Ok(Self(name.to_owned()))
        }
    }

    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns whether `c` is a control character, or one of Unicode's two separators of lines and
/// paragraphs.
fn breaks_lines(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Returns whether `c` is white space or in Unicode's class `Default_Ignorable_Code_Point`. A name of
/// only such characters would be an empty row.
fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}'
            | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// The reason that a name is invalid, in words for the user.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum NameError {
    #[error("Task name is required.")]
    Missing,
    #[error("Task name must not contain line breaks, tabs or other control characters.")]
    ControlCharacter,
    #[error(
        "Task name is too long: {0} characters, and the limit is {limit}.",
        limit = TaskName::MAX_LENGTH
    )]
    TooLong(usize),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(typed: &str) -> Result<String, NameError> {
        TaskName::parse(typed).map(|name| name.0)
    }

    #[test]
    fn surrounding_white_space_is_trimmed() {
        assert_eq!(parsed(" \t\u{3000}Buy  milk\r\n").as_deref(), Ok("Buy  milk"));
    }

    #[test]
    fn a_blank_name_is_missing() {
        assert_eq!(parsed(""), Err(NameError::Missing));
        assert_eq!(parsed(" \u{a0}\n"), Err(NameError::Missing));
    }

    #[test]
    fn an_invisible_name_is_missing() {
        assert_eq!(parsed("\u{200b} \u{feff}\u{3164}"), Err(NameError::Missing));
        assert!(parsed("👩\u{200d}👧").is_ok(), "joiners within a name are allowed");
    }

    #[test]
    fn the_limit_counts_characters_and_not_bytes() {
        assert!(parsed(&"🦀".repeat(500)).is_ok());
        assert_eq!(parsed(&"🦀".repeat(501)), Err(NameError::TooLong(501)));
    }

    #[test]
    fn control_characters_are_refused() {
        for c in ['\0', '\n', '\t', '\u{7f}', '\u{85}', '\u{2028}', '\u{2029}'] {
            assert_eq!(parsed(&format!("a{c}b")), Err(NameError::ControlCharacter), "{c:?}");
        }
    }

    #[test]
    fn the_cached_form_of_a_task_is_that_of_this_schema() {
        // If this fails, change SCHEMA with it.
        let task = Task { id: 7, name: "Milk".to_owned(), completed: true };
        let form = rmp_serde::to_vec_named(&task).unwrap();
        let pinned = b"\x83\xa2id\x07\xa4name\xa4Milk\xa9completed\xc3";
        assert_eq!((SCHEMA, &form[..]), ("2", &pinned[..]));
    }

    #[test]
    fn an_id_is_positive() {
        assert!(TaskId::try_from(1).is_ok());
        assert!(TaskId::try_from(0).is_err());
        assert!(TaskId::try_from(-1).is_err());
    }

    proptest! {
        #[test]
        fn an_accepted_name_is_accepted_again_unchanged(typed in any::<String>()) {
            if let Ok(name) = TaskName::parse(&typed) {
                prop_assert_eq!(TaskName::parse(name.as_str()), Ok(name));
            }
        }
    }
}
